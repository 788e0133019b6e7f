"""SIGKILL at random moments for everybody in turn, under load: nothing is lost, executed or left behind.

Each session is hit exactly five times. On Docker thirty kills run in CI and three hundred with `./dev test --full`; on
Podman, which is slow, ten and fifty. A seed and an engine name one sequence for good, as far as a busy machine can
repeat one. Some sessions run beside a load of the machine's processors and disk, and some lose their volume at last:
what was pushed or was said to be saved is home even so.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from support.busy_agent import QUIET
from support.busy_oracle import assert_all_comes_home, assert_nothing_leaked, assert_promises_are_kept
from support.busy_scene import Scene
from support.faults import kill_supervisor
from support.kills import TARGETS, VERBS, kill_one
from support.load import busy_machine
from support.product import Product, wait_for

pytestmark = pytest.mark.engine

KILLS = 5
SESSIONS = 60
SAVES = 3
IN_CI = 6
ON_PODMAN = (0, 1, *range(IN_CI, IN_CI + 8))

# A deck that is dealt out, so that thirty kills hit everybody, and not some twice and others never.
_DECK = [*TARGETS, *VERBS]


def victims(seed: int) -> list[str]:
    """Whom the session of `seed` loses, in order."""
    first = seed * KILLS
    rounds = {number // len(_DECK) for number in range(first, first + KILLS)}
    decks = {number: random.Random(number).sample(_DECK, len(_DECK)) for number in rounds}
    return [decks[number // len(_DECK)][number % len(_DECK)] for number in range(first, first + KILLS)]


def is_loaded(seed: int) -> bool:
    """Whether the machine is busy with something else beside the session of `seed`."""
    return seed % 3 == 1


def loses_its_disk(seed: int) -> bool:
    """Whether the session of `seed` ends with the loss of its volume."""
    return seed % 6 == 5


def has_its_own_disk(seed: int) -> bool:
    """Whether the session of `seed` has a file system of its own, which is mounted for moments."""
    return seed % 6 == 2


def _mark(seed: int) -> pytest.MarkDecorator | tuple[()]:
    """In CI all kills hit on Docker, and the first sequence on Podman; the rest of both is for `--full`."""
    return pytest.mark.slow if seed >= IN_CI else pytest.mark.alike if seed else ()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=_mark(seed)) for seed in range(SESSIONS)],
)
def test_random_kills_lose_nothing(product: Product, repo: Path, seed: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("killing what runs in a container, and reading its volume, needs root")
    if product.engine == "podman" and seed not in ON_PODMAN:
        pytest.skip("this one runs on Docker")
    began = time.monotonic()
    with busy_machine(product.home) if is_loaded(seed) else nullcontext():
        scene = Scene(product, repo, seed)
        chance = random.Random(seed)
        targets = victims(seed)
        disk = ("--disk", "256m") if has_its_own_disk(seed) else ()
        scene.launch("allow-all" if "holder" in targets or seed % 2 else "restricted", *disk)
        for number, target in enumerate(targets):
            kill_one(scene, target, chance)
            if number < KILLS - 1 or loses_its_disk(seed):
                scene.revive(chance)
        if loses_its_disk(seed):
            lose_the_disk(scene, chance)
        else:
            assert_all_comes_home(scene)
        assert_nothing_leaked(scene)
    assert len(scene.killed) == KILLS
    took = f"{time.monotonic() - began:.1f} s"
    print(f"{product.engine} {seed}: {took}, {len(scene.journal)} steps, {scene.killed}")


def lose_the_disk(scene: Scene, chance: random.Random) -> None:
    """After verbs have said that all is saved, the volume is lost; at times while the product sees to its end.

    What `diff` has saved is in the relay alone then.
    The agent edits for a while without a commit: one save begins with the index of the one before then.
    """
    (scene.volume / QUIET).touch()
    for verb in (*chance.choices(["pull", "diff"], k=SAVES - 1), "diff" if scene.seed % 4 == 1 else "pull"):
        wait_for(lambda verb=verb: scene.save(verb), "a save")
        time.sleep(chance.random())
    if chance.random() < 0.5:
        kill_supervisor(scene.product)
    scene.lose_the_disk()
    scene.product.run("audit", "verify", "--session", scene.name)
    if chance.random() < 0.5:
        scene.product.run("recover", scene.name)
    scene.product.run("remove", scene.name)
    assert_promises_are_kept(scene)
