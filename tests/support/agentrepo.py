"""A workspace as the guest finds it: a repository with one commit, and a bare relay that refuses what ours does."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from coding_agents.gitsync.relay_repo import RECEIVING
from coding_agents_guest.events import GuestConfig, Identity
from coding_agents_guest.place import Place
from coding_agents_guest.records import replace

BRANCH = "demo/session-1"
REF = f"refs/heads/{BRANCH}"
IDENTITY = Identity("Demo Agent", "demo@example.invalid")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_WHO = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "A User"), ("EMAIL", "user@example.invalid"), ("DATE", "@1767323045 +0000"))
}


@dataclass(frozen=True)
class AgentRepo:
    """The workspace, home and relay below `root`, and the configuration that a session would get."""

    root: Path
    config: GuestConfig

    @property
    def work(self) -> Path:
        return self.root / "workspace"

    @property
    def relay(self) -> Path:
        return self.root / "relay.git"

    @property
    def place(self) -> Place:
        return Place(
            workspace=self.work,
            home=self.root / "home",
            sockets=self.root / "run",
            relay=str(self.relay),
            bridge_uid=self.root.stat().st_uid,
            path=PATH,
        )

    def git(self, *arguments: str, expected: tuple[int, ...] = (0,), cwd: Path | None = None) -> str:
        """git as the agent would run it in the workspace; standard output without the line end."""
        done = subprocess.run(
            ("git", *arguments),
            cwd=cwd or self.work,
            env={"PATH": PATH, "HOME": str(self.root / "home"), "GIT_CONFIG_NOSYSTEM": "1", **_WHO},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in expected, (arguments, done.stderr)
        return done.stdout.rstrip("\n")

    def in_relay(self, *arguments: str) -> str:
        """git in the relay."""
        return self.git(*arguments, cwd=self.relay)

    def write(self, path: str, text: str = "text\n") -> Path:
        """A file in the workspace."""
        file = self.work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def commit(self, path: str, text: str = "text\n") -> str:
        """Write and commit one file; returns the commit."""
        self.write(path, text)
        self.git("add", "--force", "--", path)
        self.git("commit", "--quiet", "--message", f"Change {path}")
        return self.git("rev-parse", "HEAD")

    def rename_unseen(self) -> None:
        """Commit the files `old` and `new` and rename the second over the first, unseen by the agent's git.

        Repositories that earlier releases made have these settings.
        """
        self.git("config", "core.checkStat", "minimal")
        self.git("config", "core.trustctime", "false")
        for name in ("old", "new"):
            os.utime(self.write(name, f"{name}\n"), (1_700_000_000, 1_700_000_000))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "of one size and second")
        (self.work / "new").rename(self.work / "old")
        assert self.status() == " D new"

    def tip(self) -> str:
        """The relay's tip of the session's branch, "" when it has none."""
        return self.in_relay("for-each-ref", "--format=%(objectname)", REF)

    def files(self, commit: str) -> list[str]:
        """The paths in a commit of the relay."""
        return self.in_relay("ls-tree", "-r", "--name-only", commit).splitlines()

    def launched_as_it_is(self) -> AgentRepo:
        """The same session, as if all that is uncommitted now had been the user's own at launch."""
        self.git("add", "--all")
        tree = self.git("write-tree")
        self.git("reset", "--quiet")
        return replace(self, config=replace(self.config, launch_tree=tree))

    def status(self) -> str:
        return self.git("status", "--porcelain")


def make_agent_repo(root: Path, *, unborn: bool = False, **config: object) -> AgentRepo:
    """A workspace on the session's branch, its base commit in the relay; `config` changes the settings."""
    repo = AgentRepo(root, GuestConfig(session="0123456789ab", branch=BRANCH, identity=IDENTITY))
    for directory in (repo.work, root / "home", root / "run"):
        directory.mkdir(parents=True)
    repo.git("init", "--quiet", "--bare", str(repo.relay))
    with (repo.relay / "config").open("a") as relay_config:
        relay_config.write(RECEIVING)
    repo.git("init", "--quiet", f"--initial-branch={BRANCH}")
    base = ""
    if not unborn:
        repo.write(".gitignore", "*.log\n")
        repo.git("add", ".gitignore")
        base = repo.commit("README", "hello\n")
        repo.git("push", "--quiet", str(repo.relay), "HEAD")
    return AgentRepo(root, replace(repo.config, base=base, **config))  # type: ignore[arg-type]
