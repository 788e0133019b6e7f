"""An image is asked for its registries once, by a script of ours that it may answer as it likes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coding_agents.app import registries
from coding_agents.app.egress import session_egress
from coding_agents.app.registries import known_registries, session_registries
from coding_agents.config.merge import merge, parse_layer
from coding_agents.images.manifests import load_manifest
from coding_agents.model.settings import Source
from coding_agents.sandbox.spec import ContainerSpec
from support.fake_engine import FakeEngine
from support.host import host_environment


class Asked(FakeEngine):
    """Its images answer as a test says; `asked` are those that were."""

    def __init__(self, root: Path, answer: str) -> None:
        super().__init__(root)
        self.answer = answer
        self.images = [self.add_image(ref) for ref in ("one:local", "two:local")]
        self.asked: list[str] = []

    def create(self, spec: ContainerSpec) -> str:
        self.asked.append(spec.image)
        return super().create(spec)

    def logs(self, container: str, *, tail: int | None = None) -> bytes:
        super().logs(container)
        return self.answer.encode()


def answer(files: list[tuple[str, str, str]], **own: list[str]) -> str:
    return f"noise\n{'coding-agents-registries: '}{json.dumps({'files': files, 'own': own})}\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files below /etc are this machine's: not those of a test."""
    monkeypatch.setattr(registries, "host_registries", lambda env, *, managed: registries.Discovered())
    (tmp_path / "engine").mkdir()
    return tmp_path


def test_an_image_is_asked_once_and_another_one_anew(root: Path) -> None:
    apt = ("apt", "/etc/apt/sources.list", "deb http://mirror.example/debian bookworm main\n")
    engine = Asked(
        root / "engine", answer([apt], pip=["https://own.example/simple", "https://files.example/"])
    )
    env = host_environment(root / "home")
    expected = ("https://own.example", "https://files.example", "GET,HEAD http://mirror.example/debian/")
    assert known_registries(env, "demo", managed=False).rules == ()
    one, two = engine.images
    for _ in range(2):
        assert session_registries(env, engine, one, "demo", managed=False).rules == expected
    assert engine.asked == [one]
    assert known_registries(env, "demo", managed=False).rules == expected
    session_registries(env, engine, two, "demo", managed=False)
    assert engine.asked == [one, two]
    (kept,) = (env.data_dir / "registries").iterdir()
    kept.write_bytes(b"{")
    assert session_registries(env, engine, one, "demo", managed=False).rules == expected


@pytest.mark.parametrize(
    "said", ["", "coding-agents-registries: [", 'coding-agents-registries: {"files": 1}']
)
def test_an_image_that_answers_nonsense_stops_no_launch(root: Path, said: str) -> None:
    env, engine = host_environment(root / "home"), Asked(root / "engine", said)
    found = session_registries(env, engine, engine.images[0], "demo", managed=False)
    assert found.rules == ()
    assert found.problems == (
        "the image could not be asked for its registries: its answer is not understood",
    )
    assert known_registries(env, "demo", managed=False).problems == ()  # and it is asked again


def test_an_index_that_the_host_reads_gets_no_way_out() -> None:
    layer, _ = parse_layer(
        {"registry": {"pip": ["https://a.example:8443/simple files=https://f.example/x"]}}, Source.USER
    )
    settings, _ = merge([layer])
    rules = (
        "https://a.example:8443",
        "https://a.example",
        "https://f.example",
        "GET,HEAD http://m.example/debian/",
    )
    found = session_egress(settings, load_manifest("demo"), rules).opened["registry"]
    assert found == ("https://a.example", "GET,HEAD http://m.example/debian/")


def test_the_script_tells_of_files_and_of_pips_own(root: Path) -> None:
    engine = FakeEngine(root / "engine")
    found = registries._ask(engine, engine.add_image("one:local"))
    own = [place for place in found.places if place.where == "its own"]
    assert {place.manager for place in own} <= {"pip", "npm", "cargo"}
    assert found.problems == ()
