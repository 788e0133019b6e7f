"""Checks of this machine: what sessions need, what is absent, and one thing to do about each."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Literal

import msgspec

from coding_agents.app.demands import demands_of
from coding_agents.app.disk_quota import why_no_quota
from coding_agents.app.pins import stale_agents
from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import load_settings
from coding_agents.credentials.standing import standing
from coding_agents.engine.api import Engine, EngineInfo
from coding_agents.engine.apparmor import can_confine, profiles_loaded
from coding_agents.engine.features import ENGINES
from coding_agents.engine.find import find_engine
from coding_agents.errors import CodingAgentsError, EngineError
from coding_agents.images.listing import list_images
from coding_agents.images.manifests import list_manifests
from coding_agents.model.pins import STALE_DAYS
from coding_agents.model.runtimes import AUTO, GVISOR, RUNTIMES
from coding_agents.model.settings import Settings
from coding_agents.network.dns import read_resolvers
from coding_agents.proc.git import Profile, git
from coding_agents.sandbox.apparmor import profile_name
from coding_agents.store.sessions import SessionStore

Status = Literal["ok", "warn", "fail", "absent"]

_SELINUX = Path("/sys/fs/selinux/enforce")
_LOW_DISK_BYTES = 5 << 30  # an agent's image and a few workspaces


class Check(msgspec.Struct, frozen=True):
    """One finding; `fix` is one thing to do, empty when nothing is wrong."""

    id: str
    status: Status
    detail: str
    fix: str = ""


def examine(env: HostEnvironment, store: SessionStore) -> tuple[Check, ...]:
    """All checks, in an order in which the first failure explains later ones. Never raises."""
    checks = [_guarded("settings", lambda: _settings(env)), _guarded("git", lambda: _git(env))]
    engine: Engine | None = None
    try:
        engine = find_engine(load_settings(env).engine, env.environ)
    except CodingAgentsError as error:
        checks.append(Check("engine", "fail", error.message, error.hint))
    if engine is not None:
        checks += _engine_checks(env, engine)
    checks += _logins(env)
    checks += [
        _guarded("pins", lambda: _pins(env)),
        _guarded("resolver", _resolver),
        _guarded("sessions", lambda: _sessions(store)),
        _guarded("disk", lambda: _disk(env)),
    ]
    return tuple(checks)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except CodingAgentsError as error:
        return Check(name, "fail", error.message, error.hint)


def _settings(env: HostEnvironment) -> Check:
    settings = load_settings(env)
    return Check(
        "settings",
        "ok",
        f"agent {settings.agent}, network {settings.network_mode}{_organisation(settings)}",
    )


def _organisation(settings: Settings) -> str:
    """What an organisation's file decides, where there is one."""
    if not settings.organisation:
        return ""
    rules = {"manages": sorted(settings.managed), "requires": sorted(settings.demanded)}
    told = [f"{verb} {', '.join(names)}" for verb, names in rules.items() if names]
    return f"; in force: {settings.organisation}, which {' and '.join(told) or 'binds nothing'}"


def _git(env: HostEnvironment) -> Check:
    version = git(("--version",), profile=Profile.OWN, env=env.for_git()).text().split()[2]
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < (2, 36):
        return Check("git", "warn", f"git {version}: no core.fsync", "Install git 2.36 or later.")
    if numbers == (2, 54):  # docs/reference/host-git.md
        return Check(
            "git", "warn", f"git {version} runs hooks that are settings (hook.NAME.command), whatever we say",
            "Install git 2.55 or later, or have no such setting.",
        )  # fmt: skip
    return Check("git", "ok", f"git {version}")


def _engine_checks(env: HostEnvironment, engine: Engine) -> Iterator[Check]:
    info = engine.info
    kind = "rootless" if info.rootless else "rootful"
    yield Check("engine", "ok", f"{info.title} {info.version}, {kind}, cgroup v{info.cgroup_version}")
    yield _guarded("runtimes", lambda: _runtimes(env, engine))
    yield from null_check(Path(os.devnull))
    yield limits_check(info)
    yield _userns(info)
    yield _selinux(info)
    if info.seccomp:
        yield Check("seccomp", "ok", "the engine applies a seccomp profile")
    else:
        yield Check("seccomp", "fail", "the engine has no seccomp", "Use a kernel and engine with seccomp.")
    yield _guarded("apparmor", lambda: _apparmor(env, info))
    yield _guarded("disk-quota", lambda: _disk_quota(env, info))
    yield from _image_checks(env, engine)


def _runtimes(env: HostEnvironment, engine: Engine) -> Check:
    settings, info = load_settings(env), engine.info
    return runtimes_check(info, known=_known_runtimes(env, info), wanted=settings.runtime)


def _known_runtimes(env: HostEnvironment, info: EngineInfo) -> tuple[str, ...]:
    """Docker names all; Podman names its default alone, so it is asked about each."""
    if not ENGINES[info.name].global_runtime:
        return info.runtimes
    known = []
    for name in RUNTIMES:
        with suppress(EngineError):
            find_engine(info.name, env.environ, runtime=name)
            known.append(name)
    return (*known, info.default_runtime)


def runtimes_check(info: EngineInfo, *, known: tuple[str, ...], wanted: str) -> Check:
    """The runtimes that a session can be asked to run in, and whether the one of the settings is among them."""
    default = info.default_runtime or "unknown"
    names = [name for name in dict.fromkeys((default, *RUNTIMES)) if name in known or name == default]
    told = f"{', '.join(names)}; {default} is the engine's own choice"
    gvisor = f"; {GVISOR} with --network-proxy restricted only" if GVISOR in known else ""
    if wanted not in (AUTO, *known):
        return Check("runtimes", "fail", f"{told}; the setting runtime wants {wanted}",
                     f"Install {wanted} and name it to the engine, or take another runtime.")  # fmt: skip
    return Check("runtimes", "ok", told + gvisor)


def null_check(device: Path) -> Iterator[Check]:
    """Whether the null device of this machine is root's; gVisor of 2022 gives it away at each start of a container."""
    if device.exists() and device.stat().st_uid != 0:
        yield Check(
            "null",
            "warn",
            f"{device} is not root's any more: an old gVisor (runsc) does that",
            f"Install a runsc of 2024 or later, then: chown root:root {device}",
        )


def limits_check(info: EngineInfo) -> Check:
    """Whether the engine keeps the limits that it takes."""
    if not info.ignored_limits:
        return Check("limits", "ok", "memory, CPUs and processes are limited")
    why = " (rootless, cgroup v1)" if info.rootless and info.cgroup_version == 1 else ""
    return Check(
        "limits",
        "warn",
        f"this engine takes limits on {', '.join(info.ignored_limits)} and ignores them{why}",
        "Use cgroup v2 with these controllers, or an engine that runs as root.",
    )


def _userns(info: EngineInfo) -> Check:
    if info.user_namespace:
        how = "rootless" if info.rootless else "userns-remap"
        return Check("userns", "ok", f"root in a container is nobody outside ({how})")
    return Check("userns", "absent", "root in a container is root outside; the agent is never root")


def _selinux(info: EngineInfo) -> Check:
    if "selinux" in info.security_options:
        return Check("selinux", "ok", "the engine labels containers; we neither change nor measure that")
    if info.is_local and _SELINUX.exists():
        return Check(
            "selinux",
            "warn",
            "SELinux is active here, and the engine does not label its containers",
            "Let it: `selinux-enabled` in Docker's daemon.json, `label` in Podman's containers.conf.",
        )
    return Check("selinux", "absent", "the engine has no SELinux")


def _apparmor(env: HostEnvironment, info: EngineInfo) -> Check:
    required = "apparmor" in demands_of(load_settings(env)).needed
    if not can_confine(info):
        return Check(
            "apparmor",
            "fail" if required else "absent",
            "this kernel or engine has no AppArmor"
            if not info.rootless
            else "a rootless engine has no AppArmor",
            "Take it out of [require], or launch on a machine that has it." if required else "",
        )
    if profiles_loaded(info):
        return Check("apparmor", "ok", f"our profile {profile_name('agent')} is loaded")
    where = "" if info.is_local else f" on {info.machine[0] or 'the machine of the engine'}"
    return Check(
        "apparmor",
        "fail" if required else "warn",
        f"the engine applies its own profile: ours is not loaded{where}",
        f"Run `coding-agents doctor --fix`{where}.",
    )


def _disk_quota(env: HostEnvironment, info: EngineInfo) -> Check:
    if not env.home.is_dir():  # to look makes nothing of what is not there
        return Check("disk-quota", "absent", f"not tried: there is no directory {env.home}")
    problem = why_no_quota(info, env.state_dir)
    if not problem:
        return Check("disk-quota", "ok", "a session can have a disk of its own (--disk)")
    needed = "disk" in demands_of(load_settings(env)).needed
    fix = "Take limits.disk out of your settings, or put disk into best_effort." if needed else ""
    return Check("disk-quota", "fail" if needed else "absent", problem, fix)


def _image_checks(env: HostEnvironment, engine: Engine) -> Iterator[Check]:
    try:
        images = list_images(engine, env.agents_dir, env.pins_dir)
    except CodingAgentsError as error:
        yield Check("images", "fail", error.message, error.hint)
        return
    for image in images:
        status: Status = (
            "ok" if image.state == "current" else "warn" if image.state == "outdated" else "absent"
        )
        fix = (
            ""
            if status == "ok"
            else f"It is built by the next launch, or by `coding-agents images build {image.agent}`."
        )
        yield Check(f"image-{image.agent}", status, f"{image.ref} is {image.state}", fix)


def _logins(env: HostEnvironment) -> Iterator[Check]:
    """One for each agent that asks a model. Nobody needs them all, so none fails."""
    statuses: dict[str, Status] = {"ok": "ok", "none": "absent", "bad": "warn"}
    try:
        manifests = list_manifests(env.config_dir / "agents")
    except CodingAgentsError as error:
        yield Check("logins", "fail", error.message, error.hint)
        return
    now_ms = time.time_ns() // 1_000_000
    for manifest in manifests:
        if manifest.model is not None:
            now = standing(manifest, env, now_ms=now_ms)
            yield Check(f"login-{manifest.name}", statuses[now.state], now.told, now.hint)


def _pins(env: HostEnvironment) -> Check:
    found = stale_agents(env, date.today())
    if not found:
        return Check("pins", "ok", f"none is older than {STALE_DAYS} days")
    told = ", ".join(f"{name} {days} days ago" for name, days in found.items())
    return Check("pins", "warn", f"pinned {told}", f"Run `coding-agents images update {' '.join(found)}`.")


def _resolver() -> Check:
    found = read_resolvers()
    if not found:
        return Check(
            "resolver", "warn", "no resolver that a container could reach", "Check /etc/resolv.conf."
        )
    return Check("resolver", "ok", ", ".join(found))


def _sessions(store: SessionStore) -> Check:
    broken = [entry.id for entry in store.list() if not hasattr(entry, "nonce")]
    if broken:
        return Check(
            "sessions",
            "warn",
            f"unreadable: {', '.join(broken)}",
            f"Run `coding-agents remove --force {broken[0]}`.",
        )
    return Check("sessions", "ok", f"{len(store.list())} known")


def _disk(env: HostEnvironment) -> Check:
    place = next((path for path in (env.data_dir, *env.data_dir.parents) if path.exists()), env.home)
    free = shutil.disk_usage(place).free
    if free < _LOW_DISK_BYTES:
        return Check(
            "disk", "warn", f"{free >> 20} MiB free at {place}", "Free some space: `coding-agents prune`."
        )
    return Check("disk", "ok", f"{free >> 30} GiB free at {place}")
