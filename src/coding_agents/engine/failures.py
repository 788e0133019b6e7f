"""Gives an engine's failure its meaning: which error it is and what a person can do about it. Pure."""

from __future__ import annotations

import re

from coding_agents.engine.features import Features
from coding_agents.errors import CodingAgentsError, EngineError, EngineForbiddenError, EngineStoppedError
from coding_agents.proc.runner import Outcome

# Texts of Docker 20.10-28 and Podman 4-5.
_MISSING = (
    r"no such (?:container|object|volume|image|network|exec)|no container with name|image not known"
    r"|(?:network|volume|container|image) (?:\S+ )?not found|does not exist in database"
)
_FORBIDDEN = (
    r"permission denied while trying to connect|dial unix [^\n]*: permission denied"
    r"|permission denied[^\n]*docker\.sock"
)
_STOPPED = (
    r"cannot connect to the docker daemon|is the docker daemon running|error during connect"
    r"|failed to connect to the docker api|cannot connect to podman|unable to connect to podman"
    r"|dial unix [^\n]*(?:connection refused|no such file)"
)
LEFT_OVER = (
    "Something of that name is left over: look with `coding-agents list -a` and `coding-agents prune`."
)
_NO_RUNTIME = r"unknown or invalid runtime|runtime .* not found|default oci runtime .* not found"
_HINTS = (
    (
        r"no space left on device|disk quota exceeded",
        "The engine's disk is full: free some space (`coding-agents prune`, `coding-agents images prune`).",
    ),
    (
        r"is already in use|already exists",
        LEFT_OVER,
    ),
    (
        r"error setting rlimit",
        "The engine may not set these limits on open files or processes: raise its own hard limits.",
    ),
    (
        r"appl(?:y|ied) apparmor profile|apparmor failed to apply|apparmor profile [^\n]*not loaded",
        "The kernel does not take our AppArmor profile: load it again with `coding-agents doctor --fix`.",
    ),
    (
        r"cgroups? in hybrid mode|crun: .*cgroup",
        "This machine's cgroups need runc: install it, or choose it with --runtime runc.",
    ),
    (
        _NO_RUNTIME,
        "The engine does not know this runtime: `coding-agents doctor` shows those that it knows.",
    ),
    (
        r"\"(?:slirp4netns|pasta)\": executable file not found",
        "Podman without root needs it for a network: install it, or add --network-proxy restricted.",
    ),
    (
        r"cannot run with network enabled in root network namespace",
        "This gVisor takes this kernel's namespaces for the host's: register it with the argument --network=none.",
    ),
    (
        r"requested cgroup controller [^\n]* is not available",
        "The system gives this user no such limits: let it delegate cpu, memory and pids (systemd: Delegate=).",
    ),
    (
        r"no such image|image not known|unable to find image",
        "The image is gone: build it with `coding-agents images build`.",
    ),
    (
        r"all predefined address pools|could not find (?:an available|free)",
        "The engine has no network addresses left: remove unused networks.",
    ),
)


def is_stale(error: EngineError) -> bool:
    """Whether a container cannot start for what the engine still remembers of its start before a power cut.

    Podman with CNI counts its address as given out, and for ever (containers/podman issue 3759); Podman 4.3 has also
    looked for files of that start in its run root, which is empty then.
    """
    stale_file = re.search(r"/userdata/\S+: no such file or directory", error.details)
    return "duplicate allocation is not allowed" in error.details or stale_file is not None


def lacks_runtime(outcome: Outcome) -> bool:
    """Whether the engine said that it does not know a runtime."""
    return _says(_NO_RUNTIME, _said(outcome))


def unknown_runtime(
    features: Features, runtime: str, *, known: tuple[str, ...] = (), details: str = ""
) -> EngineError:
    """The engine has no runtime of this name."""
    has = f"; it knows {', '.join(known)}" if known else ""
    where = "its daemon.json" if features.name == "docker" else "its containers.conf"
    return EngineError(
        f"{features.title} does not know the runtime {runtime}{has}",
        details=details,
        hint=f"Install {runtime} and name it in {where}, or leave --runtime out.",
    )


def is_missing(outcome: Outcome) -> bool:
    """Whether the engine said that there is no such object."""
    return _says(_MISSING, _said(outcome))


def failure(what: str, outcome: Outcome, features: Features) -> CodingAgentsError:
    """The error for a failed engine command; `what` completes "cannot …"."""
    said = _said(outcome)
    if _says(_FORBIDDEN, said):
        return forbidden(features, details=outcome.describe())
    if _says(_STOPPED, said):
        return stopped(features, details=outcome.describe())
    if outcome.timed_out:
        return EngineError(
            f"cannot {what}: {features.title} did not answer in time",
            details=outcome.describe(),
            hint=f"See whether {features.title} is healthy: {features.name} info",
        )
    hint = next((hint for pattern, hint in _HINTS if _says(pattern, said)), "")
    return EngineError(f"cannot {what}", details=outcome.describe(), hint=hint)


def forbidden(features: Features, *, details: str = "") -> EngineForbiddenError:
    """This user may not talk to the engine."""
    return EngineForbiddenError(
        f"this user may not use {features.title}",
        details=details,
        hint="Join the group docker (it is as good as root), or use rootless Podman: --engine podman.",
    )


def stopped(features: Features, *, details: str = "") -> EngineStoppedError:
    """The engine's program is there, its daemon or socket does not answer."""
    return EngineStoppedError(
        f"{features.title} is installed but does not answer",
        details=details,
        hint="Start it (systemctl start docker, or Docker Desktop), or look at DOCKER_HOST and the context.",
    )


def _says(pattern: str, said: str) -> bool:
    # Compiled when something fails: a launch that goes well needs none of them.
    return re.search(pattern, said, re.IGNORECASE) is not None


def _said(outcome: Outcome) -> str:
    return outcome.stderr.decode("utf-8", "replace")
