"""What the way back costs by the size of the work tree: automatic saves, pushes, bringing home, salvage."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rows import Row, milliseconds
from bench.user import User

_TIMES = 5
_AUTOSAVE_CPU_S = 0.5  # of one core at 100,000 files, each minute
_HOME_MS = 500.0
_SALVAGE_S = 3.0
_SALVAGE_S_A_FILE = 60e-6

# Run in the container. The first process reaps each automatic save, so its children's time is what they took.
_CPU = """
import os
fields = open("/proc/1/stat").read().rpartition(")")[2].split()
print((int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK"))
"""
_PUSH = """
import json, subprocess, sys, time
def git(*args):
    began = time.perf_counter()
    subprocess.run(("git", *args), check=True, capture_output=True)
    return (time.perf_counter() - began) * 1000
bare = "/home/agentuser/bench.git"
git("clone", "--quiet", "--bare", "--no-local", ".", bare)
taken = {"local": [], bare: []}
for number in range(%d):
    for remote, values in taken.items():
        open("f0/0.txt", "a").write("x")
        git("commit", "--quiet", "--all", "--message", "one file")
        values.append(git("push", "--quiet", remote, "HEAD"))
        time.sleep(0.5)
print(json.dumps(taken))
"""
_LAST_PUSH = """
import subprocess, time
open("f0/0.txt", "a").write("y")
subprocess.run(("git", "commit", "--quiet", "--all", "--message", "last"), check=True)
subprocess.run(("git", "push", "--quiet"), check=True)
print(time.time())
"""


def measure(user: User, *, files: int) -> Iterator[Row]:
    """One session on a repository of `files` small files, killed at the end."""
    repo = user.repository({f"f{n % 100}/{n}.txt": b"line %d\n" % n * 20 for n in range(files)})
    name = user.launch(repo, "--network-proxy", "restricted", "-d", "--", "sleep", "3600").strip()
    size = f"{files:,} files"
    user.run("diff", "--stat", name)  # the first one makes the index that the others live on
    for what, change in (("nothing changed", ""), ("one file changed", "echo x >> f1/1.txt")):
        yield Row(
            what=f"automatic save of {size}, {what}, CPU",
            value=_autosave_cpu_s(user, name, change),
            unit="s",
            max_value=_AUTOSAVE_CPU_S,
        )
    taken = json.loads(user.run("exec", name, "--", "python3", "-c", _PUSH % _TIMES))
    local, by_path = (sorted(values)[_TIMES // 2] for values in taken.values())
    yield Row(
        what=f"push of one file of {size}", value=local, unit="ms", against="push to a bare repository by path",
        baseline=by_path, max_ratio=1.3, slack=20.0,
    )  # fmt: skip
    yield Row(
        what=f"that push home in the repository, {size}", value=_home_ms(user, name, repo), unit="ms",
        max_value=_HOME_MS,
    )  # fmt: skip
    user.run("exec", name, "--", "sh", "-c", "echo z > new.txt")
    user.engine_run("kill", name)
    yield Row(
        what=f"salvage of {size} after a kill",
        value=milliseconds(lambda: user.run("recover", name)) / 1000,
        unit="s",
        max_value=_SALVAGE_S + _SALVAGE_S_A_FILE * files,
    )
    user.run("remove", name)


def _autosave_cpu_s(user: User, name: str, change: str) -> float:
    taken = []
    for _ in range(_TIMES):
        if change:
            user.run("exec", name, "--", "sh", "-c", change)
        before = float(user.run("exec", name, "--", "python3", "-c", _CPU))
        user.run("diff", "--stat", name)
        taken.append(float(user.run("exec", name, "--", "python3", "-c", _CPU)) - before)
    return sorted(taken)[_TIMES // 2]


def _home_ms(user: User, name: str, repo: Path) -> float:
    """From the end of a push in the container until the branch in the repository has moved."""
    branch = repo / ".git/refs/heads/demo/session-1"
    before = branch.read_text()
    moved = []

    def watch() -> None:
        deadline = time.monotonic() + 60
        while branch.read_text() == before and time.monotonic() < deadline:
            time.sleep(0.002)
        moved.append(time.time())

    watcher = threading.Thread(target=watch)
    watcher.start()
    pushed = float(user.run("exec", name, "--", "python3", "-c", _LAST_PUSH))
    watcher.join()
    return max(0.0, moved[0] - pushed) * 1000
