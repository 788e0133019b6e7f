"""Pins of the user's own: which hold, how old they are, and what npm may say of a newer one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest
from msgspec.structs import replace

from coding_agents.app.pins import launch_notice, origin_told, stale_agents
from coding_agents.errors import ImageUpdateError, ManifestError, StoreError
from coding_agents.images.manifests import find_agent, load_manifest, pins_file
from coding_agents.images.newest import newest
from coding_agents.images.scripted_answers import reply_to, smallest
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.packages import Package, Packages, oldest_pin, release_key
from coding_agents.model.pins import PinFile, parse_pins, render_pins, stale_days, with_pins
from support.host import host_environment

TODAY = date(2026, 11, 29)
SRI = "sha512-" + "A" * 86 + "=="
OTHER = "sha512-" + "B" * 86 + "=="


def package(version: str = "1.0.0", pinned: date | None = date(2026, 11, 1), **changes: object) -> Package:
    one = Package(
        package="@a/tool-{arch}", version=version, integrity={"x64": SRI, "arm64": OTHER}, pinned=pinned
    )
    return replace(one, **changes)


def manifest(*packages: Package) -> AgentManifest:
    return replace(load_manifest("demo"), packages={"demo": packages[0]} if packages else {})


# --- the file


def test_pins_are_read_as_they_were_written() -> None:
    pins = PinFile(
        agent="codex",
        packages=load_manifest("codex").packages,
        previous={"codex": replace(load_manifest("codex").packages["codex"], version="0.1.0-linux-{arch}")},
    )
    assert parse_pins(render_pins(pins), origin="x", agent="codex") == pins
    gemini = PinFile(agent="gemini", packages=load_manifest("gemini").packages)
    assert parse_pins(render_pins(gemini), origin="x", agent="gemini") == gemini


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('agent = "demo"', 'agent = "claude"'), "the file is for 'demo'"),
        (("@a/tool-{arch}", "../../evil"), "not the name of an npm package"),
        (('"1.0.0"', '"latest"'), "not one exact version"),
        (('"1.0.0"', '"1.0.0 || 2"'), "not one exact version"),
        ((SRI, "sha1-x"), "sha512-… notation"),
        (("pinned = 2026-11-01", ""), "without `pinned`"),
        (("pinned = 2026-11-01", 'pinned = "soon"'), "date"),
        (('follow = "latest"', 'follow = "--registry=x"'), "not a tag"),
        (("[packages.demo]", "[packages.demo]\nscripts = 1"), "unknown field"),
        (("[packages.demo]", "[packages.'a b']\n[packages.demo]"), "missing required field"),
        (("agent =", "agent"), "not valid TOML"),
    ],
)
def test_a_file_of_pins_is_held_to_the_schema_of_manifests(change: tuple[str, str], said: str) -> None:
    text = render_pins(PinFile(agent="demo", packages={"demo": package()})).decode()
    assert change[0] in text
    changed = text.replace(change[0], change[1]).encode()
    with pytest.raises(ManifestError, match=r"pins\.toml") as caught:
        parse_pins(changed, origin="pins.toml", agent="demo")
    assert said in caught.value.message
    assert "Remove the file" in caught.value.hint


def test_the_later_pin_holds() -> None:
    ours = manifest(package("1.0.0", date(2026, 11, 10)))

    def held(pins: Packages) -> tuple[str, str]:
        made, unused = with_pins(ours, PinFile(agent="demo", packages=pins))
        return made.packages["demo"].version, unused

    assert held({"demo": package("1.1.0", date(2026, 11, 11))}) == ("1.1.0", "")
    assert held({"demo": package("0.9.0", date(2026, 11, 10))}) == ("0.9.0", "")
    version, unused = held({"demo": package("1.1.0", date(2026, 11, 9))})
    assert version == "1.0.0"
    assert "2026-11-10 are later than these of 2026-11-09" in unused
    for changes in ({"package": "@a/other-{arch}"}, {"integrity": {"x64": SRI}}):
        assert held({"demo": package("1.1.0", TODAY, **changes)}) == (
            "1.0.0", "the manifest now names other packages",
        )  # fmt: skip


def test_pins_beside_a_manifest_are_found_and_a_broken_file_says_what_to_do(tmp_path: Path) -> None:
    shipped = find_agent("claude", None, tmp_path)
    assert shipped.pins is None
    newer = {"claude": replace(shipped.manifest.packages["claude"], version="9.9.9", pinned=TODAY)}
    path = pins_file(tmp_path, "claude")
    path.write_bytes(render_pins(PinFile(agent="claude", packages=newer)))
    assert find_agent("claude", None, tmp_path).manifest.packages["claude"].version == "9.9.9"
    assert find_agent("claude").manifest == shipped.manifest
    path.write_text("x = 1\n")
    with pytest.raises(ManifestError, match=r"claude\.toml") as caught:
        find_agent("claude", None, tmp_path)
    assert "Remove the file" in caught.value.hint
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match="symbolic links"):
        find_agent("claude", None, tmp_path)


# --- how old


def test_age_is_that_of_the_oldest_and_unknown_where_one_tells_nothing() -> None:
    old, new = package(pinned=date(2026, 11, 1)), package(pinned=date(2026, 11, 20))
    assert oldest_pin({"a": old, "b": new}) == date(2026, 11, 1)
    assert oldest_pin({"a": package(pinned=None), "b": new}) is None
    assert oldest_pin({}) is None
    assert stale_days({"a": old, "b": new}, date(2026, 11, 15)) == 0
    assert stale_days({"a": old, "b": new}, date(2026, 11, 16)) == 15
    assert stale_days({"a": old}, date(2026, 10, 1)) == 0  # a clock that is wrong


def test_what_we_ship_tells_its_day() -> None:
    for name in ("claude", "codex", "copilot", "gemini", "opencode"):
        assert oldest_pin(load_manifest(name).packages) is not None, name


def test_a_launch_tells_of_an_old_pin_once_a_day(tmp_path: Path) -> None:
    env = host_environment(tmp_path)
    assert launch_notice(env, "claude", TODAY) == ""
    day = date(2027, 1, 1)
    said = launch_notice(env, "claude", day)
    assert "claude was pinned 38 days ago" in said
    assert "coding-agents images update claude" in said
    assert launch_notice(env, "claude", day) == ""
    assert launch_notice(env, "codex", day)
    assert launch_notice(env, "claude", date(2027, 1, 2))
    assert launch_notice(env, "demo", day) == ""
    assert launch_notice(env, "no-such-agent", day) == ""
    assert set(stale_agents(env, day)) == {"claude", "codex", "copilot", "gemini", "opencode"}
    assert stale_agents(env, TODAY) == {}


def test_it_is_said_where_pins_are_from(tmp_path: Path) -> None:
    env = host_environment(tmp_path)
    env.pins_dir.mkdir(parents=True)
    path = pins_file(env.pins_dir, "claude")
    packages = load_manifest("claude").packages

    def told(pinned: date) -> str:
        pins = {"claude": replace(packages["claude"], pinned=pinned)}
        path.write_bytes(render_pins(PinFile(agent="claude", packages=pins)))
        return origin_told(env, find_agent("claude", None, env.pins_dir), TODAY)

    assert (
        origin_told(env, find_agent("claude", None, env.pins_dir), TODAY)
        == "pinned 5 days ago, by the manifest"
    )
    assert told(TODAY) == f"pinned today, by {path}"
    assert f"by the manifest; {path} is not used" in told(date(2020, 1, 1))
    assert origin_told(env, find_agent("demo", None, env.pins_dir), TODAY) == ""


# --- what npm says


class Npm:
    """Plays npm: `says` by SPEC; what it is asked beside that it does not know."""

    def __init__(self, says: dict[str, object]) -> None:
        self.says = says
        self.asked: list[str] = []

    def __call__(self, specs: Sequence[str]) -> list[bytes]:
        self.asked += specs
        unknown = {"error": {"code": "E404", "summary": "no"}}
        found = [self.says.get(spec, unknown) for spec in specs]
        return [one if isinstance(one, bytes) else json.dumps(one).encode() for one in found]


def said(name: str, version: str, integrity: str = SRI) -> dict[str, str]:
    return {"name": name, "version": version, "dist.integrity": integrity}


X64, ARM = "@a/tool-x64", "@a/tool-arm64"
GOOD: dict[str, object] = {
    f"{X64}@latest": said(X64, "1.2.0"),
    f"{ARM}@latest": said(ARM, "1.2.0"),
    f"{X64}@1.2.0": said(X64, "1.2.0", OTHER),
    f"{ARM}@1.2.0": said(ARM, "1.2.0", SRI),
}


def test_the_newest_version_is_pinned_for_each_processor() -> None:
    found = newest({"demo": package()}, Npm(GOOD), today=TODAY, wanted={})
    assert found == {"demo": package("1.2.0", TODAY, integrity={"x64": OTHER, "arm64": SRI})}


def test_a_version_that_one_processor_lacks_waits() -> None:
    says = {**GOOD, f"{ARM}@latest": said(ARM, "1.1.0"), f"{X64}@1.1.0": said(X64, "1.1.0"),
            f"{ARM}@1.1.0": said(ARM, "1.1.0")}  # fmt: skip
    assert newest({"demo": package()}, Npm(says), today=TODAY, wanted={})["demo"].version == "1.1.0"


def test_a_processor_behind_the_version_and_a_range() -> None:
    codex = package("0.1.0-linux-{arch}", package="tool", integrity={"x64": SRI})
    node = package("22.1.0", package="node-{arch}", integrity={"x64": SRI}, follow="22")
    npm = Npm(
        {
            "tool@latest": said("tool", "0.2.0"),
            "tool@0.2.0-linux-x64": said("tool", "0.2.0-linux-x64"),
            "node-x64@22": [said("node-x64", one) for one in ("22.9.0", "22.10.1", "22.11.0-rc.1")],
            "node-x64@22.10.1": said("node-x64", "22.10.1"),
        }
    )
    found = newest({"codex": codex, "node": node}, npm, today=TODAY, wanted={})
    assert {name: one.version for name, one in found.items()} == {
        "codex": "0.2.0-linux-{arch}", "node": "22.10.1",
    }  # fmt: skip


def test_a_wanted_version_asks_for_no_newest() -> None:
    npm = Npm(GOOD)
    assert newest({"demo": package()}, npm, today=TODAY, wanted={"demo": "1.2.0"})["demo"].version == "1.2.0"
    assert npm.asked == [f"{X64}@1.2.0", f"{ARM}@1.2.0"]
    with pytest.raises(ImageUpdateError, match=r"@a/tool-x64@7\.0\.0 cannot be pinned: npm does not know it"):
        newest({"demo": package()}, Npm(GOOD), today=TODAY, wanted={"demo": "7.0.0"})


@pytest.mark.parametrize(
    ("spec", "answer", "why"),
    [
        (f"{X64}@latest", b"", "does not know it"),
        (f"{X64}@latest", b"<html>", "not understood"),
        (f"{X64}@latest", {"error": {"code": "ENOTFOUND", "summary": "no way out"}}, "ENOTFOUND no way out"),
        (f"{X64}@latest", said("@a/evil", "1.2.0"), "about something else"),
        (f"{X64}@latest", said(X64, "--registry=http"), "about something else"),
        (f"{X64}@latest", said(X64, "1.2.0\nevil@1.0.0"), "about something else"),
        (f"{X64}@latest", [], "about something else"),
        (f"{X64}@1.2.0", {"name": X64, "version": "1.2.0"}, "no integrity"),
        (f"{X64}@1.2.0", said(X64, "1.2.0", "sha1-AAAA"), "cannot be pinned"),
        (f"{X64}@1.2.0", said(X64, "1.2.0", SRI + '"\nevil = "'), "cannot be pinned"),
        (f"{X64}@1.2.0", said(X64, "1.3.0"), "another version"),
        (f"{ARM}@1.2.0", {"error": {"code": "E404"}}, "does not know it"),
    ],
)
def test_what_npm_says_is_held_against_what_was_asked(spec: str, answer: object, why: str) -> None:
    with pytest.raises(ImageUpdateError) as caught:
        newest({"demo": package()}, Npm({**GOOD, spec: answer}), today=TODAY, wanted={})
    assert why in caught.value.message
    assert len(caught.value.message) < 400


def test_releases_are_ordered_by_their_numbers() -> None:
    ordered = ["0.9.10", "0.10.0", "1.0.0-rc.1", "1.0.0", "22.9.0", "22.10.0"]
    assert sorted(reversed(ordered), key=lambda one: release_key(one) or (0, 0, 0, False)) == ordered
    assert [release_key(one) for one in ("1.0", "latest", "1.0.0+x", "1.0.0\n", "v1.0.0")] == [None] * 5


# --- the scripted model


@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/responses", "/v1/chat/completions", "/v1beta/models/m:generateContent"]
)
def test_the_scripted_model_says_its_sentence_in_each_api(path: str) -> None:
    whole = reply_to(path, {"model": "m"}, "the sentence")
    assert whole is not None
    assert whole.media_type == "application/json"
    assert "the sentence" in json.dumps(json.loads(whole.body))
    asked = path.replace(":generate", ":streamGenerate")
    stream = reply_to(asked, {"model": "m", "stream": True}, "the sentence")
    assert stream is not None
    assert stream.media_type == "text/event-stream"
    assert b"the sentence" in stream.body
    data = [line[6:] for line in stream.body.decode().splitlines() if line.startswith("data: ")]
    assert all(isinstance(json.loads(line), dict) for line in data if line != "[DONE]")
    assert reply_to("/v1/files", {}, "x") is None


def test_what_wants_json_gets_some() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x"]}, "b": {"type": "array"}},
        "required": ["a", "b"],
    }
    assert smallest(schema) == {"a": "x", "b": []}
    nested: dict[str, object] = {}
    nested["anyOf"] = [nested]
    assert smallest(nested) == "none"
    config = {"responseJsonSchema": schema}
    answered = reply_to("/v1beta/models/m:generateContent", {"generationConfig": config}, "the sentence")
    assert answered is not None
    assert b"the sentence" not in answered.body
