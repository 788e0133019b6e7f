"""Step 4 of a launch: what the container needs before it can start, made side by side.

All of it carries the session's nonce, by which a launch that fails finds and removes it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from coding_agents import __version__
from coding_agents.app.gather import Gathered
from coding_agents.app.launch_request import LaunchRequest
from coding_agents.channel.pyz import build_guest_pyz, guest_digest, guest_sources, sources_digest
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.engine.failures import LEFT_OVER
from coding_agents.errors import EngineError
from coding_agents.gitsync.base import give, open_base
from coding_agents.gitsync.relay_repo import Relay, create_relay
from coding_agents.model.refs import Branch
from coding_agents.sandbox.guest import GUEST_DIRECTORY, GUEST_ZIPAPP, guest_volume_name
from coding_agents.sandbox.invariants import check_spec
from coding_agents.sandbox.plan import NamedObject, plan_filler
from coding_agents.sandbox.spec import AGENT_USER, HOME, LABEL, WORKSPACE
from coding_agents.store.files import make_dir, private_dir, read_record, write_atomic
from coding_agents.workspace.copyset import CopyPlan
from coding_agents.workspace.fill import write_workspace_tar
from coding_agents.workspace.launch_state import LaunchState, record_launch_state
from coding_agents.workspace.listing import plan_copy

_MAX_PROGRAM = 8 << 20  # bytes
# Our image's tar, as the agent's user; modes of directories come last, so that read-only ones can be filled.
_UNPACK = (
    "/usr/bin/tar",
    "--extract",
    "--preserve-permissions",
    "--delay-directory-restore",
    "--file=-",
    "-C",
)


class GuestProgram(msgspec.Struct, frozen=True):
    """guest.pyz of this version: its bytes, and the name of the volume that it travels in."""

    content: bytes
    digest: str

    @classmethod
    def of_this_version(cls, data_dir: Path, *, keep: bool = True) -> GuestProgram:
        """The program: the one kept below `data_dir`, or else built, and kept unless `keep` is off. Raises StoreError.

        A file whose content is not what its name says is as good as none.
        """
        sources, kept_in = guest_sources(), data_dir / "guest"
        version = sources_digest(sources)
        for path in kept_in.glob(f"{version}-*.pyz"):
            content = read_record(path, limit=_MAX_PROGRAM)
            if path.name == f"{version}-{guest_digest(content)}.pyz":
                return cls(content, guest_digest(content))
        content = build_guest_pyz(sources)
        if keep:
            private_dir(make_dir(data_dir) / "guest")
            write_atomic(kept_in / f"{version}-{guest_digest(content)}.pyz", content)
        return cls(content, guest_digest(content))

    @property
    def volume(self) -> str:
        return guest_volume_name(self.digest)


class Source(msgspec.Struct, frozen=True):
    """The session's relay, and what of the repository goes into the container."""

    relay: Relay
    copy: CopyPlan
    launch: LaunchState


def prepare_source(
    request: LaunchRequest,
    facts: Gathered,
    env: HostEnvironment,
    *,
    relay_dir: Path,
    branch: Branch,
    now_ms: int,
) -> Source:
    """Give the base to the base store, make the relay, decide the copy set and keep the state at launch."""
    repo, git_env = facts.repo, env.for_git()
    plan = plan_copy(
        repo, env=git_env, include=request.settings.workspace_include, clean=request.options.clean
    )
    base_store = open_base(env.data_dir, repo, env=git_env)
    if repo.head is not None:
        give(base_store, repo, repo.head)
    relay = create_relay(
        relay_dir, base_store=base_store, branch=branch, base=repo.head, base_branch=repo.branch
    )
    launch = record_launch_state(repo, relay.git_dir, plan, env=git_env, base=repo.head, now_ms=now_ms)
    return Source(relay, plan, launch)


def fill_workspace(
    engine: Engine, container: str, facts: Gathered, source: Source, env: HostEnvironment
) -> None:
    """Stream the copy set and the made `.git` into the workspace of a container that waits at its gate."""

    def write(out: BinaryIO) -> None:
        write_workspace_tar(
            out,
            facts.repo,
            source.copy,
            relay_git_dir=source.relay.git_dir,
            base=source.relay.base,
            launch=source.launch,
            env=env.for_git(),
        )

    engine.feed(container, (*_UNPACK, WORKSPACE), write, user=AGENT_USER)


def fill_home(engine: Engine, container: str, seeds: dict[str, bytes]) -> None:
    """Put the agent's first-run files into the home volume, owned by the agent."""
    if seeds:
        content = _tar(seeds, owner=1000, mode=0o600)
        engine.feed(container, (*_UNPACK, HOME), lambda out: _write(out, content), user=AGENT_USER)


def ensure_guest_volume(engine: Engine, program: GuestProgram, image: str, *, suffix: str) -> None:
    """Fill the shared volume of this guest version unless that is done; safe against other launches.

    A volume cannot be filled and appear in one step, so a second, empty one says that the first is ready.
    Until then every launch fills it, with the same bytes.
    """
    ready = f"{program.volume}-ready"
    if engine.volume_exists(ready):
        return
    _make_shared_volume(engine, program.volume)
    spec = plan_filler(
        guest_volume=program.volume,
        guest_digest=program.digest,
        image=image,
        suffix=suffix,
        version=__version__,
    )
    check_spec(spec)
    container = engine.create(spec)
    try:
        content = _tar({Path(GUEST_ZIPAPP).name: program.content}, owner=0, mode=0o644)
        engine.copy_in(container, GUEST_DIRECTORY, lambda out: _write(out, content))
    finally:
        engine.remove(container, force=True)
    _make_shared_volume(engine, ready)


def make_volume(engine: Engine, volume: NamedObject) -> None:
    """Make a volume of the session. Raises EngineError where the engine refuses to keep one of that name."""
    engine.create_volume(volume.name, labels=dict(volume.labels))


def require_own_volumes(engine: Engine, volumes: Sequence[NamedObject]) -> None:
    """Raise EngineError when the engine has kept somebody else's volume of such a name instead of making ours."""
    found = engine.volume_labels([volume.name for volume in volumes])
    for volume in volumes:
        if found.get(volume.name) != dict(volume.labels):
            raise EngineError(
                f"cannot create volume {volume.name}: it already exists",
                hint=LEFT_OVER,
            )


def _make_shared_volume(engine: Engine, name: str) -> None:
    labels = {f"{LABEL}type": "guest", f"{LABEL}version": __version__}
    try:
        engine.create_volume(name, labels=labels)
    except EngineError:
        if not engine.volume_exists(name):  # else another launch was faster
            raise


def _tar(files: dict[str, bytes], *, owner: int, mode: int) -> bytes:
    import tarfile  # most launches write no other tar than the workspace

    def entry(name: str, mode: int, kind: bytes) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.uid, info.gid = kind, mode, owner, owner
        return info

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        made: set[str] = set()
        for name, content in files.items():
            for parent in reversed(Path(name).parents[:-1]):
                if str(parent) not in made:
                    made.add(str(parent))
                    archive.addfile(entry(str(parent), 0o700, tarfile.DIRTYPE))
            file = entry(name, mode, tarfile.REGTYPE)
            file.size = len(content)
            archive.addfile(file, io.BytesIO(content))
    return buffer.getvalue()


def _write(out: BinaryIO, content: bytes) -> None:
    out.write(content)
