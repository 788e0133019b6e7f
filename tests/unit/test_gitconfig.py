"""Text for git's configuration: git reads exactly what was meant, and nothing that a value says beside it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding_agents.model.gitconfig import Section, render

_TEXT = st.text(st.characters(min_codepoint=9, exclude_categories=("Cs", "Cc")), max_size=30)


def read_back(text: str) -> list[tuple[str, str]]:
    """What git itself finds in `text`, keys with their section and subsection."""
    done = subprocess.run(
        ("git", "config", "--null", "--file", "-", "--list"),
        input=text.encode(),
        capture_output=True,
        check=True,
    )
    entries = done.stdout.decode().split("\0")[:-1]
    return [(entry.partition("\n")[0], entry.partition("\n")[2]) for entry in entries]


@settings(max_examples=40, deadline=None)
@given(st.lists(_TEXT, min_size=1, max_size=8), _TEXT)
def test_git_reads_what_was_meant(values: list[str], below: str) -> None:
    text = render((Section("url", tuple(("insteadOf", value) for value in values), below),))
    key = f"url.{below}.insteadof" if below else "url.insteadof"
    assert read_back(text) == [(key, value) for value in values]


@pytest.mark.parametrize(
    "value",
    ["a # b", "a ; b", '"', "\\", '\\"', " lead and trail ", "a\tb", "[core]", "x = y", "\\n", "ü", ""],
)
def test_nothing_in_a_value_is_syntax(value: str) -> None:
    if "\t" in value:
        assert read_back(render((Section("a", (("b", value),)),))) == [("a.b", value)]
        return
    sections = (Section("a", (("b", value),), value), Section("c", (("d", "e"),)))
    assert read_back(render(sections)) == [(f"a.{value}.b" if value else "a.b", value), ("c.d", "e")]


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b", "\x1b[2J", "a\x7f"])
def test_what_would_begin_a_line_of_its_own_is_refused(bad: str) -> None:
    for section in (Section("a", (("b", bad),)), Section("a", (("b", "c"),), bad)):
        with pytest.raises(ValueError, match="cannot stand"):
            render((section,))
    for section in (
        Section("a", ((f"b{bad}", "c"),)),
        Section(f"a{bad}", (("b", "c"),)),
        Section("a.b", (("c", ""),)),
    ):
        with pytest.raises(ValueError, match="is not a"):
            render((section,))


def test_a_section_without_settings_is_left_out(tmp_path: Path) -> None:
    assert render((Section("a", ()), Section("b", ()))) == ""
