"""In and back: a workspace is filled, an agent works in it, its own save pushes, the host integrates.

All of it is the product's own code but for the engine: the tar stream is unpacked into a directory, and the
relay is served on a socket there. What came back is judged by reading the files inside, not by asking git.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coding_agents.gitsync.integrate import Integrated, Landing, integrate
from coding_agents.gitsync.lfs import Brought, bring_large_files
from coding_agents.gitsync.relay_repo import Relay, open_relay
from coding_agents.model.refs import Oid
from coding_agents.workspace.deny import load_deny_list
from coding_agents.workspace.launch_state import WORKTREE_REF
from coding_agents_guest.events import GuestConfig, Identity, Saved
from coding_agents_guest.gitwork import Git
from coding_agents_guest.lfspointer import parse_pointer
from coding_agents_guest.place import Place
from coding_agents_guest.save import save
from coding_agents_guest.steps import STEPS, Setup
from support.agent_at_work import Entry, files, not_checked_out
from support.kinds import as_it_is
from support.relay_server import URL, serving
from support.repos import BRANCH, SESSION
from support.workspaces import Filled, Host, run_git


@dataclass(frozen=True)
class Session:
    """A session's workspace, whose guest has taken the steps that concern git."""

    host: Host
    filled: Filled
    relay: Relay
    config: GuestConfig
    home: Path

    @property
    def work(self) -> Path:
        return self.filled.inside

    @property
    def place(self) -> Place:
        return Place(workspace=self.work, home=self.home, relay=URL, path=os.environ["PATH"])

    def git(self, *args: str, cwd: Path | None = None) -> str:
        """git as the agent runs it."""
        return run_git(cwd or self.work, *args, env={**self.place.environment(), "GIT_CONFIG_NOSYSTEM": "1"})

    def save(self) -> Saved:
        """What the guest does at the end, against the real relay."""
        with serving(self.relay, self.home / "relay") as server:
            (self.home / ".gitconfig").write_text(f"[core]\n\tgitProxy = {server.proxy}\n")
            deadline = time.monotonic() + 60
            return save(self.config, self.place, deadline=deadline)

    def bring(self, *, expected_old: Oid | None = None) -> Integrated:
        """What the host does when the relay's tip has moved."""
        self.bring_large()
        return integrate(
            self.host.facts(), self.relay, session=SESSION, expected_old=expected_old, env=self.host.env
        )

    def bring_large(self, *, most_bytes: int = 1 << 30) -> Brought:
        return bring_large_files(self.host.facts(), self.relay, env=self.host.env, most_bytes=most_bytes)


def begin(host: Host, *include: str, clean: bool = False) -> Session:
    """Fill a workspace of `host` and take the guest's first steps in it."""
    filled = host.fill(*include, clean=clean)
    facts = host.facts()
    relay = open_relay(filled.relay, branch=BRANCH, base=facts.head, base_branch=facts.branch, env=host.env)
    tree = ""
    if filled.launch.worktree_commit is not None:
        tree = run_git(filled.relay, "rev-parse", f"{WORKTREE_REF}^{{tree}}", env=host.env)
    config = GuestConfig(
        session=SESSION, branch=BRANCH.short, identity=Identity("Agent", "agent@example.invalid"),
        base=facts.head or "", launch_tree=tree, deny=load_deny_list().patterns,
    )  # fmt: skip
    home = filled.inside.parent / "home"
    home.mkdir()
    session = Session(host, filled, relay, config, home)
    git = Git(session.work, session.place.environment(), time.monotonic() + 60)
    for step in STEPS[:3]:
        step.take(Setup(config, session.place, git))
    return session


def round_trip(
    host: Host, edit: Callable[[Session], None], *, stored: Callable[[str, bytes], bytes] = as_it_is
) -> Session:
    """Let `edit` work in a session and require that what came back is what stands inside."""
    session = begin(host)
    edit(session)
    unseen = not_checked_out(session.git)
    saved = session.save()
    assert saved.pushed, saved
    landed = session.bring()
    assert landed.where is Landing.BRANCH, landed
    assert landed.tip == saved.head
    require_whole(host, str(landed.tip), files_of(session), unseen=unseen, stored=stored)
    return session


def require_whole(
    host: Host,
    tip: str,
    inside: dict[str, Entry],
    *,
    unseen: Sequence[str],
    stored: Callable[[str, bytes], bytes],
) -> None:
    """Require that `tip` has exactly the files that stand `inside` (and what was not checked out there), and that the
    host has the content behind every pointer that came back, where it was known inside."""
    came_back = tree_of(host, tip)
    wanted = {path: (mode, stored(path, content)) for path, (mode, content) in inside.items()}
    assert came_back == {**{path: came_back.get(path) for path in unseen}, **wanted}
    assert host.git("fsck", "--full", "--no-dangling", tip) == ""
    for path, (_, content) in came_back.items():
        pointer = parse_pointer(content)
        if pointer is not None and inside[path][1] != content:
            place = host.facts().common_dir / "lfs/objects" / pointer.oid[:2] / pointer.oid[2:4]
            kept = (place / pointer.oid).read_bytes()
            assert kept == inside[path][1]
            assert hashlib.sha256(kept).hexdigest() == pointer.oid


def files_of(session: Session) -> dict[str, Entry]:
    """Every file and link in the workspace that its ignore rules do not name, read from disk."""
    return files(session.work, session.git)


def tree_of(host: Host, commit: str) -> dict[str, Entry]:
    """Every file of `commit` in the host's repository."""
    listed = host.git("ls-tree", "-r", "-z", "--full-tree", commit)
    entries = [record.partition("\t")[::2] for record in listed.split("\0") if record]
    oids = [info.split(" ")[2] for info, _ in entries if " commit " not in info]
    batch = subprocess.run(
        ["git", "cat-file", "--batch"], cwd=host.work, env=host.env, capture_output=True, check=True,
        input="".join(f"{oid}\n" for oid in oids).encode(),
    ).stdout  # fmt: skip
    found: dict[str, Entry] = {}
    at = 0
    for info, path in entries:
        mode, kind, oid = info.split(" ")
        if kind == "commit":
            found[path] = (mode, oid.encode())
            continue
        start = batch.index(b"\n", at) + 1
        end = start + int(batch[at:start].split(b" ")[2])
        found[path] = (mode, batch[start:end])
        at = end + 1
    return found
