"""Finds the engine to use: Docker if it answers, else Podman, or the one that was named."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from coding_agents.engine.api import EngineInfo
from coding_agents.engine.argv import RlimitCeiling
from coding_agents.engine.cli import CliEngine
from coding_agents.engine.failures import failure, forbidden, lacks_runtime, stopped, unknown_runtime
from coding_agents.engine.features import DOCKER, ENGINES, PODMAN, Features
from coding_agents.engine.inspect import parse_docker_info, parse_json, parse_podman_info, parse_version
from coding_agents.engine.program import EngineProgram
from coding_agents.errors import (
    CodingAgentsError,
    EngineForbiddenError,
    EngineNotFoundError,
    EngineStoppedError,
    EngineTooOldError,
    UsageError,
)
from coding_agents.model.runtimes import is_gvisor
from coding_agents.proc import runner

ANSWER_S = 20.0  # Podman reads its whole store for `info`; a remote daemon stands behind ssh

# The variables by which a user chooses and reaches an engine; a client gets nothing else of ours.
_PASSED = frozenset(
    {"HOME", "PATH", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "LANG"}
)
_PASSED_PREFIXES = ("DOCKER_", "CONTAINER_", "CONTAINERS_", "REGISTRY_", "XDG_", "DBUS_SESSION_")
_PASSED_SUFFIX = "_PROXY"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # holds runc, conmon, nft


def engine_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the user's environment that an engine's client needs.

    >>> engine_environment({"DOCKER_HOST": "unix:///x", "AWS_SECRET_ACCESS_KEY": "y"})
    {'DOCKER_HOST': 'unix:///x'}
    """
    return {
        name: value
        for name, value in environ.items()
        if name in _PASSED or name.startswith(_PASSED_PREFIXES) or name.upper().endswith(_PASSED_SUFFIX)
    }


def find_engine(choice: str, environ: Mapping[str, str], *, runtime: str = "") -> CliEngine:
    """The engine `choice` names (auto, docker or podman), which answers, may be used and is new enough.

    `runtime` is one that it must know, "" for its own choice. Raises UsageError, EngineNotFoundError,
    EngineStoppedError, EngineForbiddenError, EngineTooOldError, and EngineError for a runtime that it does not know.
    """
    if choice == "auto":
        return _first_that_answers(environ, runtime)
    if choice not in ENGINES:
        raise UsageError(
            f"unknown engine {choice!r}", hint=f"Engines are auto, {', '.join(sorted(ENGINES))}."
        )
    return connect(ENGINES[choice], environ, runtime=runtime)


def connect(features: Features, environ: Mapping[str, str], *, runtime: str = "") -> CliEngine:
    """One engine, asked for its facts. Raises as `find_engine`."""
    program, env = _program(features, environ), engine_environment(environ)
    info = _ask(features, env, program, runtime)
    if parse_version(info.version) < features.minimum:
        oldest = ".".join(map(str, features.minimum))
        raise EngineTooOldError(
            f"{features.title} {info.version} is too old", hint=f"Install {features.title} {oldest} or later."
        )
    if runtime and runtime not in info.runtimes:
        raise unknown_runtime(features, runtime, known=info.runtimes)
    chosen = runtime or _podman_runtime(info)
    return CliEngine(
        features,
        info=_with_runtime(info, features, chosen),
        env=env,
        program=program,
        runtime=chosen,
        ceiling=rlimit_ceiling(features),
    )


def known_engine(name: str, environ: Mapping[str, str], *, runtime: str = "") -> CliEngine:
    """An engine that served us before. It is asked about itself only when something depends on the answer.

    Raises EngineNotFoundError, and where its runtime must be chosen as `find_engine`.
    """
    features = ENGINES[name]
    if features.global_runtime and not runtime:
        return connect(features, environ)
    program, env = _program(features, environ), engine_environment(environ)
    return CliEngine(
        features,
        info=lambda: _with_runtime(_ask(features, env, program, runtime), features, runtime),
        env=env,
        program=program,
        runtime=runtime,
        ceiling=rlimit_ceiling(features),
    )


def _program(features: Features, environ: Mapping[str, str]) -> str:
    program = shutil.which(features.name, path=environ.get("PATH", os.defpath))
    if program is None:
        raise EngineNotFoundError(f"{features.title} is not installed", hint=_install_hint(features))
    return program


def rlimit_ceiling(features: Features) -> RlimitCeiling:
    """The highest rlimits that this engine may give, which for Podman are those of our own process.

    Podman lowers the one on processes to the kernel's pid_max before it starts a container.
    """
    if not features.fits_rlimits:
        return RlimitCeiling()
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    nproc = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return RlimitCeiling(
        nofile=None if nofile == resource.RLIM_INFINITY else nofile,
        nproc=None if nproc == resource.RLIM_INFINITY else min(nproc, _pid_max()),
    )


def _first_that_answers(environ: Mapping[str, str], runtime: str) -> CliEngine:
    errors: list[CodingAgentsError] = []
    for features in (DOCKER, PODMAN):
        try:
            return connect(features, environ, runtime=runtime)
        except (EngineNotFoundError, EngineStoppedError, EngineForbiddenError, EngineTooOldError) as error:
            errors.append(error)
    # The most useful answer: an engine that is there but fails beats one that is not installed.
    installed = [error for error in errors if not isinstance(error, EngineNotFoundError)]
    if installed:
        raise installed[0]
    raise EngineNotFoundError("no container engine is installed", hint="Install Docker or Podman.")


def _ask(features: Features, env: Mapping[str, str], program: str, runtime: str = "") -> EngineInfo:
    engine = EngineProgram(features, env=env, program=program, runtime=runtime)
    if features is PODMAN:
        outcome = runner.run(engine.command(("info", "--format=json"), timeout_s=ANSWER_S))
        if not outcome.ok and lacks_runtime(outcome):
            raise unknown_runtime(features, runtime, details=outcome.describe())
        if not outcome.ok:
            raise stopped(features, details=outcome.describe())
        return parse_podman_info(parse_json(outcome.stdout))
    outcome = runner.run(engine.command(("info", "--format={{json .}}"), timeout_s=ANSWER_S))
    if outcome.timed_out:
        raise stopped(features, details=outcome.describe())
    document = parse_json(outcome.stdout) if outcome.stdout.strip() else {}
    if outcome.ok and isinstance(document, dict) and document.get("ServerVersion"):
        return parse_docker_info(document)
    # An old client says with status 0 that the daemon does not answer, and keeps the reason in the JSON.
    reasons = " ".join(map(str, document.get("ServerErrors") or ())) if isinstance(document, dict) else ""
    if "permission denied" in f"{reasons} {outcome.stderr.decode('utf-8', 'replace')}".lower():
        raise forbidden(features, details=outcome.describe())
    if outcome.ok or reasons:
        raise stopped(features, details=reasons or outcome.describe())
    raise failure(f"ask {features.title} about itself", outcome, features)


def _podman_runtime(info: EngineInfo) -> str:
    """On cgroup v1 crun refuses hybrid mode, so runc where it is installed; else Podman's own choice.

    gVisor is named even where it is that: it needs options of its own.
    """
    if info.name == PODMAN.name and is_gvisor(info.default_runtime):
        return info.default_runtime
    if info.name != PODMAN.name or info.cgroup_version != 1 or info.default_runtime == "runc":
        return ""
    return "runc" if shutil.which("runc", path=_SYSTEM_PATH) else ""


def _with_runtime(info: EngineInfo, features: Features, chosen: str) -> EngineInfo:
    if not chosen or not features.global_runtime:
        return info
    known = tuple(sorted({*info.runtimes, chosen}))
    return replace(info, default_runtime=chosen, runtimes=known)


def _pid_max() -> int:
    return int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))


def _install_hint(features: Features) -> str:
    return f"Install {features.title}, or use another engine with --engine."
