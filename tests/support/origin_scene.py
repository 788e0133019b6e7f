"""A session whose repository has its origin on a forge: the broker of the session, and the agent's git that uses it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from coding_agents.audit.log import open_log
from coding_agents.config.load import load_settings
from coding_agents.model.approval import Approval
from coding_agents.model.notice import Notice
from coding_agents.store.approvals import ApprovalStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.git_settings import git_settings
from coding_agents.supervisor.journal import Journal
from coding_agents.supervisor.origin_access import OriginAccess
from coding_agents.supervisor.origin_kept import give_origins
from support.fake_engine import FakeEngine
from support.forge import Account, Forge, forge_server
from support.product import git
from support.relay_server import RelayServer, serving
from support.supervised import make_session

APP = "team/app"
LIBRARY = "team/library"
MINE = "demo/session-1"


@dataclass
class OriginScene:
    """`user` is the user's repository, `guest` the agent's, which calls the same address origin."""

    forge: Forge
    ada: Account
    session: SessionContext
    guest: Path
    server: RelayServer
    access: OriginAccess
    env: dict[str, str]
    notices: list[Notice] = field(default_factory=list)

    @property
    def user(self) -> Path:
        return Path(self.session.record.repo.work_tree)

    @property
    def home(self) -> Path:
        return self.session.env.home

    def git(self, *args: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """The agent's git."""
        done = self.start(*args)
        out, err = done.communicate(timeout=60)
        if status is not None and done.returncode != status:
            raise AssertionError(f"git {args} ended with {done.returncode}: {out}{err}")
        return subprocess.CompletedProcess(args, done.returncode, out, err)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """The agent's git, still running."""
        return subprocess.Popen(
            ("git", *args), cwd=self.guest, env=self.env, text=True, encoding="utf-8", errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def refused(self, *args: str) -> str:
        """What the agent's git says when its push or fetch fails."""
        done = self.git(*args, status=None)
        assert done.returncode != 0, done.stdout + done.stderr
        return done.stderr + done.stdout

    def commit(self, name: str = "work", text: str = "w\n", message: str = "") -> str:
        """A commit of the agent's on the branch that it has checked out."""
        (self.guest / name).write_text(text)
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "-m", message or f"Add {name}")
        return self.git("rev-parse", "HEAD").stdout.strip()

    def refused_anew(self, *args: str) -> str:
        """The same, where the host is not to go by what it knew a moment ago."""
        desk = self.access._at_desk()
        origin = desk.origin("origin")
        assert origin is not None
        desk.store(origin).forget()
        return self.refused(*args)

    def move_origin(self, address: str) -> None:
        """Let origin be the same repository by another address, from a start of the session on."""
        git(self.user, "config", "remote.origin.url", address)
        self.session.update(repo=msgspec.structs.replace(self.session.record.repo, url=address))
        assert give(self.session) == ""
        self.git("config", "remote.origin.url", address)
        self.configure()

    def configure(self) -> None:
        """Give the agent's git its settings."""
        settings = "[user]\n\tname = Agent\n\temail = agent@example.test\n[init]\n\tdefaultBranch = main\n"
        Path(self.env["HOME"], ".gitconfig").write_text(f"{settings}{git_settings(self.session)}")

    def approvals(self) -> list[Approval]:
        return ApprovalStore(self.session.directory).list()

    def waiting(self) -> Approval:
        """The one push that waits, as soon as it does."""
        return self.until(lambda: next((one for one in self.approvals() if one.state == "pending"), None))

    def until(self, what: Callable[[], Any]) -> Any:
        for _ in range(1000):
            if found := what():
                return found
            time.sleep(0.02)
        raise AssertionError("it does not come to that")

    def decide(self, approval: Approval, *, grant: bool = True, **more: Any) -> dict[str, Any]:
        """Say what a person says."""
        request = {"id": approval.id, "binding": approval.binding, "grant": grant, "env": {}, **more}
        return dict(self.server.run(self.access.decide(request)))

    def at_origin(self, branch: str = MINE) -> str:
        """What the branch is there, "" for nothing."""
        return self.forge.refs(APP).get(f"refs/heads/{branch}", "")

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        lines = self.session.audit_path.read_text().splitlines()
        return [one for one in map(json.loads, lines) if kind in ("", one["type"])]


@contextmanager
def origin_scene(
    tmp_path: Path, *, wait: int = 0, allow_push: bool = False, settings: str = ""
) -> Iterator[OriginScene]:
    """Everything of it. `settings` are lines of the user's file; git inside waits `wait` seconds for a person."""
    session = make_session(tmp_path, FakeEngine(tmp_path / "engine"))
    with forge_server(tmp_path / "forge") as forge, _open(session) as log:
        user = Path(session.record.repo.work_tree)
        forge.host(APP, source=user)
        forge.host(LIBRARY, source=user)
        git(forge.path(APP), "symbolic-ref", "HEAD", "refs/heads/main")
        ada = forge.account("ada", team__app="write", team__library="read")
        forge.trust(session.env.home, ada)
        git(user, "remote", "add", "origin", forge.url(APP))
        repo = msgspec.structs.replace(session.record.repo, url=forge.url(APP))
        session.update(repo=repo, origin_push=allow_push)
        _user_file(session).write_text(f"[origin]\n{settings.format(library=forge.url(LIBRARY))}")
        give(session)
        notices = list[Notice]()
        access = OriginAccess(session, Journal(log), notices.append)
        desk = access._at_desk()
        desk.rules = msgspec.structs.replace(desk.rules, wait_s=wait)
        with serving(session.relay, tmp_path / "server", others=access, journal=Journal(log).relay) as server:
            scene = OriginScene(forge, ada, session, tmp_path / "guest", server, access, {}, notices)
            _make_guest(scene, tmp_path / "guest-home")
            yield scene


def give(session: SessionContext) -> str:
    """Resolve the session's origins, as a launch and a start do; what is wrong with them."""
    return give_origins(session, load_settings(session.env, project=None))


def _user_file(session: SessionContext) -> Path:
    path = session.env.config_dir / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _make_guest(scene: OriginScene, home: Path) -> None:
    home.mkdir()
    plain = {"PATH": scene.session.env.environ["PATH"], "HOME": str(home), "LC_ALL": "C"}
    scene.env = scene.server.guest_env(plain, GIT_CONFIG_NOSYSTEM="1", GIT_TERMINAL_PROMPT="0")
    scene.configure()
    scene.guest.mkdir()
    scene.git("init", "--quiet")
    scene.git("remote", "add", "origin", scene.session.record.repo.url)
    scene.git("fetch", "--quiet", "git://coding-agents/workspace", "+refs/heads/*:refs/remotes/local/*")
    scene.git("checkout", "--quiet", "-b", MINE, f"remotes/local/{MINE}")


@contextmanager
def _open(session: SessionContext) -> Iterator[Any]:
    with open_log(session.audit_path, session=session.record.id, time_ms=0) as log:
        yield log
