"""The agent of the kill tests: it writes, overwrites, renames, deletes, commits and pushes without pause.

Runs in the container as `python3 -c SOURCE SEED CANARY`, again and again in one workspace; standard library only.
A file is called after its number, and version V of number N has the bytes `content(seed, N, V)`; it appears whole, and
no path is ever used again. What the agent is about to do to a file, and what git has told it was done, is a line of
`.git/journal` (see `parse_journal`). It never takes a commit back.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

WORK = "w"
INNER = "inner"
JOURNAL = ".git/journal"
QUIET = ".git/quiet"  # while it is there, nothing of the work is staged or committed
_PAUSE_S = 0.03
_END = "."  # of a line that is whole: a killed writer may leave half of one
_LOCK = re.compile(r"'([^']+\.lock)'")


def content(seed: int, number: int, version: int) -> bytes:
    """Mostly short, sometimes a quarter of a megabyte, never the same twice; two versions each have the same size."""
    chance = random.Random(f"{seed}-{number}-{version // 2}")
    size = chance.randrange(1 << 18) if chance.random() < 0.03 else chance.randrange(2000)
    block = hashlib.sha256(f"{seed}-{number}-{version}".encode()).digest()
    return b"%d %d\n" % (number, version) + (block * (size // len(block) + 1))[:size]


def number_of(path: str) -> int:
    """The number of the file at `path`."""
    return int(path.rpartition("/")[2].partition("-")[0])


def parse_journal(data: bytes) -> list[list[str]]:
    """What the agent has done, in order: [number, verb, argument…], where the numbers only grow.

    Before it is done: `begin` (of this start), `write PATH VERSION`, `delete PATH`, `rename PATH PATH`. After git has
    said that it is done: `pushed COMMIT`, and `commit`, `side`, `inner` with COMMIT and a PATH=VERSION for each file
    that is new in it.
    """
    lines = [line.split() for line in data.decode("ascii").split("\n")]
    return [line[:-1] for line in lines if line[-1:] == [_END]]


class Agent:
    """One start of the agent. `files` are the versions of what is there, `fresh` those that are not committed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.files = {path: version for top in (WORK, INNER) for path, version in found(Path(top)).items()}
        self.fresh = set(self.files)
        data = Path(JOURNAL).read_bytes() if Path(JOURNAL).exists() else b""
        self._number = max((int(line[0]) for line in parse_journal(data)), default=0)
        self._journal = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(self._journal, b"\n")  # the last line may be half written
        self.chance = random.Random(f"{seed}-from-{self.note('begin')}")

    def work(self) -> None:
        """One step."""
        step = self.chance.random()
        if step < 0.6 or len(self.files) < 5:
            self.write(f"{WORK}/{self._number + 1}", 0)
        elif step < 0.82:
            path = self._any_file()
            self.write(path, self.files[path] + 1)
        elif step < 0.92:
            self.rename(self._any_file())
        elif len(self._below(path := self._any_file())) > 1:  # of what is empty its last save stays
            self.delete(path)
        step = self.chance.random()
        if step < 0.08 and not Path(QUIET).exists():
            self.commit()
        elif step < 0.11:
            self.push()
        elif step < 0.125:
            self.side_branch()
        elif step < 0.14:
            self.inner()

    def note(self, verb: str, *words: str) -> int:
        """Write a line of the journal, with a number that was never there before."""
        self._number += 1
        os.write(self._journal, f"{' '.join((str(self._number), verb, *words, _END))}\n".encode())
        return self._number

    def write(self, path: str, version: int) -> None:
        self.note("write", path, str(version))
        _write(Path(path), content(self.seed, number_of(path), version))
        self._changed(path, version)

    def rename(self, path: str) -> None:
        top = path.partition("/")[0]
        new = f"{top}/moved/{number_of(path)}-{self._number + 1}"
        self.note("rename", path, new)
        Path(new).parent.mkdir(exist_ok=True)
        Path(path).rename(new)
        self._changed(new, self.files[path])
        self._gone(path)

    def delete(self, path: str) -> None:
        self.note("delete", path)
        Path(path).unlink()
        self._gone(path)

    def commit(self) -> None:
        self._commit("commit", WORK)

    def push(self) -> None:
        """By force at times, as after a salvage the branch has a commit that the agent does not have."""
        head, branch = _git("rev-parse", "HEAD"), _git("symbolic-ref", "HEAD")
        force = ("--force",) if self.chance.random() < 0.5 else ()
        if head and _git("push", "--quiet", *force, "local", f"{head}:{branch}") is not None:
            self.note("pushed", head)

    def side_branch(self) -> None:
        """A commit that HEAD's branch does not have, made without leaving it."""
        number = self._number = self._number + 1
        _write(Path(".git/side"), content(self.seed, number, 0))
        tree = _git("mktree", stdin=f"100644 blob {_git('hash-object', '-w', '.git/side')}\t{number}\n")
        commit = _git("commit-tree", str(tree), "-p", "HEAD", "-m", "beside")
        if commit and _git("branch", f"side-{number}", commit) is not None:
            self.note("side", commit, f"{number}=0")

    def inner(self) -> None:
        """A file in a repository of its own, committed there or not."""
        if _git("init", "--quiet", INNER) is None:  # again, if one was killed
            return
        self.write(f"{INNER}/{self._number + 1}", 0)
        if self.chance.random() < 0.5:
            self._commit("inner", INNER, "-C", INNER)

    def _commit(self, verb: str, top: str, *where: str) -> None:
        """All that is below `top`, in the repository that git finds with `where`."""
        paths = () if where else (top,)
        if _git(*where, "add", "--all", *paths) is None:
            return
        if _git(*where, "commit", "--quiet", "-m", "some work") is None:
            return
        commit = _git(*where, "rev-parse", "HEAD")
        if commit:
            mine = sorted(self.fresh.intersection(self._below(f"{top}/")))
            self.note(verb, commit, *(f"{path}={self.files[path]}" for path in mine))
            self.fresh.difference_update(mine)

    def _any_file(self) -> str:
        return self.chance.choice(sorted(self.files))

    def _below(self, path: str) -> list[str]:
        """The files of the repository of `path`."""
        top = path.partition("/")[0]
        return [other for other in self.files if other.startswith(f"{top}/")]

    def _changed(self, path: str, version: int) -> None:
        self.files[path] = version
        self.fresh.add(path)

    def _gone(self, path: str) -> None:
        del self.files[path]
        self.fresh.discard(path)


def found(top: Path) -> dict[str, int]:
    """The versions of the agent's files below `top`, by their paths from the directory above it."""
    files: dict[str, int] = {}
    for directory, within, names in os.walk(top):
        within[:] = [name for name in within if name != ".git"]
        for name in names:
            path = Path(directory, name)
            if not name.startswith("."):  # a draft of a writer that was killed
                with suppress(FileNotFoundError), path.open("rb") as file:
                    files[path.relative_to(top.parent).as_posix()] = int(file.read(40).split()[1])
    return files


def _plant(canary: str) -> None:
    """Everything that would touch `canary`, whose directory is the host's alone, if anybody ran it there."""
    evil = f"touch {canary}"
    hooks = Path(".git/hooks")
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "post-merge", "post-update", "update", "pre-receive", "pre-auto-gc"):
        _write(hooks / name, f"#!/bin/sh\n{evil}\n".encode())
        (hooks / name).chmod(0o755)
    for key in ("filter.evil.clean", "filter.evil.smudge", "core.sshCommand", "diff.evil.textconv",
                "core.alternateRefsCommand", "uploadpack.packObjectsHook"):  # fmt: skip
        _git("config", key, f"{evil} 2>/dev/null; cat")
    _write(Path(".gitattributes"), b"evil.* filter=evil diff=evil\n")
    _write(Path("evil.txt"), b"evil\n")


def _git(*args: str, stdin: str | None = None) -> str | None:
    """git's answer, None when it failed. A lock of a git that was killed is taken away, as a person would do."""
    done = subprocess.run(("git", *args), input=stdin, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout.strip()
    for lock in map(Path, _LOCK.findall(done.stderr)):
        with suppress(OSError):
            if time.time() - lock.stat().st_mtime > 1:
                lock.unlink()
    return None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(data)
    draft.replace(path)


def main() -> None:
    _plant(sys.argv[2])
    agent = Agent(int(sys.argv[1]))
    while True:
        agent.work()
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main()
