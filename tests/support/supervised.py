"""A session with a repository and a relay but without a container, and a supervisor that runs in the test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from coding_agents.audit.log import open_log
from coding_agents.engine.api import ContainerState
from coding_agents.errors import EngineStoppedError
from coding_agents.gitsync.base import give, open_base
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.relay_repo import create_relay
from coding_agents.model.audit import RecordType, decode_record
from coding_agents.model.refs import Branch, Oid
from coding_agents.model.session import RepoRef, Volumes
from coding_agents.proc.runner import Command
from coding_agents.sandbox.spec import LABEL
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.process import Supervisor
from support.fake_engine import FakeEngine
from support.guest import bridge_command, guest_program
from support.host import host_environment
from support.product import git, make_repo
from support.sessions import session_record

_SRC = Path(__file__).resolve().parents[2] / "src"


class SilentEngine(FakeEngine):
    """An engine that does not answer `inspect` as long as `silent` is positive."""

    silent = 0

    def inspect(self, container: str) -> ContainerState | None:
        if self.silent > 0:
            self.silent -= 1
            raise EngineStoppedError("Docker is installed but does not answer")
        return super().inspect(container)


class BridgedEngine(SilentEngine):
    """An engine whose containers have a real bridge, each with sockets of its own."""

    bridges = 0

    def exec_command(self, container: str, argv: Sequence[str], **options: Any) -> Command:
        self.bridges += 1
        sockets = self.directory / f"{self.bridges}"
        sockets.mkdir()
        sockets.chmod(0o1777)
        return bridge_command(guest_program(self.directory), sockets)


def make_session(tmp_path: Path, engine: FakeEngine) -> SessionContext:
    """A session on a real repository with a real relay, whose container there is not."""
    env = host_environment(tmp_path / "home", PYTHONPATH=str(_SRC))
    repo = discover(make_repo(tmp_path / "shop"), env=env.for_git())
    store = SessionStore(env.state_dir)
    record = session_record(
        os.urandom(6).hex(),  # a long path has its socket below /tmp by this id, and other tests run beside us
        repo=RepoRef(
            kind="path", name="shop", work_tree=str(repo.work_tree), git_dir=str(repo.git_dir),
            common_dir=str(repo.common_dir), repo_id=repo.repo_id,
            owner_uid=repo.owner_uid, owner_gid=repo.owner_gid,
        ),
        base=str(repo.head), base_branch="main", container_id="gone", phase="running", started_at="then",
        limits={"cpus": "1", "memory_bytes": str(1 << 30), "pids": "100"},
    )  # fmt: skip
    directory = store.create(record.id)
    store.save(record)
    base = open_base(env.data_dir, repo, env=env.for_git())
    assert repo.head is not None
    give(base, repo, repo.head)
    create_relay(
        directory / "relay.git",
        base_store=base,
        branch=Branch.parse(record.branch, agent=record.agent),
        base=repo.head,
        base_branch="main",
    )
    context = SessionContext(env, store, record)
    context.engine = engine
    return context


def give_volume(session: SessionContext) -> str:
    """Let the session's engine have its volume, of which it gives the name."""
    name = f"{session.record.name}-workspace"
    session.update(volumes=Volumes(workspace=name))
    session.engine.create_volume(name, labels={f"{LABEL}nonce": session.record.nonce})
    return name


def commit(session: SessionContext, message: str, *, ref: str = "", content: str = "w\n") -> Oid:
    """A commit on the base with one file more, in the relay; `ref` is made to name it."""
    work = Path(session.record.repo.work_tree).with_name(f"agent-{message}")
    git(work.parent, "clone", "--quiet", session.record.repo.work_tree, str(work))
    (work / "work.txt").write_text(content)
    git(work, "add", ".")
    git(work, "-c", "user.name=a", "-c", "user.email=a@example.invalid", "commit", "--quiet", "-m", message)
    git(
        work,
        "push",
        "--quiet",
        str(session.directory / "relay.git"),
        f"HEAD:{ref or session.relay.branch.ref}",
    )
    return Oid.parse(git(work, "rev-parse", "HEAD"))


def home(session: SessionContext) -> str:
    """The session's branch in the user's repository."""
    return git(
        Path(session.record.repo.work_tree), "rev-parse", "--quiet", "--verify", "demo/session-1", check=False
    )


def integrated(session: SessionContext) -> list[str]:
    """What the audit log says of the branch on its way home."""
    records = map(decode_record, session.audit_path.read_bytes().splitlines())
    return [str(record.detail["tip"]) for record in records if record.type is RecordType.INTEGRATED]


def supervise(session: SessionContext, during: Callable[[Supervisor], Awaitable[Any]] | None = None) -> Any:
    """Run a supervisor until it leaves by itself; the result of `during`, which runs beside it."""

    async def run() -> Any:
        with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
            supervisor = Supervisor(session, Journal(log))
            asked = asyncio.ensure_future(during(supervisor)) if during is not None else None
            async with asyncio.timeout(30):
                await supervisor.run()
                return await asked if asked is not None else None

    return asyncio.run(run())
