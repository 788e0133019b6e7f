"""A host repository, its relay, and the workspace that an agent would get from it."""

from __future__ import annotations

import io
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from coding_agents.app.prepare import give_all
from coding_agents.gitsync.base import open_base
from coding_agents.gitsync.discover import discover
from coding_agents.gitsync.relay_repo import create_relay
from coding_agents.model.repo import RepoFacts
from coding_agents.workspace.copyset import CopyPlan
from coding_agents.workspace.fill import write_workspace_tar
from coding_agents.workspace.launch_state import LaunchState, record_launch_state
from coding_agents.workspace.listing import plan_copy
from coding_agents_guest.restamp import restamp
from support.repos import BRANCH, git_env, make_repo

NOW_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Filled:
    """One launch: what was decided and recorded, and where the copy stands."""

    plan: CopyPlan
    launch: LaunchState
    relay: Path
    tar: bytes
    inside: Path


@dataclass(frozen=True)
class Host:
    """A user's repository at `work` and their environment, everything below `root`."""

    root: Path
    work: Path
    env: dict[str, str]

    def git(self, *args: str) -> str:
        return run_git(self.work, *args, env=self.env)

    def write(self, name: str, content: str | bytes, *, aged: bool = True) -> Path:
        """Write a file; `aged` by a minute, so that git can trust its time."""
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if aged:
            then = time.time() - 60
            os.utime(path, (then, then))
        return path

    def commit(self, **files: str) -> None:
        for name, content in files.items():
            self.write(name, content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "-m", "change")

    def configure(self, text: str) -> None:
        """Add to the user's own git configuration."""
        with (Path(self.env["HOME"]) / ".gitconfig").open("a") as config:
            config.write(text)

    def facts(self) -> RepoFacts:
        return discover(self.work, env=self.env)

    def plan(self, *include: str, clean: bool = False) -> CopyPlan:
        return plan_copy(self.facts(), env=self.env, include=include, clean=clean)

    def status(self) -> str:
        return self.git("status", "--porcelain", "-z")

    def fill(self, *include: str, clean: bool = False) -> Filled:
        """Do what a launch does, and unpack the stream as the engine would."""
        return fill(self.root, self.facts(), env=self.env, include=include, clean=clean)

    def inside(self, filled: Filled, *args: str) -> str:
        return guest_git(filled.inside, *args)


def make_host(root: Path) -> Host:
    """A repository with two commits, the files of which are a minute old."""
    env = git_env(root / "home")
    host = Host(root, make_repo(root / "work", env=env), env)
    host.commit(kept="kept\n", changed="before\n")
    for name in ("README", "kept", "changed"):
        host.write(name, (host.work / name).read_bytes())
    host.git("status")  # refreshes the index
    return host


def fill(
    root: Path, repo: RepoFacts, *, env: dict[str, str], include: tuple[str, ...] = (), clean: bool = False
) -> Filled:
    """Plan, record and write the workspace of `repo`; unpacked below `root`, and as the guest takes it."""
    place = root / f"launch-{time.monotonic_ns()}"
    store = open_base(place, repo, env=env)
    plan = give_all(store, repo, plan_copy(repo, env=env, include=include, clean=clean))
    relay = create_relay(
        place / "relay.git", base_store=store, branch=BRANCH, base=repo.head, base_branch=repo.branch
    )
    launch = record_launch_state(repo, relay.git_dir, plan, env=env, base=repo.head, now_ms=NOW_MS)
    stream = io.BytesIO()
    write_workspace_tar(
        stream, repo, plan, relay_git_dir=relay.git_dir, base=repo.head, launch=launch, env=env
    )
    inside = place / "workspace"
    unpack(stream.getvalue(), inside)
    restamp(inside)
    return Filled(plan, launch, relay.git_dir, stream.getvalue(), inside)


def unpack(tar: bytes, target: Path) -> None:
    """Unpack with times and modes, as whoever runs the test."""
    target.mkdir(exist_ok=True)
    argv = [
        "tar",
        "--extract",
        "--preserve-permissions",
        "--no-same-owner",
        "--file=-",
        "--directory",
        str(target),
    ]
    subprocess.run(argv, input=tar, check=True)


def guest_git(inside: Path, *args: str) -> str:
    """Run git as the agent does: no configuration but the workspace's own."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    return run_git(inside, *args, env=env)


def run_git(cwd: Path, *args: str, env: dict[str, str]) -> str:
    """Run git, which must succeed; bytes that are not UTF-8 come back as surrogates."""
    done = subprocess.run(["git", *args], cwd=cwd, env=env, capture_output=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"git {' '.join(args)}: {os.fsdecode(done.stdout + done.stderr)}")
    return os.fsdecode(done.stdout).removesuffix("\n")
