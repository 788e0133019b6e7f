"""Entries of package indexes, the paths that lead to them, and addresses rewritten in a stream."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coding_agents.brokers.registry.places import Places
from coding_agents.brokers.registry.rewrite import Rewriter
from coding_agents.config.merge import merge, parse_layer
from coding_agents.model.registry import environment, parse_registry, registries
from coding_agents.model.settings import Source

PASSWORD = "s3cr3t-0123456789"
PLACES = Places(
    registries(
        ["https://a.example/api/simple files=https://a.example/files", "https://b.example"],
        ["https://a.example/npm"],
    ),
    8097,
)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("https://a.example/simple/", "https://a.example/simple"),
        ("  https://a.example:8443 secret=X  user=me ", "https://a.example:8443 secret=X user=me"),
        ("https://a.example/x files=https://f.example/", "https://a.example/x files=https://f.example"),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x"),
    ],
)
def test_an_entry_has_one_spelling(text: str, spelled: str) -> None:
    assert parse_registry("pip", text).text == spelled
    assert parse_registry("pip", spelled).text == spelled


@pytest.mark.parametrize(
    "text",
    [
        "", "a.example", "http://a.example/x", f"https://me:{PASSWORD}@a.example/x", f"https://{PASSWORD}@a.example",
        "https://a.example/../x", "https://a.example/x?token=1", "https://A.example", "https://a.example//x",
        "https://a.example/%2e", "https://a.example user=x", f"https://a.example token={PASSWORD}",
        "https://a.example secret=", "https://a.example secret=X secret=Y", f"https://a.example files=https://x:{PASSWORD}@f.example",
        "https://a.example files=", "https://a.example\nsecret=X",
    ],
)  # fmt: skip
def test_what_is_no_entry_is_told_without_a_password(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_registry("pip", text)
    assert PASSWORD not in str(refused.value)
    assert ("no user and no password" in str(refused.value)) == ("@" in text)


def test_only_the_user_and_the_organisation_name_indexes() -> None:
    for source, taken in ((Source.ORGANISATION, True), (Source.USER, True), (Source.PROJECT, False)):
        layer, mistakes = parse_layer({"registry": {"pip": ["https://a.example/simple"]}}, source)
        settings, left_out = merge([layer])
        assert settings.registry_pip == (("https://a.example/simple",) if taken else ())
        assert bool(mistakes or left_out) == (not taken)


def test_what_leads_pip_and_npm_there() -> None:
    found = environment(
        registries(
            ["https://a.example/api/simple files=https://f.example", "https://b.example"],
            ["https://a.example/npm"],
        ),
        8097,
    )
    assert found["PIP_INDEX_URL"] == "http://127.0.0.1:8097/pip1/api/simple/"
    assert found["PIP_EXTRA_INDEX_URL"] == "http://127.0.0.1:8097/pip2/"
    assert found["npm_config_registry"] == "http://127.0.0.1:8097/npm1/npm/"
    assert environment((), 8097) == {}


PIECES = st.sampled_from(
    ["pip1", "pip1-files1", "pip2", "npm1", "api", "simple", "files", "npm", "x", "..", ".", "%2e%2e", "%2E.", "%2f",
     "%5c", "%252e", "@s%2fn", "@s", "", "..;", "%00", "a%20b", "\\", "@..%2f..", "%2e"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=8))
@example(["pip1", "api", "simple", "@s%2f.."])
def test_no_path_leads_out_of_its_place_however_it_is_read(pieces: list[str]) -> None:
    asked = PLACES.asked("/" + "/".join(pieces))
    if asked is None:
        return
    place, path = asked
    assert path == place.base or path.startswith(f"{place.base}/")
    for _ in range(3):
        path = unquote(path).replace("\\", "/")
        depth = 0
        for part in path.split("/")[1:]:
            depth += {"..": -1, ".": 0}.get(part, 1)
            assert depth >= 0
            assert part not in ("..", ".")


WORD, LONG = b"https://a/", b"https://a/b/"


ENDS = st.sampled_from([b"https://a/", b"https://a/b/", b"h", b"htt", b"ps://", b"a", b"/", b"x", b"b/"])


@given(st.lists(ENDS, max_size=12), st.integers(1, 5))
def test_addresses_are_rewritten_across_pieces(words: list[bytes], size: int) -> None:
    text = b"".join(words)
    rewriter = Rewriter({WORD: b"<A>"})
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert b"".join(map(rewriter.feed, pieces)) + rewriter.finish() == text.replace(WORD, b"<A>")


def test_the_longer_of_two_addresses_is_rewritten() -> None:
    assert Rewriter({WORD: b"<A>", LONG: b"<B>"}).feed(b"https://a/b/c https://a/c ") == b"<B>c <A>c "
    assert Rewriter({}).feed(b"as it is") == b"as it is"
