"""SIGKILL at random moments for everybody in turn, under load: nothing is lost, executed or left behind.

Each session is hit five times. Thirty kills run in CI, three hundred with `./dev test --full`; a seed and an engine
name one sequence for good, as far as a busy machine can repeat one.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from support.kills import TARGETS, VERBS, Scene, assert_all_is_home, assert_nothing_leaked, kill_one
from support.product import Product

pytestmark = pytest.mark.engine

KILLS = 5
SESSIONS = 60
IN_CI = {"docker": 6, "podman": 2}

# A deck that is dealt out, so that thirty kills hit everybody, and not some twice and others never.
_DECK = [*TARGETS, *VERBS]


def victims(seed: int) -> list[str]:
    """Whom the session of `seed` loses, in order."""
    first = seed * KILLS
    rounds = {number // len(_DECK) for number in range(first, first + KILLS)}
    decks = {number: random.Random(number).sample(_DECK, len(_DECK)) for number in rounds}
    return [decks[number // len(_DECK)][number % len(_DECK)] for number in range(first, first + KILLS)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=() if seed < IN_CI["docker"] else pytest.mark.slow)
        for seed in range(SESSIONS)
    ],
)
def test_random_kills_lose_nothing(product: Product, repo: Path, seed: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("killing what runs in a container, and reading its volume, needs root")
    if product.engine == "podman" and IN_CI["podman"] <= seed < IN_CI["docker"]:
        pytest.skip("these run on Docker; `./dev test --full` has others for Podman")
    chance = random.Random(seed)
    scene = Scene(product, repo, seed)
    targets = victims(seed)
    scene.launch("allow-all" if "holder" in targets or seed % 2 else "restricted")
    session = product.session(scene.name)["id"]
    for number, target in enumerate(targets):
        kill_one(scene, target, chance)
        if number < KILLS - 1:
            scene.revive(chance)
    scene.look()
    product.run("stop", scene.name)
    scene.look()
    assert product.run("audit", "verify", "--session", scene.name).status == 0
    product.run("remove", scene.name)
    assert len(scene.killed) >= KILLS - 1, scene.killed  # git may be between two calls for once
    assert_all_is_home(scene)
    assert_nothing_leaked(scene, session)
