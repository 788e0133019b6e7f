"""Kills for the kill tests: who can be hit, and when."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from support.busy_scene import Scene
from support.faults import supervisors
from support.processes import Victim, command_line, namespace, parent, pids

_REACH_S = 4.0  # how long a kill waits for its victim to be there
_SETTLE_S = 120.0


def container_pids(scene: Scene, role: str) -> list[int]:
    """The first process of this session's container of a role ("agent", "holder", "helper"), as the host counts."""
    nonce = scene.product.session(scene.name)["nonce"]
    labels = (f"label=coding-agents.nonce={nonce}", f"label=coding-agents.type={role}")
    filters = [word for label in labels for word in ("--filter", label)]
    ids = scene.product.engine_run("ps", "--quiet", "--no-trunc", *filters).split()
    told = [
        scene.product.engine_run("inspect", "--format", "{{.State.Pid}}", one, check=False) for one in ids
    ]
    return [int(pid) for pid in told if pid.strip().isdecimal() and int(pid)]


def inside(scene: Scene) -> Iterator[tuple[int, str]]:
    """Every process in the agent's container but its first, with its command line."""
    for first in container_pids(scene, "agent"):
        here = namespace(first)
        for pid in pids():
            if pid != first and here and namespace(pid) == here:
                yield pid, command_line(pid)


def below_supervisor(scene: Scene) -> Iterator[tuple[int, str]]:
    """Every process that descends from this user's supervisors, with its command line."""
    parents = {pid: parent(pid) for pid in pids()}
    mine = set(supervisors(scene.product))
    while more := {pid for pid, above in parents.items() if above in mine} - mine:
        mine |= more
    for pid in mine - set(supervisors(scene.product)):
        yield pid, command_line(pid)


def _agent(scene: Scene) -> list[int]:
    return [pid for pid, line in inside(scene) if line.startswith("python3 -c")]


def _guest_git(scene: Scene) -> list[int]:
    return [pid for pid, line in inside(scene) if line.startswith(("git ", "/usr/lib/git-core/git"))]


def _bridge(scene: Scene) -> list[int]:
    return [pid for pid, line in inside(scene) if " bridge" in line]


def _autosaver(scene: Scene) -> list[int]:
    """The entry point's forked child, while a `pull` has it save."""
    scene.verbs.append(scene.product.start("pull", scene.name))
    return _when_there(lambda: [pid for pid, line in inside(scene) if "entrypoint" in line])


def _host_git(scene: Scene) -> list[int]:
    return [
        pid for pid, line in below_supervisor(scene) if line.partition(" ")[0].rpartition("/")[2] == "git"
    ]


def _engine_client(scene: Scene) -> list[int]:
    return [pid for pid, line in below_supervisor(scene) if f"{scene.product.engine} " in line]


def _salvage(scene: Scene) -> list[int]:
    _end_agent(scene)
    return _when_there(lambda: container_pids(scene, "helper"))


def _salvage_client(scene: Scene) -> list[int]:
    _end_agent(scene)
    return _when_there(
        lambda: [
            pid for pid, line in below_supervisor(scene) if "start --attach" in line or "start -a" in line
        ]
    )


def _end_agent(scene: Scene) -> None:
    for pid in container_pids(scene, "agent"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _settling_supervisor(scene: Scene) -> list[int]:
    _end_agent(scene)
    return supervisors(scene.product)


TARGETS: dict[str, Callable[[Scene], list[int]]] = {
    "agent": _agent,
    "entry point": lambda scene: container_pids(scene, "agent"),
    "git inside": _guest_git,
    "bridge": _bridge,
    "autosaver": _autosaver,
    "supervisor": lambda scene: supervisors(scene.product),
    "supervisor that settles": _settling_supervisor,
    "git outside": _host_git,
    "engine client": _engine_client,
    "holder": lambda scene: container_pids(scene, "holder"),
    "salvage": _salvage,
    "salvage client": _salvage_client,
}
VERBS = ("pull", "diff", "exec", "stop", "recover", "start", "list", "review")


def kill_one(scene: Scene, target: str, chance: random.Random) -> None:
    """SIGKILL for one process of `target` after a random time, or for the user's own `target` verb.

    Where nobody of the kind is to be found, somebody else is hit.
    """
    time.sleep(chance.random() * 2)
    while not (_kill_verb if target in VERBS else _kill_process)(scene, target, chance):
        target = chance.choice([other for other in (*TARGETS, *VERBS) if other != target])
    scene.killed.append(target)


def _kill_verb(scene: Scene, target: str, chance: random.Random) -> bool:
    """Earlier from time to time, until it was killed indeed and had not ended before."""
    longest_s = 1.5
    while True:
        if target in ("recover", "start"):
            scene.product.run("stop", scene.name)
        command = (target, scene.name) if target != "list" else (target,)
        scene.look()
        verb = scene.product.start(*command, *(("--", "sleep", "1") if target == "exec" else ()))
        began = time.monotonic()
        try:
            verb.wait(timeout=chance.random() * longest_s)
        except subprocess.TimeoutExpired:
            os.killpg(verb.pid, signal.SIGKILL)
        longest_s = time.monotonic() - began
        verb.communicate()
        if verb.returncode == -signal.SIGKILL:
            return True


def _kill_process(scene: Scene, target: str, chance: random.Random) -> bool:
    found = TARGETS[target](scene)
    victim = Victim(chance.choice(found)) if found else None
    if victim is not None and target in ("salvage", "salvage client", "supervisor that settles"):
        time.sleep(chance.random())
    scene.look()
    hit = victim is not None and victim.kill()
    while scene.verbs:
        scene.verbs.pop().communicate(timeout=_SETTLE_S)
    return hit


def _when_there(find: Callable[[], list[int]]) -> list[int]:
    """What `find` finds as soon as that is something; nothing when it stays away."""
    deadline = time.monotonic() + _REACH_S
    while not (found := find()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found
