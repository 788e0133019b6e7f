"""A session with a busy agent in it, and all that its volume was seen to hold: what the oracle of the kill tests knows.

It is independent of the product: it reads the volume as the host's root sees it.
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from coding_agents.quota.image import Image
from coding_agents.quota.window import opened
from coding_agents_guest.nestedref import LATEST, NESTED
from support import busy_agent
from support.busy_agent import INNER, JOURNAL, WORK, content, found, number_of, parse_journal
from support.product import Product, git, wait_for

_SETTLE_S = 120.0
_STALE_S = 30.0  # how long `list` may call running what has been killed

# Where each file is that is no part of a git directory, with its mode and the id of its content.
Tree = dict[str, tuple[str, str]]


@dataclass
class Scene:
    """`files` are the versions that were in the volume at the last look, `gone` the paths that had left it by then.

    `promised`, `promised_gone` and `promised_commits` are that when a verb began that then said that all is saved.
    """

    product: Product
    repo: Path
    seed: int
    name: str = ""
    session: str = ""
    volume: Path = Path()  # the session's work tree as the host's root sees it
    image: Image | None = None  # of its own disk, if it has one
    files: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    journal: list[list[str]] = field(default_factory=list)
    promised: dict[str, int] = field(default_factory=dict)
    promised_gone: set[str] = field(default_factory=set)
    promised_commits: set[str] = field(default_factory=set)
    killed: list[str] = field(default_factory=list)
    verbs: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def canary(self) -> Path:
        """In a directory that only the host has."""
        return self.product.home / "EXECUTED"

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """`volume` can be read for the block, also of a session that does not run and has a disk of its own."""
        with opened(self.image) if self.image is not None else nullcontext():
            yield

    def launch(self, network: str, *options: str) -> None:
        agent = (Path(busy_agent.__file__).read_text(), str(self.seed), str(self.canary))
        options = ("--agent", "demo", "--network-proxy", network, "-d", *options)
        done = self.product.run("launch", str(self.repo), *options, "--", "python3", "-c", *agent)
        self.name = done.out.strip()
        record = self.product.session(self.name)
        self.session, volume = record["id"], record["volumes"]["workspace"]
        place = self.product.engine_run("volume", "inspect", "--format", "{{.Mountpoint}}", volume)
        self.volume = Path(place.strip())
        if record["quota"]:
            self.image = Image(self.product.session_dir(self.name))
            self.volume = Path(self.image.place("workspace"))
        self._wait_until_busy(0)

    def _wait_until_busy(self, before: int) -> None:
        """Until the agent has begun anew and done something; at its start the journal had `before` lines."""

        def busy() -> bool:
            with self.at_hand():
                new = [line[1] for line in _journal(self.volume)[before:]]
            return "begin" in new and "write" in new[new.index("begin") :]

        wait_for(busy, "the agent to be at work", timeout_s=_SETTLE_S)

    def look(self) -> None:
        """Remember what is in the volume now; nothing in it may be older than at the last look."""
        with self.at_hand():
            now = {
                path: version for top in (WORK, INNER) for path, version in found(self.volume / top).items()
            }
            journal = _journal(self.volume)  # after the files: it knows of all that has gone
        left = {line[2] for line in journal if line[1] in ("delete", "rename")}
        missing = self.files.keys() - now.keys()
        assert journal[: len(self.journal)] == self.journal, f"the journal went back ({self.killed})"
        assert missing <= left, f"gone from the volume: {sorted(missing - left)[:9]} ({self.killed})"
        stale = [path for path in self.files.keys() & now.keys() if now[path] < self.files[path]]
        assert not stale, f"older than before in the volume: {stale[:9]} ({self.killed})"
        risen = self.gone & now.keys()
        assert not risen, f"back in the volume: {sorted(risen)[:9]} ({self.killed})"
        self.files, self.journal, self.gone = now, journal, self.gone | missing

    def commits(self, *verbs: str) -> dict[str, dict[str, int]]:
        """The commits that the journal's lines with `verbs` tell of, with the versions that are new in each."""
        told = [line for line in self.journal if line[1] in verbs]
        pairs = {line[2]: [word.partition("=") for word in line[3:]] for line in told}
        return {oid: {path: int(version) for path, _, version in pairs[oid]} for oid in pairs}

    def save(self, verb: str) -> bool:
        """`pull` or `diff`: whether it said of a session that runs that all is saved, which is a promise then."""
        self.look()
        done = self.product.run(verb, self.name, status=None)
        if done.status or (verb == "diff" and done.err) or self.state() != "running":
            return False
        self.promised, self.promised_gone = dict(self.files), set(self.gone)
        self.promised_commits |= self.commits("commit", "inner").keys()
        self.look()
        relay = self.product.session_dir(self.name) / "relay.git"
        broken = self.broken_by(tree_of(relay, LATEST, f"{NESTED}{INNER}"))
        assert not broken, f"{verb} saved an older state of {broken[:9]} ({self.killed})"
        return True

    def broken_by(self, tree: Tree) -> list[str]:
        """Where `tree` is older than promised: what it has is no older, and what it has not was deleted later."""
        lost = sorted(self.promised_gone & tree.keys())
        for path, version in sorted(self.promised.items()):
            written = [int(line[3]) for line in self.journal if line[1:3] == ["write", path]]
            fresh = {self.blob(path, one) for one in range(version, max([version, *written]) + 1)}
            if tree[path][1] not in fresh if path in tree else path in self.files:
                lost.append(path)
        return lost

    def blob(self, path: str, version: int) -> str:
        """The id of a version of the file at `path`."""
        return blob(content(self.seed, number_of(path), version))

    def revive(self, chance: random.Random) -> None:
        """What a person does after a kill: a verb or two, and the session runs on."""
        verb = chance.choice(["exec", "pull", "diff"])
        deadline = time.monotonic() + _STALE_S
        while not self._works(verb):
            if self.state() != "running":
                self._start(chance)
                return
            # The end of a killed agent may still be under way.
            assert time.monotonic() < deadline, f"{verb} does not work after {self.killed}"

    def _works(self, verb: str) -> bool:
        if verb != "exec":
            return self.save(verb)
        done = self.product.run("exec", self.name, "--", "true", status=None)
        return done.status == 0 and self.state() == "running"

    def _start(self, chance: random.Random) -> None:
        if chance.random() < 0.5:
            self.product.run("wait", self.name, status=None)
        if chance.random() < 0.5:
            self.product.run("recover", self.name)
        with self.at_hand():
            before = len(_journal(self.volume))
        self.product.run("start", self.name)
        self._wait_until_busy(before)

    def state(self) -> str:
        return self.product.state(self.name)

    def lose_the_disk(self) -> None:
        """The container is killed, and its volumes go with it, whatever the product is about to do with them."""
        nonce = self.product.session(self.name)["nonce"]
        mine = ("--filter", f"label=coding-agents.nonce={nonce}")
        volumes = self.product.engine_run("volume", "ls", "--quiet", *mine).split()
        self.product.engine_run("kill", self.product.session(self.name)["container_id"])
        self.look()

        def lost() -> bool:
            containers = self.product.engine_run("ps", "--all", "--quiet", *mine).split()
            self.product.engine_run("rm", "--force", *containers, check=False)
            self.product.engine_run("volume", "rm", *volumes, check=False)
            left = self.product.engine_run("volume", "ls", "--quiet").split()
            return not set(volumes) & set(left)

        wait_for(lost, "the volumes to be lost")

    def read_tree(self) -> Tree:
        """What the volume holds now that nobody writes; the bytes of the agent's files are as it has written them."""
        with self.at_hand():
            return self._read_tree()

    def _read_tree(self) -> Tree:
        tree: Tree = {}
        for directory, within, names in os.walk(self.volume):
            links = [name for name in within if Path(directory, name).is_symlink()]
            within[:] = [name for name in within if name != ".git"]
            for name in (*names, *links):
                path = Path(directory, name)
                if name != ".git":
                    tree[path.relative_to(self.volume).as_posix()] = _entry(path)
        for path, version in self.files.items():
            data = (self.volume / path).read_bytes()
            assert data == content(self.seed, number_of(path), version), f"{path} is not as it was written"
        return tree


def tree_of(repo: Path, ref: str, inside: str) -> Tree:
    """The files of `ref` in `repo` and, in their place, those of the ref `inside`, if there is one."""
    tree = _listed(repo, ref)
    if git(repo, "for-each-ref", inside):
        tree |= {f"{INNER}/{path}": entry for path, entry in _listed(repo, inside).items()}
    return tree


def _listed(repo: Path, ref: str) -> Tree:
    listed = git(repo, "ls-tree", "-r", "-z", ref).split("\0")
    entries = [(info.split(), path) for info, _, path in (line.partition("\t") for line in listed) if path]
    return {path: (info[0], info[2]) for info, path in entries}


def blob(data: bytes) -> str:
    """The id of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _entry(path: Path) -> tuple[str, str]:
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        return "120000", blob(os.fsencode(path.readlink()))
    return ("100755" if info.st_mode & stat.S_IXUSR else "100644"), blob(path.read_bytes())


def _journal(volume: Path) -> list[list[str]]:
    with suppress(FileNotFoundError):
        return parse_journal((volume / JOURNAL).read_bytes())
    return []
