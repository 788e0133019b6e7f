"""What every part that works on one session needs: its record, its places, its engine.

Used by the supervisor and by the verbs. The record on disk is the truth; `update` is the one way to change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import load_settings
from coding_agents.engine.api import ContainerState, Engine, EngineInfo
from coding_agents.engine.find import known_engine
from coding_agents.errors import EngineError
from coding_agents.gitsync.relay_repo import Relay, open_relay
from coding_agents.model.limits import NO_DISK, NO_IO, Limits
from coding_agents.model.refs import Branch, Oid
from coding_agents.model.repo import RepoFacts, RepoKind
from coding_agents.model.session import RepoRef, SessionRecord
from coding_agents.model.settings import Settings
from coding_agents.model.signing import LIVE
from coding_agents.sandbox.plan import Identity, PlanInput
from coding_agents.sandbox.spec import LABEL, Network
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.client import SupervisorClient

BASE_IMAGE = "coding-agents-base:local"


class SessionContext(msgspec.Struct, dict=True):
    """One session on this host. `record` is the last known state; call `reload` before deciding on it."""

    env: HostEnvironment
    store: SessionStore
    record: SessionRecord

    @classmethod
    def find(cls, env: HostEnvironment, store: SessionStore, text: str) -> SessionContext:
        """The session named `text`. Raises SessionNotFoundError."""
        return cls(env, store, store.find(text))

    @property
    def directory(self) -> Path:
        return self.store.directory(self.record.id)

    @property
    def audit_path(self) -> Path:
        return self.directory / "audit.jsonl"

    @cached_property
    def engine(self) -> Engine:
        """The engine that the session was launched with. Raises the errors of `known_engine`."""
        return known_engine(self.record.engine, self.engine_environ, runtime=self.record.runtime)

    @property
    def engine_environ(self) -> Mapping[str, str]:
        """Our environment, except that the variables that choose an engine are those of the launch."""
        chosen = dict(self.record.engine_env)
        others = {name: value for name, value in self.env.environ.items() if name not in ENGINE_CHOICE}
        return {**others, **chosen}

    def container_state(self) -> ContainerState | None:
        """The agent's container as its engine sees it; None when it is gone, or was never made.

        Raises EngineError, also when another engine answers than that of the launch.
        """
        container = self.record.container_id
        state = self.engine.inspect(container) if container else None
        if container and state is None:
            self.require_its_engine()
        return state

    def require_its_engine(self) -> None:
        """`require_engine_of` this session."""
        require_engine_of(self.record, self.engine)

    @property
    def relay(self) -> Relay:
        record = self.record
        return open_relay(
            self.directory / "relay.git",
            branch=branch_of(record),
            base=Oid.parse(record.base) if record.base else None,
            base_branch=record.base_branch or None,
            env=self.env.for_git(),
            to_sign=record.signing in LIVE,
        )

    def has_volume(self) -> bool:
        """Whether the engine has the volume of the work tree.

        Who makes a container that names a volume which is gone gets an empty one of that name. It is not ours: it
        lacks our labels. Raises EngineError, also when another engine answers than that of the launch.
        """
        volume = self.record.volumes.workspace
        labels = self.engine.volume_labels([volume]) if volume else {}
        there = labels.get(volume, {}).get(f"{LABEL}nonce") == self.record.nonce
        if volume and not there:
            self.require_its_engine()
        return there

    def reload(self) -> SessionRecord:
        """Read the record again. Raises SessionNotFoundError when the session was removed."""
        self.record = self.store.load(self.record.id)
        return self.record

    def update(self, **changes: Any) -> SessionRecord:
        """Change fields of the record on disk, whatever others have changed meanwhile."""
        self.record = self.store.update(self.record.id, **changes)
        return self.record

    def supervisor(self) -> SupervisorClient:
        """The way to the session's supervisor, which is started with our environment when it is asked for."""
        return SupervisorClient(
            self.directory, self.store.control_socket(self.record.id), dict(self.env.environ)
        )


def session_settings(session: SessionContext) -> Settings:
    """The settings as they are now for a session's repository. Raises ConfigError."""
    tree = session.record.repo.work_tree
    return load_settings(session.env, project=Path(tree) if tree else None)


# The variables that choose an engine; they are kept in the record, so that a session finds its own again.
ENGINE_CHOICE = frozenset(
    {
        "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG",
        "CONTAINER_HOST", "CONTAINER_CONNECTION", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF",
    }
)  # fmt: skip


def engine_choice(environ: Mapping[str, str], info: EngineInfo) -> tuple[tuple[str, str], ...]:
    """What chooses this engine again: the variables of `environ`, and the context that was in use without one."""
    chosen = {name: value for name, value in environ.items() if name in ENGINE_CHOICE}
    if info.context and not chosen.keys() & {"DOCKER_HOST", "DOCKER_CONTEXT"}:
        chosen["DOCKER_CONTEXT"] = info.context
    return tuple(chosen.items())


def require_engine_of(record: SessionRecord, engine: Engine) -> None:
    """To be asked before something of a session is taken for gone because `engine` does not have it.

    Raises EngineError when the engine that answers is not the one of the launch.
    """
    if not record.engine_id or record.engine_id == engine.info.identity:
        return
    title = engine.info.title
    raise EngineError(
        f"the {title} that answers is not the one that session {record.name} was launched on",
        details=f"launched on {record.engine_id}, this is {engine.info.identity}",
        hint=f"Let {title} use that one's data and context again; when it is gone for good: "
        f"`coding-agents recover {record.name} --engine-gone`.",
    )


def branch_of(record: SessionRecord) -> Branch:
    """The session's branch."""
    return Branch.parse(record.branch, agent=record.agent)


def facts_of(record: SessionRecord) -> RepoFacts:
    """The host repository as it was at launch; what may have changed since (HEAD, branch) is left open."""
    repo = record.repo
    return RepoFacts(
        kind=RepoKind(repo.kind),
        name=repo.name,
        work_tree=Path(repo.work_tree) if repo.work_tree else None,
        git_dir=Path(repo.git_dir),
        common_dir=Path(repo.common_dir),
        head=None,
        branch=None,
        origin_url=repo.url,
        identity=None,
        owner_uid=repo.owner_uid,
        owner_gid=repo.owner_gid,
        object_format=repo.object_format,
        repo_id=repo.repo_id,
    )


def repo_ref(repo: RepoFacts) -> RepoRef:
    """What a record keeps of a host repository."""
    return RepoRef(
        kind=repo.kind.value,
        name=repo.name,
        work_tree=str(repo.work_tree or ""),
        git_dir=str(repo.git_dir),
        common_dir=str(repo.common_dir),
        repo_id=repo.repo_id,
        owner_uid=repo.owner_uid,
        owner_gid=repo.owner_gid,
        object_format=repo.object_format,
        url=repo.origin_url,
    )


def identity_of(record: SessionRecord) -> Identity:
    """What the session's engine objects are labelled with."""
    return Identity(
        session=record.id,
        nonce=record.nonce,
        name=record.name,
        agent=record.agent,
        repo=record.repo.name,
        repo_path=record.repo.path,
        branch=record.branch,
        network=Network(record.network),
        version=record.version,
    )


def plan_input_of(
    record: SessionRecord,
    *,
    base_image: str,
    proxy_image: str = "",
    host_cpus: int | None = None,
    apparmor: bool = False,
    resolvers: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
    disk: str = "",
) -> PlanInput:
    """The input from which the session's plan was made, for a later start or a salvage."""
    limits = record.limits
    return PlanInput(
        identity=identity_of(record),
        image=record.image_id,
        base_image=base_image,
        proxy_image=proxy_image,
        guest_volume=record.guest_volume,
        guest_digest=record.guest_digest,
        config=bool(record.volumes.config),
        limits=Limits(
            cpus=Decimal(limits["cpus"]),
            memory_bytes=int(limits["memory_bytes"]),
            pids=int(limits["pids"]),
            file_bytes=int(limits.get("file_bytes", Limits().file_bytes)),
            disk_bytes=int(limits["disk"]) if record.quota else NO_DISK,
            disk_read=int(limits.get("disk_read", NO_IO)),
            disk_write=int(limits.get("disk_write", NO_IO)),
        ),
        host_cpus=host_cpus,
        resolvers=resolvers,
        holder_options=options,
        runtime=record.runtime,
        allow_ptrace=record.allow_ptrace,
        apparmor=apparmor,
        disk=disk,
    )
