"""The engine is killed, or the whole machine loses its power: the next verb finds what there is, and nothing is lost.

On an engine of their own, so that nobody else's containers die. Block-level faults cannot be injected here: what a
SIGKILL of everything leaves in the page cache, a power cut may not leave on the disk.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.busy_oracle import assert_all_comes_home, assert_nothing_leaked
from support.busy_scene import Scene
from support.engines import EngineUnderTest
from support.faults import kill_supervisor, supervisors
from support.product import Product, git, wait_for
from support.second_engine import SecondEngine, second_engine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

SESSIONS = 4
CRASHES = 2


@pytest.fixture(scope="module")
def second(engine: EngineUnderTest) -> Iterator[SecondEngine]:
    if os.geteuid() != 0:
        pytest.skip("an engine of one's own needs root")
    with second_engine(engine.name) as made:
        yield made


@pytest.fixture
def elsewhere(product: Product, second: SecondEngine) -> Product:
    """The product on the second engine."""
    second.adopt(product)
    return product


def the_power_fails(product: Product, second: SecondEngine) -> None:
    """Nothing of ours survives either."""
    while supervisors(product):
        kill_supervisor(product)
    second.crash("host")


def test_a_session_is_found_again_after_the_machine_was_restarted(
    elsewhere: Product, second: SecondEngine, repo: Path
) -> None:
    """From session.json and the engine alone, with no process of ours left; with a network, whose addresses Podman
    does not take back by itself then."""
    product = elsewhere
    script = "echo c > c.txt; git add c.txt; git commit -qm mine; echo u > u.txt; touch .git/ok; sleep 600"
    name = product.launch_detached(repo, script, "--network-proxy", "allow-all", "--disk", "64m")
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent's files")
    the_power_fails(product, second)
    assert product.state(name) == "stopping"  # ended, and its work is not known to be home
    assert "not running" in product.run("pull", name, status=19).err
    product.run("recover", name)
    assert product.state(name) == "stopped"
    assert git(repo, "show", "demo/session-1:u.txt") == "u"
    assert product.session(name)["saved"]["verified"]
    product.run("start", name)
    assert product.exec(name, "cat u.txt").out == "u\n"
    product.run("stop", name)
    product.run("remove", name)
    assert product.leftovers() == []


def test_a_launch_whose_engine_dies_leaves_nothing(
    elsewhere: Product, second: SecondEngine, repo: Path
) -> None:
    product = elsewhere
    if product.engine == "podman":
        pytest.skip("Podman has no daemon to kill")
    idle = ("--", "sleep", "600")  # a launch that is faster than its engine's death has no work to bring home
    asked = ("--network-proxy", "restricted", "--disk", "64m")
    launch = product.start("launch", str(repo), "--agent", "demo", *asked, "-d", *idle)
    wait_for(lambda: product.engine_run("volume", "ls", "-q", check=False), "the launch to be under way")
    second.crash("engine")
    out, err = launch.communicate(timeout=120)
    assert "Traceback" not in err
    if launch.returncode == 0:  # it was faster
        product.run("remove", "--force", out.strip())
    else:
        assert err.startswith("error: ")
        product.run("prune")
    assert product.leftovers() == []
    assert str(product.home) not in Path("/proc/self/mountinfo").read_text()  # nor of its disk
    assert git(repo, "for-each-ref", "--format=%(refname)") == "refs/heads/main"


@pytest.mark.parametrize(
    ("crash", "seed"),
    [
        pytest.param(crash, seed, marks=() if (crash, seed) == ("host", 0) else pytest.mark.slow)
        for crash in ("engine", "host")
        for seed in range(SESSIONS)
    ],
)
def test_work_survives(elsewhere: Product, second: SecondEngine, repo: Path, crash: str, seed: int) -> None:
    """A Docker that comes back ends what ran meanwhile, in its own good time: two minutes for each crash of `engine`,
    which is why CI has a crash of the host alone."""
    product = elsewhere
    if product.engine == "podman" and crash == "engine":
        pytest.skip("Podman has no daemon to kill")
    chance = random.Random(f"{crash}-{seed}")
    scene = Scene(product, repo, seed)
    scene.launch(chance.choice(["allow-all", "restricted"]))
    for _ in range(CRASHES):
        time.sleep(chance.random() * 3)
        scene.look()
        if crash == "host":
            the_power_fails(product, second)
        else:
            second.crash("engine")
        scene.look()
        scene.revive(chance)
    assert_all_comes_home(scene)
    assert_nothing_leaked(scene)
