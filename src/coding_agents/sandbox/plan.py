"""From facts to a plan: which containers, volumes and networks one session has. Pure; makes nothing.

The plan is what `--dry-run` prints, what `invariants` judges and what the executor carries out.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec
from msgspec.structs import asdict, replace

from coding_agents.errors import NotBuiltError, UsageError
from coding_agents.model.limits import NO_DISK, Limits, cpus_text, quota_text, size_text
from coding_agents.model.runtimes import is_gvisor
from coding_agents.sandbox.apparmor import profile_name
from coding_agents.sandbox.credentials import credential_in
from coding_agents.sandbox.guest import CONFIG_DIRECTORY, DOOR_DIRECTORY, GUEST_DIRECTORY, PYTHON, guest_argv
from coding_agents.sandbox.proxied import PROXY_ENVIRONMENT
from coding_agents.sandbox.spec import (
    HOLDER_LIMITS,
    HOME,
    LABEL,
    PROXY_LIMITS,
    SALVAGE_LIMITS,
    WORKSPACE,
    BridgeNetwork,
    ContainerSpec,
    HelperSpec,
    HolderSpec,
    JoinContainer,
    Network,
    NoNetwork,
    Role,
    SandboxSpec,
    VolumeMount,
    scratch,
)

Labels = tuple[tuple[str, str], ...]

GVISOR_PIDS = (
    1024  # gVisor takes two to seven threads of the host for a process of its own, and dies when it gets none
)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a session's objects are labelled with (design §3 Names). `name` is the container's name."""

    session: str
    nonce: str
    name: str
    agent: str
    repo: str
    repo_path: str
    branch: str
    network: Network
    version: str

    def labels(self, kind: str) -> Labels:
        """Labels of one object of this session; `kind` is agent, holder, helper, volume or network."""
        values = {
            "type": kind,
            "session": self.session,
            "agent": self.agent,
            "repo": self.repo,
            "repo-path": self.repo_path,
            "branch": self.branch,
            "network-policy": self.network.value,
            "version": self.version,
            "nonce": self.nonce,
        }
        return tuple((LABEL + key, _label_text(value)) for key, value in values.items())


class PlanInput(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a session's plan depends on.

    `image` is the agent's image, `base_image` that of the holder, `proxy_image` that of a holder with a proxy, all by
    id. `host_cpus` are the engine's processors (None when unknown). `resolvers` are the addresses the holder's
    engine-made resolv.conf names, `holder_options` the guard's options from `network.guard`. `guest_digest` is the
    SHA-256 of the program in the volume `guest_volume`. `config` tells whether there is a configuration volume,
    `apparmor` whether the engine's kernel knows our AppArmor profiles, `runtime` is "" for the engine's own. `disk` is
    the directory of the host below which the session's own file system has the directories of its writable volumes, ""
    when they are the engine's own.
    """

    identity: Identity
    image: str
    base_image: str
    proxy_image: str = ""
    guest_volume: str
    guest_digest: str
    config: bool = False
    limits: Limits = msgspec.field(default_factory=Limits)
    host_cpus: int | None = None
    resolvers: tuple[str, ...] = ()
    holder_options: tuple[str, ...] = ()
    env: Labels = ()
    runtime: str = ""
    allow_ptrace: bool = False
    apparmor: bool = False
    disk: str = ""
    extra_labels: Labels = ()


class NamedObject(msgspec.Struct, frozen=True):
    """A volume or network to make. `place` is the directory of the host that a volume is, "" for the engine's own."""

    name: str
    labels: Labels
    place: str = ""


class SessionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The containers, volumes and network of one session, before any of them exists."""

    identity: Identity
    sandbox: SandboxSpec
    holder: HolderSpec | None
    network: NamedObject | None
    workspace: NamedObject
    home: NamedObject
    config: NamedObject | None = None
    door: NamedObject | None = None
    guest_volume: str
    guest_digest: str

    @property
    def own_volumes(self) -> tuple[NamedObject, ...]:
        """The volumes of this session alone."""
        return (self.workspace, self.home, *(one for one in (self.config, self.door) if one is not None))

    def placed(self, holder_id: str) -> SandboxSpec:
        """The agent's container now that the holder exists ("": there is none): in its namespace, if it is to be."""
        joins = isinstance(self.sandbox.network, JoinContainer)
        return self.sandbox.joined_to(holder_id) if joins else self.sandbox

    @property
    def containers(self) -> tuple[ContainerSpec, ...]:
        return (self.sandbox,) if self.holder is None else (self.holder, self.sandbox)


def plan_session(facts: PlanInput) -> SessionPlan:
    """The plan of one session. Raises NotBuiltError and UsageError for what cannot be built.

    In mode `squid` the agent has no interface, as in `restricted`: the holder's network is the proxy's alone.
    """
    who = facts.identity
    _require_possible(facts)
    limits = fit_to_host(facts.limits, host_cpus=facts.host_cpus)
    proxied = who.network is Network.SQUID
    door = NamedObject(f"{who.name}-door", _labels(facts, "volume")) if proxied else None
    holder = None if who.network is Network.RESTRICTED else _plan_holder(facts, door)
    joined = holder is not None and not proxied
    workspace = NamedObject(f"{who.name}-workspace", _labels(facts, "volume"), _place(facts, "workspace"))
    home = NamedObject(f"{who.name}-home", _labels(facts, "volume"), _place(facts, "home"))
    config = NamedObject(f"{who.name}-config", _labels(facts, "volume")) if facts.config else None
    sandbox = SandboxSpec(
        name=who.name,
        image=facts.image,
        argv=guest_argv(facts.guest_digest, "entrypoint"),
        labels=_labels(facts, Role.AGENT),
        network=JoinContainer(holder.name) if holder is not None and joined else NoNetwork(),
        env=(("HOME", HOME), ("LANG", "C.UTF-8"), *(PROXY_ENVIRONMENT if proxied else ()), *facts.env),
        workdir=WORKSPACE,
        volumes=(
            VolumeMount(workspace.name, WORKSPACE, writable=True),
            VolumeMount(home.name, HOME, writable=True),
            VolumeMount(facts.guest_volume, GUEST_DIRECTORY),
            *(() if config is None else (VolumeMount(config.name, CONFIG_DIRECTORY),)),
            *(() if door is None else (VolumeMount(door.name, DOOR_DIRECTORY),)),
        ),
        tmpfs=scratch(tmp_bytes=limits.tmp_bytes, var_tmp_bytes=limits.var_tmp_bytes),
        limits=limits,
        hostname="" if joined else _hostname(who),  # a joined namespace brings the holder's
        runtime=facts.runtime,
        apparmor="" if is_gvisor(facts.runtime) else _apparmor(facts, "agent"),
        allow_ptrace=facts.allow_ptrace,
    )
    network = None if holder is None else NamedObject(f"{who.name}-net", _labels(facts, "network"))
    return SessionPlan(
        identity=who,
        sandbox=sandbox,
        holder=holder,
        network=network,
        workspace=workspace,
        home=home,
        config=config,
        door=door,
        guest_volume=facts.guest_volume,
        guest_digest=facts.guest_digest,
    )


def plan_salvage(facts: PlanInput) -> HelperSpec:
    """A one-shot container of our base image that reads the session's volume and can change nothing in it."""
    limits = fit_to_host(SALVAGE_LIMITS, host_cpus=facts.host_cpus)
    return HelperSpec(
        name=f"{facts.identity.name}-salvage",
        image=facts.base_image,
        argv=guest_argv(facts.guest_digest, "salvage"),
        labels=_labels(facts, Role.HELPER),
        env=(("HOME", "/tmp"), ("LANG", "C.UTF-8")),  # noqa: S108 - inside the container
        volumes=(
            VolumeMount(f"{facts.identity.name}-workspace", WORKSPACE),
            VolumeMount(facts.guest_volume, GUEST_DIRECTORY),
        ),
        tmpfs=scratch(tmp_bytes=limits.tmp_bytes, var_tmp_bytes=limits.var_tmp_bytes),
        limits=limits,
        runtime=_helpers_runtime(facts),
        apparmor=_apparmor(facts, "agent"),
        interactive=True,
    )


def plan_reader(*, name: str, image: str, guest_digest: str, version: str) -> HelperSpec:
    """The container out of which files of an image are read; it is created and removed, never started."""
    return HelperSpec(
        name=name,
        image=image,
        argv=guest_argv(guest_digest, "version"),
        labels=((f"{LABEL}type", Role.HELPER.value), (f"{LABEL}version", version)),
        tmpfs=scratch(tmp_bytes=HOLDER_LIMITS.tmp_bytes, var_tmp_bytes=HOLDER_LIMITS.var_tmp_bytes),
        limits=replace(HOLDER_LIMITS, cpus=Decimal(1)),
    )


def plan_asking(*, name: str, image: str, script: str, argument: str, version: str) -> HelperSpec:
    """The container in which a script of ours, given as text, tells what an image has. Its log is the answer."""
    return HelperSpec(
        name=name,
        image=image,
        argv=(PYTHON, "-I", "-c", script, argument),
        labels=((f"{LABEL}type", Role.HELPER.value), (f"{LABEL}version", version)),
        env=(("HOME", "/tmp"), ("LANG", "C.UTF-8")),  # noqa: S108 - inside the container
        tmpfs=scratch(tmp_bytes=HOLDER_LIMITS.tmp_bytes, var_tmp_bytes=HOLDER_LIMITS.var_tmp_bytes),
        limits=replace(HOLDER_LIMITS, cpus=Decimal(1)),
    )


def plan_filler(
    *,
    volume: str,
    path: str = GUEST_DIRECTORY,
    guest_digest: str,
    image: str,
    suffix: str,
    version: str,
    extra_labels: Labels = (),
) -> HelperSpec:
    """The container through which `cp` fills a volume at `path`; it is created and removed, never started."""
    return HelperSpec(
        name=f"{volume}-{suffix}",
        image=image,
        argv=guest_argv(guest_digest, "version"),
        labels=(
            (f"{LABEL}type", Role.HELPER.value),
            (f"{LABEL}version", version),
            *extra_labels,
        ),
        volumes=(VolumeMount(volume, path, writable=True),),
        tmpfs=scratch(tmp_bytes=HOLDER_LIMITS.tmp_bytes, var_tmp_bytes=HOLDER_LIMITS.var_tmp_bytes),
        limits=replace(HOLDER_LIMITS, cpus=Decimal(1)),
    )


def fit_to_host(limits: Limits, *, host_cpus: int | None) -> Limits:
    """Limits this machine accepts: Docker refuses more CPUs than there are, which allow no more anyway."""
    if host_cpus is None or host_cpus < 1 or limits.cpus <= host_cpus:
        return limits
    return replace(limits, cpus=Decimal(host_cpus))


def describe(plan: SessionPlan) -> list[str]:
    """The plan for people, a line a fact, for `--dry-run`."""
    box, limits = plan.sandbox, plan.sandbox.limits
    lines = [
        f"container  {box.name}",
        f"image      {box.image}",
        f"user       {box.user}, no capabilities, no new privileges, read-only root",
        _calls_text(box),
        f"files      AppArmor profile {box.apparmor or 'of the engine, where it has one'}",
        f"network    {plan.identity.network.value}{_network_text(plan)}",
        f"limits     {cpus_text(limits.cpus)} CPUs, {size_text(limits.memory_bytes)} memory,"
        f" {limits.pids} processes",
    ]
    lines += [f"volume     {v.volume} at {v.path}{'' if v.writable else ' (read-only)'}" for v in box.volumes]
    if limits.disk_bytes < NO_DISK:
        lines.append(f"disk       {quota_text(limits.disk_bytes)}, for both volumes that it writes to")
    lines += [f"tmpfs      {t.path} {size_text(t.size_bytes)}" for t in box.tmpfs]
    if plan.holder is not None:
        lines.append(
            f"holder     {plan.holder.name}, resolvers {', '.join(plan.holder.dns) or 'of the engine'}"
        )
    return lines


def to_json(plan: SessionPlan) -> dict[str, object]:
    """The plan as JSON-able values, for `--dry-run --json`."""
    return {
        "name": plan.identity.name,
        "session": plan.identity.session,
        "network": plan.identity.network.value,
        "volumes": [*(volume.name for volume in plan.own_volumes), plan.guest_volume],
        "network_name": plan.network.name if plan.network else None,
        "containers": [_spec_json(spec) for spec in plan.containers],
    }


def _spec_json(spec: ContainerSpec) -> dict[str, object]:
    network: dict[str, str] = asdict(spec.network)
    return {
        "name": spec.name,
        "role": spec.role.value,
        "image": spec.image,
        "argv": list(spec.argv),
        "user": spec.user,
        "capabilities": list(spec.capabilities),
        "network": next(iter(network.values()), "none"),
        "env": dict(spec.env),
        "workdir": spec.workdir,
        "volumes": [asdict(volume) for volume in spec.volumes],
        "tmpfs": [asdict(tmpfs) for tmpfs in spec.tmpfs],
        "limits": spec.limits.to_json(),
        "dns": list(spec.dns),
        "apparmor": spec.apparmor,
        "runtime": spec.runtime,
        "stop_timeout_s": spec.stop_timeout_s,
    }


def _plan_holder(facts: PlanInput, door: NamedObject | None) -> HolderSpec:
    """The holder of the network; with a `door` also the proxy, through which alone the agent gets there."""
    name = facts.identity.name
    limits = fit_to_host(HOLDER_LIMITS if door is None else PROXY_LIMITS, host_cpus=facts.host_cpus)
    return HolderSpec(
        name=f"{name}-holder",
        image=facts.base_image if door is None else facts.proxy_image,
        argv=guest_argv(facts.guest_digest, "holder" if door is None else "proxy", *facts.holder_options),
        labels=_labels(facts, Role.HOLDER),
        network=BridgeNetwork(f"{name}-net"),
        volumes=(
            VolumeMount(facts.guest_volume, GUEST_DIRECTORY),
            *(() if door is None else (VolumeMount(door.name, DOOR_DIRECTORY, writable=True),)),
        ),
        tmpfs=scratch(tmp_bytes=limits.tmp_bytes, var_tmp_bytes=limits.var_tmp_bytes),
        limits=limits,
        runtime=_helpers_runtime(facts),
        apparmor=_apparmor(facts, "holder"),
        hostname=_hostname(facts.identity),
        dns=facts.resolvers,
    )


def _require_possible(facts: PlanInput) -> None:
    if not is_gvisor(facts.runtime):
        return
    if facts.identity.network is Network.SQUID:
        raise UsageError(
            "network mode squid does not work with the runtime runsc, whose sockets no other container can be given",
            hint="Use --network-proxy restricted with it, or another --runtime.",
        )
    if facts.identity.network is Network.ALLOW_ALL:
        raise NotBuiltError(
            "the runtime runsc has no network yet: gVisor's own network stack goes past the guard's rules",
            hint="Add --network-proxy restricted, or take another --runtime.",
        )
    if facts.limits.pids < GVISOR_PIDS:
        raise UsageError(
            f"{facts.limits.pids} processes are too few for the runtime runsc, whose own threads count, too",
            hint=f"Give it --pids {GVISOR_PIDS} or more, or take another --runtime.",
        )


def _helpers_runtime(facts: PlanInput) -> str:
    """That of our own programs beside the agent's container; beside gVisor the engine's own, where it can have two."""
    return "" if is_gvisor(facts.runtime) else facts.runtime


def _place(facts: PlanInput, part: str) -> str:
    return f"{facts.disk}/{part}" if facts.disk else ""


def _apparmor(facts: PlanInput, kind: str) -> str:
    return profile_name(kind) if facts.apparmor else ""


def _label_text(value: str) -> str:
    """A value that every engine keeps as it is: paths and branches may hold any byte, or look like a key."""
    printable = "".join(c if c.isprintable() else "?" for c in value)
    return f"({kind})" if (kind := credential_in(printable)) else printable


def _labels(facts: PlanInput, kind: str) -> Labels:
    return (*facts.identity.labels(str(kind)), *facts.extra_labels)


def _hostname(identity: Identity) -> str:
    return f"{identity.agent}-{identity.session[:6]}"[:63].strip("-.").replace("_", "-")


def _calls_text(box: SandboxSpec) -> str:
    if box.gvisor:
        return "calls      answered by gVisor's kernel, not by the host's (runtime runsc)"
    runtime = f"; runtime {box.runtime}" if box.runtime else ""
    return f"calls      our seccomp profile{', with ptrace' if box.allow_ptrace else ''}{runtime}"


def _network_text(plan: SessionPlan) -> str:
    if plan.network is None:
        return ": no interface but loopback"
    if plan.door is not None:
        return f": no interface but loopback, proxy in {plan.holder.name if plan.holder else ''} on {plan.network.name}"
    return f": own bridge {plan.network.name}, guard in {plan.holder.name if plan.holder else ''}"
