"""What a running session costs: its supervisor's memory and CPU, and a push of the agent."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rows import Row
from bench.user import User

_IDLE_S = 5.0
_PUSHES = 9
# Runs in the container: pushes each new commit to the relay and to a bare repository beside the work, in turn.
# The pause lets the host's part of the last push end, which the agent does not wait for.
_PUSH_SCRIPT = """
import json, statistics, subprocess, time
def git(*args):
    began = time.perf_counter()
    subprocess.run(("git", *args), check=True, capture_output=True)
    return (time.perf_counter() - began) * 1000
bare = "/home/agentuser/bench.git"
git("init", "--quiet", "--bare", bare)
taken = {"local": [], bare: []}
for number in range(%d):
    for remote, values in taken.items():
        git("commit", "--quiet", "--allow-empty", "--message", f"{number}")
        values.append(git("push", "--quiet", remote, "HEAD"))
        time.sleep(0.5)
print(json.dumps([statistics.median(values) for values in taken.values()]))
"""


def measure(user: User) -> Iterator[Row]:
    """One session serves all; it does nothing by itself."""
    repo = user.repository({"README.md": b"hello\n"})
    name = user.launch(repo, "--network-proxy", "restricted", "-d", "--", "sleep", "600").strip()
    time.sleep(1.0)  # what belongs to the start
    processes = _with_children(_supervisor(user.home))
    yield Row(
        what=f"supervisor and its {len(processes) - 1} steady child(ren), PSS",
        value=sum(_pss_bytes(pid) for pid in processes) / 1e6,
        unit="MB",
        max_value=35.0,
    )
    before = sum(map(_cpu_s, processes))
    time.sleep(_IDLE_S)
    idle = (sum(map(_cpu_s, processes)) - before) / _IDLE_S
    yield Row(what="the same, CPU while idle", value=idle * 100, unit="% of one CPU", max_value=0.5)
    output = user.run("exec", name, "--", "python3", "-c", _PUSH_SCRIPT % _PUSHES)
    local, by_path = json.loads(output)
    yield Row(
        what="push to `local`",
        value=local,
        unit="ms",
        against="push to a bare repository by path",
        baseline=by_path,
        max_ratio=1.3,
        slack=20.0,
    )
    user.run("remove", "--force", name)


def _supervisor(home: Path) -> int:
    """The process id of the only supervisor of this user."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        if b"coding_agents.supervisor" in words and any(word.startswith(os.fsencode(home)) for word in words):
            return int(process.name)
    raise SystemExit("the session has no supervisor")


def _with_children(pid: int) -> list[int]:
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            found += _with_children(int(child))
    return found


def _pss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
