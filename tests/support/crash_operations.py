"""The operations that are killed: each the product's own functions on a scene; `python -m` runs one as a program."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from coding_agents.model.refs import Oid

if TYPE_CHECKING:
    from support.crash_scene import Scene

OPERATIONS: dict[str, Operation] = {}


@dataclass(frozen=True)
class Operation:
    """`passing` names what may be seen in between only, by the beginning of its name in `observe`."""

    run: Callable[[Scene], object]
    passing: tuple[str, ...] = ()


def _operation(*passing: str) -> Callable[[Callable[[Scene], object]], Callable[[Scene], object]]:
    def add(run: Callable[[Scene], object]) -> Callable[[Scene], object]:
        OPERATIONS[run.__name__.removeprefix("_").replace("_", "-")] = Operation(run, passing)
        return run

    return add


@_operation()
def _update_record(scene: Scene) -> None:
    scene.store.update(scene.session.record.id, phase="running", started_at="2026-01-01T00:00:00Z")


@_operation("unreadable ")
def _register(scene: Scene) -> None:
    from support.sessions import session_record

    for digit in "abc":  # a launch takes a new id each time
        session_id = digit * 12
        if not scene.store.directory(session_id).exists():
            scene.store.create(session_id)
            record = session_record(session_id, name="demo-new", branch="demo/new", created_ms=5)
            if not scene.store.register(record):
                scene.store.remove(session_id)  # as a launch does that another one has outrun
            return


@_operation()
def _remove(scene: Scene) -> None:
    from coding_agents.store.leftovers import finish_removals
    from support.repos import SESSION

    finish_removals(scene.store)
    scene.store.remove(SESSION)


@_operation()
def _set_aside(scene: Scene) -> None:
    from support.repos import SESSION

    if scene.store.directory(SESSION).exists():
        scene.store.set_aside(SESSION)


@_operation()
def _audit(scene: Scene) -> None:
    """Two records, each only if the log does not have it: the same decision would not be taken twice."""
    from coding_agents.audit.log import open_log
    from coding_agents.model.audit import AuditEvent, RecordType
    from support.crash_scene import NOW_MS, SESSION

    path = scene.session.audit_path
    with open_log(path, session=SESSION, time_ms=NOW_MS + 10) as log:
        for subject in ("first", "second"):
            if subject.encode() not in path.read_bytes():
                log.record(AuditEvent(RecordType.PUSH, subject=subject), time_ms=NOW_MS + 20)


@_operation()
def _first_audit(scene: Scene) -> None:
    from coding_agents.audit.log import open_log
    from coding_agents.model.audit import AuditEvent, RecordType
    from support.crash_scene import NOW_MS

    path = scene.session.audit_path.with_name("second.jsonl")
    with open_log(path, session="b" * 12, time_ms=NOW_MS) as log:
        if b"first" not in path.read_bytes():
            log.record(AuditEvent(RecordType.PUSH, subject="first"), time_ms=NOW_MS)


@_operation()
def _give(scene: Scene) -> None:
    from coding_agents.gitsync.base import give

    give(scene.base_store, scene.facts, scene.oid("main"))


@_operation()
def _open_base(scene: Scene) -> None:
    from msgspec.structs import replace

    from coding_agents.gitsync.base import open_base

    open_base(scene.data_dir, replace(scene.facts, repo_id="0" * 12), env=scene.env)


@_operation()
def _create_relay(scene: Scene) -> None:
    from coding_agents.gitsync.relay_repo import create_relay

    relay = scene.relay
    create_relay(
        relay.git_dir.with_name("second.git"), base_store=scene.base_store, branch=relay.branch,
        base=relay.base, base_branch="main",
    )  # fmt: skip


@_operation()
def _launch_state(scene: Scene) -> None:
    from coding_agents.gitsync.base import give
    from coding_agents.workspace.launch_state import record_launch_state
    from coding_agents.workspace.listing import plan_copy
    from support.crash_scene import NOW_MS

    give(scene.base_store, scene.facts, scene.oid("main"))
    plan = plan_copy(scene.facts, env=scene.env, include=(), clean=False)
    record_launch_state(
        scene.facts, scene.relay_dir, plan, env=scene.env, base=scene.oid("main"), now_ms=NOW_MS
    )


@_operation("relay refs/coding-agents/archiving/")
def _push(scene: Scene) -> None:
    """One push through the relay's service, as the channel brings it; what is there already is not sent again."""
    from coding_agents.gitsync.old_tips import archive_old
    from coding_agents.gitsync.relay import RelayService
    from coding_agents.gitsync.relay_events import RelayEvent, TipChange
    from coding_agents.gitsync.relay_repo import Identity
    from coding_agents.gitsync.rules import load_policy
    from support.crash_scene import PUSH

    relay, raw = scene.relay, (scene.root / PUSH).read_bytes()
    if raw[45:85].decode() == relay.store.resolve(relay.branch.ref):
        archive_old(relay.store, relay.store.refs())  # as the next push does, whatever it pushes
        return

    async def record(event: RelayEvent) -> None:
        pass

    async def updated(change: TipChange) -> None:
        assert change.archived is None

    service = RelayService(relay, policy=load_policy(), record=record, on_update=updated)
    asyncio.run(service.serve(_Push(raw), identity=Identity.AGENT))
    assert raw[45:85].decode() == relay.store.resolve(relay.branch.ref)


class _Push:
    """A guest's end of a stream: the request, and when it was answered the push."""

    def __init__(self, raw: bytes) -> None:
        request = b"git-receive-pack /workspace\0host=coding-agents\0"
        self._request = b"%04x%s" % (len(request) + 4, request)
        self._raw = raw
        self._advertised = asyncio.Event()
        self._over = asyncio.Event()

    async def read(self, limit: int = 65536, /) -> bytes:
        if self._request:
            request, self._request = self._request, b""
            return request
        await self._advertised.wait()
        if not self._raw:
            await self._over.wait()
        piece, self._raw = self._raw[:limit], self._raw[limit:]
        return piece

    async def write(self, data: bytes, /) -> None:
        if data.endswith(b"0000"):
            self._advertised.set()

    def write_eof(self) -> None:
        self._over.set()

    def close(self) -> None:
        self._over.set()

    def reset(self, reason: str, /) -> None:
        raise AssertionError(reason)


@_operation("user refs/coding-agents/incoming/", "record ")  # it says where the branch is just moved to
def _bring_home(scene: Scene) -> None:
    from coding_agents.gitsync.integrate import Landing
    from coding_agents.supervisor.settle import bring_home

    result = bring_home(scene.session)
    assert result.where is Landing.BRANCH, result


@_operation()
def _keep_incoming(scene: Scene) -> None:
    from coding_agents.supervisor.adoption import WORKTREE
    from coding_agents.supervisor.settle import bring_home_beside

    tip = scene.relay.store.resolve(WORKTREE)
    assert tip is not None
    bring_home_beside(scene.session, tip)


@_operation()
def _bring_nested(scene: Scene) -> None:
    from coding_agents.supervisor.settle import bring_nested_home

    bring_nested_home(scene.session)


@_operation()
def _take_nested(scene: Scene) -> None:
    from coding_agents.gitsync.nested import Nested, take_nested
    from coding_agents.model.refs import Branch

    nested = Nested("old", "refs/heads/demo/old", scene.oid("demo/old"))
    take_nested(
        scene.facts, nested, Branch.parse("x", agent="demo"), into=scene.root / "taken", env=scene.env
    )


@_operation()
def _keep_save(scene: Scene) -> None:
    from coding_agents.gitsync.autosave import keep_save
    from support.crash_scene import NOW_MS

    keep_save(scene.relay.store, NOW_MS)


@_operation()
def _thin(scene: Scene) -> None:
    """Thin the relay out, whatever it holds; that objects are gone is no matter of refs."""
    from coding_agents.gitsync import repack
    from coding_agents.gitsync.autosave import let_go
    from coding_agents.gitsync.relay_usage import RelayUsage
    from coding_agents.gitsync.thinning import FEWER
    from coding_agents.proc.limits import ProcessLimits
    from support.crash_scene import LET_GO, NOW_MS

    async def at_once(work: Callable[..., object], *args: object, **named: object) -> object:
        return work(*args, **named)  # no step kills in a thread

    store, gone = scene.relay.store, Oid.parse((scene.root / LET_GO).read_text())
    let_go(store, NOW_MS, FEWER[-1])
    limits = ProcessLimits(60, 1 << 32, 1 << 30, 1024)
    one = repack.Repack(scene.relay, RelayUsage(scene.relay), limits=limits, timeout_s=60)
    with mock.patch.object(asyncio, "to_thread", at_once):
        asyncio.run(one.run(nullcontext))
    assert store.present([gone]) == []


@_operation()
def _bring_save(scene: Scene) -> None:
    from coding_agents.gitsync.autosave import bring_save

    bring_save(scene.facts, scene.relay, session=scene.session.record.id, env=scene.env)


@_operation()
def _make_room(scene: Scene) -> None:
    from coding_agents.supervisor.adoption import make_room

    make_room(scene.session)


@_operation()
def _archive_salvaged(scene: Scene) -> None:
    from coding_agents.supervisor.adoption import set_aside

    set_aside(scene.session)


@_operation()
def _adopt(scene: Scene) -> None:
    from coding_agents.supervisor.adoption import WORKTREE, adopt_found
    from coding_agents_guest.events import Salvaged

    found = scene.relay.store.resolve(WORKTREE)
    assert found is not None
    adopt_found(scene.session, Salvaged(head="", worktree=str(found), clean=False))


@_operation()
def _archive_branch(scene: Scene) -> None:
    from coding_agents.gitsync.branches import archive_existing, branch_names
    from support.crash_scene import NOW_MS, OTHER_BRANCH

    if OTHER_BRANCH.short in branch_names(scene.facts, env=scene.env):
        archive_existing(scene.facts, OTHER_BRANCH, now_ms=NOW_MS, env=scene.env)


@_operation()
def _delete_branch(scene: Scene) -> None:
    from coding_agents.gitsync.branches import delete_branch
    from coding_agents.gitsync.packs import user_store
    from support.crash_scene import OTHER_BRANCH

    tip = user_store(scene.facts, scene.env).resolve(OTHER_BRANCH.ref)
    assert tip is None or delete_branch(scene.facts, OTHER_BRANCH, expected=tip, env=scene.env)


@_operation()
def _config_set(scene: Scene) -> None:
    from coding_agents.config.edit import set_setting

    set_setting(scene.settings, "limits.pids", ["200"])


@_operation()
def _guest_program(scene: Scene) -> None:
    from coding_agents.supervisor.guest_program import GuestProgram

    GuestProgram.of_this_version(scene.data_dir)


def main() -> int:
    from coding_agents.gitsync import repack
    from coding_agents.proc import git_refs
    from support.crash_scene import Scene

    git_refs.OWN_LOCK_S = 0.3  # so long is waited for a lock that a killed git of ours has left
    repack.ORPHAN_S = 0.0  # and so old must a pack without an index be
    OPERATIONS[sys.argv[1]].run(Scene(Path(sys.argv[2])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
