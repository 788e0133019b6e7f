"""Kills for the kill tests: who can be hit, when, and the oracle that knows what must come home.

The oracle is independent of the product: right before each kill it reads from the session's volume which files
the busy agent has made and what it has committed. A file that can be seen is whole, and its bytes are known by its
number; all of it must be in the user's repository when the session has been removed.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from support import busy_agent
from support.busy_agent import COMMITTED, INNER, MARK, WORK, content
from support.faults import supervisors
from support.product import Product, git, wait_for

_REACH_S = 8.0  # how long a kill waits for its victim to be there
_SETTLE_S = 120.0
_STALE_S = 10.0  # how long `list` may call running what has been killed


@dataclass
class Scene:
    """A session with a busy agent in it, and what its volume has been seen to hold."""

    product: Product
    repo: Path
    seed: int
    name: str = ""
    files: set[str] = field(default_factory=set)
    commits: set[str] = field(default_factory=set)
    killed: list[str] = field(default_factory=list)
    verbs: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def canary(self) -> Path:
        """In a directory that only the host has."""
        return self.product.home / "EXECUTED"

    def launch(self, network: str) -> None:
        agent = (Path(busy_agent.__file__).read_text(), str(self.seed), str(self.canary))
        options = ("--agent", "demo", "--network-proxy", network, "-d")
        done = self.product.run("launch", str(self.repo), *options, "--", "python3", "-c", *agent)
        self.name = done.out.strip()
        self.wait_until_busy()

    @property
    def volume(self) -> Path:
        """The session's work tree as the host's root sees it."""
        volume = self.product.session(self.name)["volumes"]["workspace"]
        return Path(
            self.product.engine_run("volume", "inspect", "--format", "{{.Mountpoint}}", volume).strip()
        )

    def wait_until_busy(self) -> None:
        """Until the agent of this start has begun and written something."""
        volume = self.volume
        wait_for((volume / MARK).exists, "the agent to be at work", timeout_s=_SETTLE_S)
        before = self._visible(volume)
        wait_for(lambda: self._visible(volume) - before, "the agent to write", timeout_s=_SETTLE_S)

    def look(self) -> None:
        """Remember what is in the volume now."""
        volume = self.volume
        self.files |= self._visible(volume)
        with suppress(FileNotFoundError):
            # The last line may be half written; what is whole was committed before.
            self.commits |= set((volume / COMMITTED).read_text().split("\n")[:-1])

    def _visible(self, volume: Path) -> set[str]:
        found = set()
        for directory in (WORK, INNER):
            with suppress(FileNotFoundError):
                names = {path.name for path in (volume / directory).iterdir()}
                found |= {f"{directory}/{name}" for name in names if name.isdecimal()}
        return found

    def revive(self, chance: random.Random) -> None:
        """What a person does after a kill: a verb or two, and the session runs on."""
        verb = chance.choice([("exec", self.name, "--", "true"), ("pull", self.name), ("diff", self.name)])
        deadline = time.monotonic() + _STALE_S
        while self.state() == "running":  # also when the end of a killed agent is still under way
            done = self.product.run(*verb, status=None)
            if done.status == 0 and self.state() == "running":
                return
            assert time.monotonic() < deadline, f"{verb} does not work after {self.killed}: {done}"
        if chance.random() < 0.5:
            self.product.run("wait", self.name, status=None)
        if chance.random() < 0.5:
            self.product.run("recover", self.name)
        self._remove_mark()
        self.product.run("start", self.name)
        self.wait_until_busy()

    def state(self) -> str:
        return self.product.state(self.name)

    def _remove_mark(self) -> None:
        with suppress(FileNotFoundError):
            (self.volume / MARK).unlink()

    # --- processes ---------------------------------------------------------------------------------------------

    def container_pid(self, role: str) -> list[int]:
        """The first process of this session's container of a role ("agent", "holder", "helper"), as the host counts."""
        nonce = self.product.session(self.name)["nonce"]
        labels = (f"label=coding-agents.nonce={nonce}", f"label=coding-agents.type={role}")
        filters = [word for label in labels for word in ("--filter", label)]
        ids = self.product.engine_run("ps", "--quiet", "--no-trunc", *filters).split()
        told = [
            self.product.engine_run("inspect", "--format", "{{.State.Pid}}", one, check=False) for one in ids
        ]
        return [int(pid) for pid in told if pid.strip().isdecimal() and int(pid)]

    def inside(self) -> Iterator[tuple[int, str]]:
        """Every process in the agent's container but its first, with its command line."""
        for first in self.container_pid("agent"):
            namespace = _namespace(first)
            for pid in _pids():
                if pid != first and namespace and _namespace(pid) == namespace:
                    yield pid, _command_line(pid)

    def below_supervisor(self) -> Iterator[tuple[int, str]]:
        """Every process that descends from this user's supervisors, with its command line."""
        parents = {pid: _parent(pid) for pid in _pids()}
        mine = set(supervisors(self.product))
        while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
            mine |= more
        for pid in mine - set(supervisors(self.product)):
            yield pid, _command_line(pid)


def _agent(scene: Scene) -> list[int]:
    return [pid for pid, line in scene.inside() if line.startswith("python3 -c")]


def _guest_git(scene: Scene) -> list[int]:
    return [pid for pid, line in scene.inside() if line.startswith(("git ", "/usr/lib/git-core/git"))]


def _bridge(scene: Scene) -> list[int]:
    return [pid for pid, line in scene.inside() if " bridge" in line]


def _autosaver(scene: Scene) -> list[int]:
    """The entry point's forked child, while a `pull` has it save."""
    scene.verbs.append(scene.product.start("pull", scene.name))
    return _when_there(lambda: [pid for pid, line in scene.inside() if "entrypoint" in line])


def _host_git(scene: Scene) -> list[int]:
    return [
        pid for pid, line in scene.below_supervisor() if line.partition(" ")[0].rpartition("/")[2] == "git"
    ]


def _engine_client(scene: Scene) -> list[int]:
    return [pid for pid, line in scene.below_supervisor() if f"{scene.product.engine} " in line]


def _salvage(scene: Scene) -> list[int]:
    _kill(scene.container_pid("agent"))
    return _when_there(lambda: scene.container_pid("helper"))


def _salvage_client(scene: Scene) -> list[int]:
    _kill(scene.container_pid("agent"))
    return _when_there(
        lambda: [
            pid for pid, line in scene.below_supervisor() if "start --attach" in line or "start -a" in line
        ]
    )


def _settling_supervisor(scene: Scene) -> list[int]:
    _kill(scene.container_pid("agent"))
    return supervisors(scene.product)


TARGETS: dict[str, Callable[[Scene], list[int]]] = {
    "agent": _agent,
    "entry point": lambda scene: scene.container_pid("agent"),
    "git inside": _guest_git,
    "bridge": _bridge,
    "autosaver": _autosaver,
    "supervisor": lambda scene: supervisors(scene.product),
    "supervisor that settles": _settling_supervisor,
    "git outside": _host_git,
    "engine client": _engine_client,
    "holder": lambda scene: scene.container_pid("holder"),
    "salvage": _salvage,
    "salvage client": _salvage_client,
}
VERBS = ("pull", "diff", "exec", "stop", "recover", "start", "list", "review")


def kill_one(scene: Scene, target: str, chance: random.Random) -> None:
    """SIGKILL for one process of `target` after a random time, or for the user's own `target` verb."""
    time.sleep(chance.random() * 2)
    scene.look()
    if target in VERBS:
        if target in ("recover", "start"):
            scene.product.run("stop", scene.name)
        command = (target, scene.name) if target != "list" else (target,)
        verb = scene.product.start(*command, *(("--", "sleep", "1") if target == "exec" else ()))
        time.sleep(chance.random() * 1.5)
        with suppress(ProcessLookupError):
            os.killpg(verb.pid, signal.SIGKILL)
        verb.communicate()
    else:
        victims = _when_there(lambda: TARGETS[target](scene))
        if target in ("salvage", "salvage client", "supervisor that settles"):
            time.sleep(chance.random())
        scene.look()
        _kill([chance.choice(victims)] if victims else [])
        while scene.verbs:
            scene.verbs.pop().communicate(timeout=_SETTLE_S)
        if not victims:
            return
    scene.killed.append(target)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _when_there(find: Callable[[], list[int]]) -> list[int]:
    """What `find` finds as soon as that is something; nothing when it stays away."""
    deadline = time.monotonic() + _REACH_S
    while not (found := find()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _namespace(pid: int) -> str:
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    return ""


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).replace("\0", " ")
    return ""


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    return 0


# --- the oracle ------------------------------------------------------------------------------------------------


def assert_all_is_home(scene: Scene) -> None:
    """Every file and commit that was seen is in the user's repository, byte for byte, below some ref."""
    there = set()
    for ref in git(scene.repo, "for-each-ref", "--format=%(refname)").split():
        for line in git(scene.repo, "ls-tree", "-r", ref).splitlines():
            info, _, path = line.partition("\t")
            there.add((path.rpartition("/")[2], info.split()[2]))
    missing = [path for path in sorted(scene.files) if _blob(scene.seed, path) not in there]
    assert not missing, f"{len(missing)} of {len(scene.files)} files are lost: {missing[:9]} ({scene.killed})"
    lost = scene.commits - set(git(scene.repo, "rev-list", "--all").split())
    assert not lost, f"{len(lost)} of {len(scene.commits)} commits are lost ({scene.killed})"


def _blob(seed: int, path: str) -> tuple[str, str]:
    name = path.rpartition("/")[2]
    data = content(seed, int(name))
    return name, hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def assert_nothing_leaked(scene: Scene, session_id: str) -> None:
    """No process, engine object or file of the session is left, and the user's repository is as it was."""
    marks = (session_id, f" {scene.name} ", str(scene.product.home / ".local"))

    def alive() -> list[str]:
        return [line for pid in _pids() if any(mark in (line := _command_line(pid)) for mark in marks)]

    wait_for(lambda: not alive(), f"processes to end: {alive()}", timeout_s=20.0)
    assert scene.product.leftovers() == []
    assert list(scene.product.sessions_dir.glob("*")) == []
    assert list((scene.repo / ".git").rglob("*.lock")) == []
    assert git(scene.repo, "status", "--porcelain") == ""
    assert git(scene.repo, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(scene.repo, "fsck", "--full", "--strict", "--no-dangling") == ""
    assert not scene.canary.exists(), "something that the agent planted was executed"
