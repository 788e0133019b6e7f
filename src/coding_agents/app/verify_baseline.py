"""For contrast: the same attacks in containers as everybody starts them. Nothing but a directory of ours is mounted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from coding_agents.app.verify_inside import attempt_all
from coding_agents.app.verify_place import Place
from coding_agents.app.verify_targets import StandIns, knock, knocked
from coding_agents.engine.cli import CliEngine
from coding_agents.engine.unguarded import Plain, addresses_of, run_plain
from coding_agents.sandbox.spec import AGENT_USER, ROOT_USER
from coding_agents.verify.model import Evidence, Found
from coding_agents.verify.scene import bare_attempts

STOCK: Final = "a stock container, as an ordinary user"
COMMON: Final = "common practice: as root, with the repository mounted"

_SLEEP: Final = ("sleep", "600")
_PROTOCOLS: Final = ("tcp", "udp", "icmp")


class _Arm(msgspec.Struct, frozen=True):
    user: str
    shared: Path | None = None


def contrast(
    engine: CliEngine, image: str, place: Place, stand_ins: StandIns | None, labels: Mapping[str, str]
) -> dict[str, Evidence]:
    """Evidence of each arm, by what it is called. Raises EngineError; who made `labels` removes what has them."""
    arms = {STOCK: _Arm(AGENT_USER), COMMON: _Arm(ROOT_USER, _shared(place))}
    return {name: _attack(engine, image, place, stand_ins, labels, arm) for name, arm in arms.items()}


def _shared(place: Place) -> Path:
    """A work tree as people mount it: with its settings, and the file that they keep tokens in."""
    directory = place.env.home / "mounted"
    (directory / ".git").mkdir(parents=True)
    for name in (".env", ".git/config", "README.md"):
        (directory / name).write_bytes((place.repo / name).read_bytes())
    return directory


def _attack(
    engine: CliEngine,
    image: str,
    place: Place,
    stand_ins: StandIns | None,
    labels: Mapping[str, str],
    arm: _Arm,
) -> Evidence:
    container = run_plain(
        engine, Plain(image=image, argv=_SLEEP, labels=labels, user=arm.user, shared=arm.shared)
    )
    inside = attempt_all(engine, container, bare_attempts(place.scene), user=arm.user)
    if stand_ins is None:
        return inside
    networks = addresses_of(engine, container)
    subnets = tuple(subnet for name in networks for subnet in engine.network_subnets(name))
    targets = stand_ins.aimed_at(subnets)
    knocks = attempt_all(engine, container, {one: knock(one, targets) for one in _PROTOCOLS}, user=arm.user)
    reached = {one: stand_ins.reached(targets, one) for one in _PROTOCOLS}
    return {**inside, **{name: _stopped(one) for name, one in knocked(knocks, reached, targets).items()}}


def _stopped(found: Found) -> Found:
    """Here it counts as stopped, too, when there was no answer: an engine drops what passes between its networks."""
    if not isinstance(found.value, dict):
        return found
    lenient = {
        name: one if one[0] != "silent" else ["refused", 0.0, "silence"] for name, one in found.value.items()
    }
    return Found(lenient, ms=found.ms)
