"""The settings table, its grammars, and the rules by which layers may change values."""

from __future__ import annotations

import json
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.config.describe import json_schema, reference_page, shown_settings
from coding_agents.config.load import line_of
from coding_agents.config.merge import Layer, merge, parse_layer
from coding_agents.model.limits import NO_DISK, NO_IO, NO_RATE, NO_TIME, NO_TRAFFIC
from coding_agents.model.settings import BY_KEY, SETTINGS, Settings, Source, Tighten, render_value

_GIB = 1 << 30

_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "engine": st.sampled_from(["auto", "docker", "podman"]),
    "runtime": st.sampled_from(["auto", "runc", "crun", "runsc"]),
    "agent": st.sampled_from(["claude", "demo"]),
    "limits.cpu": st.integers(1, 64),
    "limits.memory": st.integers(1, 64).map(lambda size: f"{size}g"),
    "limits.pids": st.integers(64, 9999),
    "limits.time": st.one_of(st.integers(60, 30 * 86_400), st.just(NO_TIME)),
    "limits.bandwidth": st.one_of(st.integers(64, 8 * 10**7).map(lambda n: n * 125), st.just(NO_RATE)),
    "limits.disk": st.one_of(st.integers(64 << 20, 1 << 43), st.just(NO_DISK)),
    "limits.disk_read": st.one_of(st.integers(1 << 20, 1 << 40), st.just(NO_IO)),
    "limits.disk_write": st.one_of(st.integers(1 << 20, 1 << 40), st.just(NO_IO)),
    "limits.file": st.integers(64 << 20, 1 << 40),
    "limits.disk_reserve": st.integers(64 << 20, 1 << 40),
    "sandbox.allow_ptrace": st.booleans(),
    "network.mode": st.sampled_from(["allow-all", "squid", "restricted"]),
    "network.private": st.lists(st.sampled_from(["10.0.0.1:443", "[fd00::1]:80"]), max_size=2),
    "network.allow": st.lists(st.sampled_from(["a.example", "GET http://b.example/x/"]), max_size=2),
    "network.deny": st.lists(st.sampled_from(["*.a.example", "b.example:8443"]), max_size=2),
    "network.allow_ech": st.booleans(),
    "network.upload": st.one_of(st.integers(1 << 20, 1 << 40), st.just(NO_TRAFFIC)),
    "network.request_upload": st.one_of(st.integers(1 << 20, 1 << 40), st.just(NO_TRAFFIC)),
    "network.request_download": st.one_of(st.integers(1 << 20, 1 << 40), st.just(NO_TRAFFIC)),
    "network.download": st.one_of(st.integers(1 << 20, 1 << 40), st.just(NO_TRAFFIC)),
    "network.ca": st.sampled_from(["host", "none"]),
    "workspace.include": st.lists(st.sampled_from(["*.env", "data/**"]), max_size=2),
    "git.message": st.sampled_from(["Save", "Store"]),
    "git.push": st.booleans(),
    "identity.as_agent": st.booleans(),
    "identity.bot": st.sampled_from(["", "Robot <robot@example.org>"]),
    "identity.trailers": st.lists(st.sampled_from(["agent", "session"]), max_size=2),
    "signing.mode": st.sampled_from(["user", "auto", "session", "merge", "off"]),
    "origin.access": st.booleans(),
    "origin.fetch": st.lists(st.sampled_from(["refs/heads/*", "refs/tags/v/*"]), min_size=1, max_size=2),
    "origin.allow": st.lists(st.sampled_from(["https://a.example/x", "git@a.example:y.git"]), max_size=2),
    "origin.protected": st.lists(st.sampled_from(["main", "release/*"]), max_size=2),
    "origin.wait": st.sampled_from([0, 120, "5m"]),
    "model.upstream": st.sampled_from(["", "https://gateway.example/x", "http://127.0.0.1:8080"]),
    "model.server_tools": st.lists(st.sampled_from(["web_search", "mcp"]), max_size=2),
    "model.max_tokens": st.sampled_from(["none", "200k", "5m", 7]),
    "model.max_cost": st.sampled_from(["none", "5", "2.50", 3]),
    "model.prices": st.lists(st.sampled_from(["m-*=1,0.5,2", "m-1=1,1,1"]), max_size=2),
    "registry.pip": st.lists(
        st.sampled_from(["https://a.example/simple", "https://b.example secret=X"]), max_size=2
    ),
    "registry.npm": st.lists(st.just("https://a.example/npm user=me secret=X"), max_size=1),
    "credentials.release": st.lists(
        st.sampled_from(["https://git.example/team", "https://me@git.example:8443/a/b"]), max_size=2
    ),
    "credentials.ssh_agent": st.lists(
        st.sampled_from([f"SHA256:{'a' * 43} git.example", f"SHA256:{'b' * 43} git.example:2222"]), max_size=2
    ),
    "credentials.files": st.lists(st.sampled_from(["gh", "gitconfig"]), max_size=2),
    "credentials.gitconfig": st.booleans(),
    "notify.command": st.lists(st.sampled_from(["notify-send", "-a"]), max_size=2),
    "notify.terminal": st.sampled_from(["osc9", "bell", "off"]),
    "secrets.age_identity": st.sampled_from(["", "~/id.txt", "/etc/id.txt"]),
    "session.stop_timeout": st.integers(10, 600),
    **{
        f"relay.{name}": st.integers(1, 64).map(lambda size: f"{size}g")
        for name in ("push", "object", "disk", "unpacked")
    },
    "relay.refs": st.integers(10, 9999),
    "require": st.dictionaries(st.sampled_from(["apparmor", "swap"]), st.just(True)),
    "best_effort": st.lists(st.sampled_from(["apparmor", "swap", "pids"]), max_size=2),
}


def _parsed(key: str) -> st.SearchStrategy[Any]:
    return _VALUES[key].map(BY_KEY[key].parse)


def _layers(source: Source) -> st.SearchStrategy[Layer]:
    values = st.fixed_dictionaries({}, optional={key: _parsed(key) for key in _VALUES})
    managed = (
        st.frozensets(st.sampled_from(sorted(_VALUES)))
        if source is Source.ORGANISATION
        else st.just(frozenset())
    )
    return st.builds(Layer, st.just(source), st.just(source.name), values, managed)


_STACKS = st.lists(st.sampled_from(list(Source)[1:]), unique=True).flatmap(
    lambda sources: st.tuples(*map(_layers, sources))
)


def test_table_strategies_and_fields_are_the_same_set() -> None:
    assert set(_VALUES) == set(BY_KEY)
    fields = set(Settings.__struct_fields__) - {"origins", "managed", "organisation", "demanded"}
    assert fields == {setting.field for setting in SETTINGS}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_every_default_obeys_its_own_grammar(setting: Any) -> None:
    written = tomllib.loads(f"x = {render_value(setting, setting.default)}")["x"]
    assert setting.parse(written) == setting.default
    assert setting.is_tighter(setting.default, setting.default)


@given(_STACKS)
def test_defaults_hold_where_no_layer_speaks_and_origins_tell_the_truth(layers: tuple[Layer, ...]) -> None:
    settings, refused = merge(layers)
    wrong = {(layer.source, mistake.key) for layer, mistake in refused}
    for key, setting in BY_KEY.items():
        speakers = [layer for layer in layers if key in layer.values and (layer.source, key) not in wrong]
        origin = settings.origins[key]
        if speakers:
            assert origin.source is max(layer.source for layer in speakers)
        else:
            assert (origin.source, settings.value(key)) == (Source.DEFAULT, setting.default)


@given(_STACKS, _layers(Source.PROJECT))
def test_a_project_layer_never_widens(layers: tuple[Layer, ...], project: Layer) -> None:
    others = [layer for layer in layers if layer.source is not Source.PROJECT]
    without, _ = merge(others)
    with_project, _ = merge([*others, project])
    for key, setting in BY_KEY.items():
        assert setting.is_tighter(with_project.value(key), without.value(key)), key
        if setting.tighten is Tighten.NEVER:
            assert with_project.value(key) == without.value(key)


@given(_STACKS)
def test_nothing_widens_what_the_organisation_manages(layers: tuple[Layer, ...]) -> None:
    below, _ = merge([layer for layer in layers if layer.source is Source.ORGANISATION])
    settings, refused = merge(layers)
    for key in settings.managed:
        assert BY_KEY[key].is_tighter(settings.value(key), below.value(key))
    assert all(mistake.widens for _, mistake in refused)


@given(_STACKS)
def test_a_requirement_is_never_dropped(layers: tuple[Layer, ...]) -> None:
    settings, _ = merge(layers)
    for layer in layers:
        asked = layer.values.get("require", ())
        if layer.source not in (Source.USER, Source.ENVIRONMENT, Source.COMMAND_LINE, Source.ORGANISATION):
            continue
        assert set(asked) <= set(settings.require)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value", "parsed"),
    [
        ("limits.cpu", "0.5", Decimal("0.5")),
        ("limits.cpu", 2, Decimal(2)),
        ("limits.cpu", 1.5, Decimal("1.5")),
        ("limits.memory", "512m", 512 << 20),
        ("limits.memory", 2 * _GIB, 2 * _GIB),
        ("limits.pids", "100", 100),
        ("git.push", "no", False),
        ("git.push", True, True),
        ("secrets.age_identity", "~/.config/id.txt", "~/.config/id.txt"),
        ("session.stop_timeout", "2m", 120),
        ("session.stop_timeout", 90, 90),
        (
            "network.private",
            ["10.0.0.2:0443", "[FD00::0001]:80", "10.0.0.1:1"],
            ("10.0.0.2:443", "[fd00::1]:80", "10.0.0.1:1"),
        ),
        ("network.private", "10.0.0.1:1, 10.0.0.2:2", ("10.0.0.1:1", "10.0.0.2:2")),
        ("workspace.include", ["a/**", "a/**", "*.env"], ("a/**", "*.env")),
        ("require", {"swap": True, "apparmor": True}, ("apparmor", "swap")),
    ],
)
def test_accepted_spellings(key: str, value: object, parsed: object) -> None:
    assert BY_KEY[key].parse(value) == parsed


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("engine", "dokcer"),
        ("engine", 1),
        ("engine", ["docker"]),
        ("agent", "../evil"),
        ("agent", "-x"),
        ("agent", ""),
        ("agent", "a" * 40),
        ("limits.cpu", True),
        ("limits.cpu", 0),
        ("limits.cpu", "nan"),
        ("limits.cpu", -1),
        ("limits.cpu", [1]),
        ("limits.memory", "8x"),
        ("limits.memory", "1m"),
        ("limits.memory", True),
        ("limits.memory", -5),
        ("limits.pids", 1.5),
        ("limits.pids", 0),
        ("limits.pids", False),
        ("limits.pids", "٣٣٣"),
        ("network.mode", "open"),
        ("network.ca", ""),
        ("network.private", ["10.0.0.1"]),
        ("network.private", ["10.0.0.1:0"]),
        ("network.private", ["10.0.0.1:70000"]),
        ("network.private", ["1.2.3:5"]),
        ("network.private", ["a b:1"]),
        ("network.private", ["-a:1"]),
        ("network.private", [":1"]),
        ("network.private", [1]),
        ("network.private", ["[zz]:1"]),
        ("network.private", ["a\n:1"]),
        ("network.private", ["mirror.corp:443"]),
        ("network.private", ["fd00::1:443"]),
        ("network.private", ["10.0.0.0/8:443"]),
        ("network.private", ["10.0.0.1:٣"]),
        ("network.private", ["127.0.0.1:80"]),
        ("network.private", ["169.254.169.254:80"]),
        ("network.private", ["224.0.0.1:53"]),
        ("network.private", ["0.0.0.0:80"]),
        ("network.private", ["[::1]:80"]),
        ("network.private", ["[fd00::1%eth0]:80"]),
        ("network.private", 5),
        ("network.private", ["10.0.0.1:1"] * 300),
        ("workspace.include", ["/etc/passwd"]),
        ("workspace.include", ["../x"]),
        ("workspace.include", [""]),
        ("git.message", "two\nlines"),
        ("git.message", " "),
        ("git.message", "\u202e"),
        ("git.message", "x" * 300),
        ("git.push", "maybe"),
        ("git.push", 1),
        ("session.stop_timeout", 5),
        ("session.stop_timeout", "2d"),
        ("session.stop_timeout", True),
        ("require", {"apparmor": False}),
        ("require", ["App Armor"]),
        ("require", True),
        ("best_effort", ["seccomp"]),
        ("best_effort", ["disc"]),
    ],
)
def test_refused_values(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        BY_KEY[key].parse(value)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_no_value_makes_a_long_or_unprintable_message(setting: Any) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        setting.parse("\x1b[2J" * 5000)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_all_mistakes_of_a_document_are_found_with_suggestions() -> None:
    document = tomllib.loads(
        '[limits]\nmemmory = "8g"\ncpu = "many"\n[newtork]\nmode = "x"\n[git]\npush = false\n'
    )
    layer, mistakes = parse_layer(document, Source.USER)
    assert [mistake.key for mistake in mistakes] == ["limits.memmory", "limits.cpu", "newtork"]
    assert "did you mean 'limits.memory'?" in mistakes[0].message
    assert "did you mean 'network'?" in mistakes[2].message
    assert layer.values == {"git.push": False}


@pytest.mark.parametrize("document", [{"limits": 5}, {"managed": ["network.mode"]}, {"engine": {"x": 1}}])
def test_documents_of_the_wrong_shape_are_mistakes(document: dict[str, object]) -> None:
    _, mistakes = parse_layer(document, Source.USER)
    assert len(mistakes) == 1


@pytest.mark.parametrize("managed", [5, ["no.such.key"], [5]])
def test_a_wrong_list_of_managed_keys_is_a_mistake(managed: object) -> None:
    _, mistakes = parse_layer({"managed": managed}, Source.ORGANISATION)
    assert [mistake.key for mistake in mistakes] == ["managed"]


_TOML = """\
# a comment
engine = "docker"

[limits]
# cpu = 1
memory = "4g"   # cpu = 2
cpu = [
  1,
]
[git]
message = \"""
cpu = 5
\"""
push = false
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("engine", 2),
        ("limits", 4),
        ("limits.memory", 6),
        ("limits.cpu", 7),
        ("git.message", 11),
        ("git.push", 14),
        ("limits.pids", None),
        ("engine.x", None),
    ],
)
def test_lines(key: str, line: int | None) -> None:
    assert line_of(_TOML, key) == line


def test_the_line_of_a_huge_file_is_not_searched() -> None:
    assert line_of("a = 1\n" + "\n" * 1001, "a") is None


def test_the_schema_names_every_key_and_is_json() -> None:
    schema = json.loads(json.dumps(json_schema()))
    for key in BY_KEY:
        node = schema
        for part in key.split("."):
            node = node["properties"][part]
        assert node["description"] == BY_KEY[key].help
        assert "default" in node


def test_shown_values_can_be_pasted_into_a_file() -> None:
    settings, _ = merge(
        [Layer(Source.USER, "u", {"limits.cpu": Decimal("0.5"), "git.message": 'say "hi" \\o/'})]
    )
    for shown in shown_settings(settings):
        value = tomllib.loads(f"x = {shown.value}")["x"]
        assert BY_KEY[shown.key].parse(value) == settings.value(shown.key)


def test_the_reference_page_is_current() -> None:
    page = Path(__file__).parents[2] / "docs/reference/config.md"
    assert page.read_text(encoding="utf-8") == reference_page()


def test_the_words_of_a_command_are_one_value() -> None:
    """They may repeat, and those of two layers are two commands."""
    words = ("sh", "-c", 'notify "$@"', "sh")
    below = Layer(
        Source.ORGANISATION, values={"notify.command": ("notify-send",), "network.deny": ("a.example",)}
    )
    user = Layer(Source.USER, values={"notify.command": words, "network.deny": ("b.example",)})
    settings, _ = merge([below, user])
    assert settings.notify_command == words
    assert settings.network_deny == ("a.example", "b.example")
