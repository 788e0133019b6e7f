"""A new version of an agent does a task in a real session before it counts; Claude Code's, from npm itself, too."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from functools import partial
from pathlib import Path

import pytest

from coding_agents.app.images import build_settings
from coding_agents.app.trial import try_agent
from coding_agents.app.update import Updater
from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import load_settings
from coding_agents.errors import EngineError, ImageUpdateError
from coding_agents.images.build import ensure_image
from coding_agents.images.manifests import find_agent, load_manifest
from coding_agents.images.recipes import agent_ref
from support.engines import EngineUnderTest
from support.host import host_environment
from support.own_agent import add_own_agent
from support.product import ROOT, Product
from support.second_engine import SecondEngine, second_engine

pytestmark = pytest.mark.engine

SRI = "sha512-" + "A" * 86 + "=="
CANARY = "a-real-key-of-the-host"


def npm(newest: str, specs: Sequence[str]) -> list[bytes]:
    """An npm whose newest version of everything is `newest`."""
    found = ({"name": spec.partition("@")[0], "version": newest, "dist.integrity": SRI} for spec in specs)
    return [json.dumps(one).encode() for one in found]


@pytest.fixture
def own(engine: EngineUnderTest, product: Product) -> Iterator[tuple[str, HostEnvironment]]:
    """An agent of the user's own at version 1.0.0, with its image, and the user's environment."""
    if engine.name != "docker":
        pytest.skip("on Docker only, to keep the run short")
    name = f"own-{uuid.uuid4().hex[:8]}"
    env = host_environment(product.home, **{**product.env, "OWN_API_KEY": CANARY})
    add_own_agent(env.agents_dir, name, version="1.0.0", integrity=SRI)
    ensure_image(engine.api, name, build_settings(env, load_settings(env), lambda line: None))
    yield name, env
    for tag in ("local", "previous", "candidate"):
        with suppress(EngineError):
            engine.api.remove_image(agent_ref(name, tag))


def test_only_a_version_that_does_its_task_takes_the_others_place(
    engine: EngineUnderTest, product: Product, repo: Path, own: tuple[str, HostEnvironment]
) -> None:
    name, env = own
    local = agent_ref(name)

    def updater(newest: str) -> Updater:
        return Updater(
            env=env,
            engine=engine.api,
            builds=build_settings(env, load_settings(env), lambda line: None),
            view=partial(npm, newest),
            check=partial(try_agent, env, engine.api, time_limit_s=2 if newest == "2.2.0" else 120),
            today=date(2026, 11, 29),
        )

    def version() -> str:
        return find_agent(name, env.agents_dir, env.pins_dir).manifest.packages["own"].version

    first = engine.api.image_id(local)
    for newest, why in (
        ("2.0.0", "did not ask its model"),
        ("2.1.0", "ran a program that the repository lists"),
        ("2.2.0", "did not end in 2 s"),
    ):
        with pytest.raises(ImageUpdateError, match=f"fails its check: it {why}") as caught:
            updater(newest).update(name)
        assert CANARY not in caught.value.details
        assert (version(), engine.api.image_id(local)) == ("1.0.0", first)
        assert engine.api.image_id(agent_ref(name, "candidate")) is None
        if newest == "2.0.0":
            assert "all is well" in caught.value.details
    assert updater("1.1.0").update(name).state == "updated"
    assert version() == "1.1.0"
    assert engine.api.image_id(local) != first
    assert engine.api.image_id(agent_ref(name, "previous")) == first
    # Of the checks nothing is left but their audit logs.
    assert product.run("list", "-a", "--json").json == []
    labels = {"coding-agents.agent": name}
    assert engine.api.find(labels) == ()
    assert engine.api.list_volumes(labels) == ()
    second = engine.api.image_id(local)
    assert second is not None
    updater("1.1.0").roll_back(name)
    assert (version(), engine.api.image_id(local)) == ("1.0.0", first)
    engine.api.remove_image(second)  # as `images prune` would
    # A launch takes what is in force, and tells that it is old: the manifest's pin is of a day long ago.
    launch = ("launch", str(repo), "--agent", name, "--network-proxy", "restricted", "--rm")
    launched = product.run(*launch, "--", "cat", "/opt/version")
    assert launched.out == "1.0.0\n"
    assert f"{name} was pinned " in launched.err


@contextmanager
def uplink(engine: SecondEngine) -> Iterator[None]:
    """A way to the outside for as long as images are built."""
    tool = ROOT / "tools/test-engine"
    subprocess.run((tool, "uplink", engine.directory, "on"), check=True)
    try:
        yield
    finally:
        subprocess.run((tool, "uplink", engine.directory, "off"), check=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_claude_code_goes_back_and_forth_with_npm_itself(engine: EngineUnderTest, product: Product) -> None:
    if engine.name != "docker":
        pytest.skip("on Docker only")
    shipped = load_manifest("claude").packages["claude"].version
    images = tuple(f"coding-agents-{name}:local" for name in ("base", "npm", "claude"))
    update = partial(product.run, "images", "update", timeout_s=600)
    with second_engine(engine.name, images) as second:
        second.adopt(product)
        first = product.engine_run("image", "inspect", "-f", "{{.Id}}", images[-1])
        with uplink(second):
            assert f"{shipped} -> 2.1.329, updated" in update("claude", "--version", "2.1.329").out
        assert "2.1.329: pinned today, by " in product.run("agents", "show", "claude").err
        assert product.engine_run("image", "inspect", "-f", "{{.Id}}", images[-1]) != first
        with uplink(second):
            looked = update("claude", "--check").out
            assert looked.startswith("claude: @anthropic-ai/claude-code-linux-* 2.1.329 -> ")
            refused = update("claude", "--version", "2.1.999999", status=38)
            assert "npm does not know it" in refused.err
            newest = update("claude").out.split(" -> ")[1].removesuffix(", updated\n")
        assert f"{newest} -> 2.1.329, rolled-back" in update("claude", "--rollback").out
        shown = product.engine_run("run", "--rm", "--network=none", images[-1], "claude", "--version")
        assert shown.startswith("2.1.329 ")
