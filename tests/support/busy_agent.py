"""The agent of the kill tests: it writes, commits and pushes without pause, and can be told what it wrote.

Runs in the container as `python3 -c SOURCE SEED CANARY`, again and again in one workspace; standard library only.
File N of the work has the bytes `content(seed, N)` and appears whole, so that whoever sees its name knows it.
What it has committed it writes to `.git/committed`, one id a line. It never takes anything back.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

WORK = "w"
INNER = "inner"
COMMITTED = ".git/committed"
MARK = ".git/busy"  # there while the agent is at work
_PAUSE_S = 0.03


def content(seed: int, number: int) -> bytes:
    """The bytes of file `number`: mostly short, sometimes a quarter of a megabyte, never the same twice."""
    chance = random.Random(f"{seed}-{number}")
    size = chance.randrange(1 << 18) if chance.random() < 0.03 else chance.randrange(2000)
    block = hashlib.sha256(f"{seed}-{number}".encode()).digest()
    return b"%d\n" % number + (block * (size // len(block) + 1))[:size]


def main() -> None:
    seed, canary = int(sys.argv[1]), sys.argv[2]
    _plant(canary)
    number = _next_number()
    chance = random.Random(f"{seed}-from-{number}")
    Path(MARK).touch()
    while True:
        _write(Path(WORK, str(number)), content(seed, number))
        step = chance.random()
        if step < 0.08:
            _git("add", WORK)
            _commit("some work")
        elif step < 0.11:
            _git("push", "--quiet")
        elif step < 0.125:
            _side_branch(seed, number := number + 1)
        elif step < 0.14:
            _inner(seed, number := number + 1)
        number += 1
        time.sleep(_PAUSE_S)


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


def _next_number() -> int:
    """Where the agent of an earlier start has come to: beyond every file that it wrote or was about to write."""
    there = [int(path.name) for path in (*Path(WORK).glob("[0-9]*"), *Path(INNER).glob("[0-9]*"))]
    sides = _git("for-each-ref", "--format=%(refname:short)", "refs/heads/side-*").split()
    there += [int(name.removeprefix("side-")) for name in sides]
    return max(there, default=0) + 2


def _side_branch(seed: int, number: int) -> None:
    """A commit that HEAD's branch does not have, made without leaving it."""
    _write(Path(".git/side"), content(seed, number))
    blob = _git("hash-object", "-w", ".git/side")
    tree = _git("mktree", stdin=f"100644 blob {blob}\t{number}\n")
    commit = _git("commit-tree", tree, "-p", "HEAD", "-m", "beside")
    if commit and _git("branch", f"side-{number}", commit, failed="failed") == "":
        _note(commit)


def _inner(seed: int, number: int) -> None:
    """A file in a repository of its own, committed there or not."""
    if not Path(INNER, ".git").exists():
        _git("init", "--quiet", INNER)
    _write(Path(INNER, str(number)), content(seed, number))
    if number % 2:
        _git("-C", INNER, "add", ".")
        _git("-C", INNER, "commit", "--quiet", "-m", "inside")


def _commit(message: str) -> None:
    if _git("commit", "--quiet", "-m", message, failed="failed") == "":
        _note(_git("rev-parse", "HEAD"))


def _note(commit: str) -> None:
    with Path(COMMITTED).open("a") as file:
        file.write(f"{commit}\n")


def _git(*args: str, stdin: str | None = None, failed: str = "") -> str:
    """git's answer, or `failed`. A lock of a git that was killed is taken away, as a person would do."""
    done = subprocess.run(("git", *args), input=stdin, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout.strip()
    if ".lock" in done.stderr:
        for lock in (*Path(".git").glob("**/*.lock"), *Path(INNER).glob(".git/**/*.lock")):
            with suppress(OSError):
                if time.time() - lock.stat().st_mtime > 1:
                    lock.unlink()
    return failed


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(data)
    draft.replace(path)


if __name__ == "__main__":
    main()
