"""The table of repositories on a real engine: in as the user has it, worked on by an agent, and back whole.

Table: tests/support/kinds.py; without an engine, and with more of each: tests/component/test_repository_kinds.py.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import agent_at_work
from support.agent_at_work import read_report
from support.engines import EngineUnderTest
from support.kinds import KINDS, Kind, as_parameter
from support.product import Product, user_of
from support.roundtrip import require_whole

pytestmark = [pytest.mark.engine, pytest.mark.alike]

_AGENT = inspect.getsource(agent_at_work)
_WORKING = [as_parameter(kind) for kind in KINDS if not kind.refused]
_REFUSED = [as_parameter(kind) for kind in KINDS if kind.refused]

# What Podman does in its own way on the way in: whose files they are, links, odd names, many small streams.
_ON_PODMAN = {"dirty", "symlinks", "modes", "odd-names", "submodule-nested", "lfs-changed"}


@pytest.fixture
def user(engine: EngineUnderTest, tmp_path: Path) -> Iterator[Product]:
    """Somebody whose home is the directory that a kind is built in."""
    (tmp_path / "home").symlink_to(".")
    with user_of(engine.name, tmp_path) as made:
        yield made


@pytest.mark.parametrize("kind", _WORKING)
def test_comes_back_whole(user: Product, kind: Kind) -> None:
    if user.engine == "podman" and kind.name not in _ON_PODMAN:
        pytest.skip("the same on Docker")
    host = kind.build(user.home)
    before = host.git("status", "--porcelain=v1", "-z")
    head = (host.facts().git_dir / "HEAD").read_bytes()
    own = ("--name", uuid.uuid4().hex[:8])  # the repositories of all these tests have one name
    name = user.launch(host.work, *own, "-b", "given", "-d", "--", "sleep", "600").out.strip()
    said = user.run("exec", name, "--", "python3", "-c", _AGENT).out
    user.run("stop", name)
    inside, unseen, files = read_report(said)
    assert inside == before, "clean means clean"
    require_whole(host, "demo/given", files, unseen=unseen, stored=kind.stored)
    assert host.git("status", "--porcelain=v1", "-z") == before
    assert (host.facts().git_dir / "HEAD").read_bytes() == head
    user.run("remove", name)
    assert user.leftovers() == []


@pytest.mark.parametrize("kind", _REFUSED)
def test_what_cannot_be_supported_is_refused_and_leaves_nothing(user: Product, kind: Kind) -> None:
    host = kind.build(user.home)
    refused = user.launch(host.work, "--json", "-d", status=None)
    assert refused.status != 0
    assert refused.error["code"] == kind.refused
    assert kind.says in f"{refused.error['message']} {refused.error['hint']}"
    assert list(user.sessions_dir.glob("*")) == []
    assert user.leftovers() == []
