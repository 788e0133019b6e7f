"""Package runners: what their words name, and that nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import McpError
from coding_agents.mcp.runners import Runner, is_npm_name, runner_of


@pytest.mark.parametrize(
    ("words", "specs", "program", "rest"),
    [
        ("npx server", [("server", "")], "", []),
        ("npx -y @a/server@1.2.3 --port 1", [("@a/server", "1.2.3")], "", ["--port", "1"]),
        ("npx --yes --quiet server@next -- x", [("server", "next")], "", ["--", "x"]),
        ("npx -y -- server -y", [("server", "")], "", ["-y"]),
        ("npx -p @a/tools -p b@^2 run -p x", [("@a/tools", ""), ("b", "^2")], "run", ["-p", "x"]),
        ("npx --package=@a/tools@~1.2 run", [("@a/tools", "~1.2")], "run", []),
        ("npm exec -- server --x", [("server", "")], "", ["--x"]),
        ("npm x --package=a -- run --x", [("a", "")], "run", ["--x"]),
        ("npm exec -y server -- --x", [("server", "")], "", ["--x"]),
        ("uvx server --x", [("server", "")], "server", ["--x"]),
        ("uvx server@1.2.3 x", [("server", "==1.2.3")], "server", ["x"]),
        ("uvx server@latest", [("server", "")], "server", []),
        ("uvx --from a[b,c]==1.2 run --from x", [("a[b,c]", "==1.2")], "run", ["--from", "x"]),
        ("uvx --from=a>=1,<2 --with b run", [("a", ">=1,<2"), ("b", "")], "run", []),
        ("uv tool run -q server", [("server", "")], "server", []),
        ("pipx run --spec a==1 run x", [("a", "==1")], "run", ["x"]),
    ],
)
def test_what_a_runner_is_told(
    words: str, specs: list[tuple[str, str]], program: str, rest: list[str]
) -> None:
    command, *args = words.split()
    got = runner_of(command, args)
    assert got is not None
    assert (list(got.specs), got.program, args[got.skip :]) == (specs, program, rest)
    assert got.index == ("npm" if command in ("npx", "npm") else "pypi")


@pytest.mark.parametrize(
    "words", ["python3 npx", "npm start", "npm run server", "uv run x", "uv tool install x", "docker run x",
              "pipx list", "/usr/bin/npx server", "node x"],
)  # fmt: skip
def test_what_is_no_runner(words: str) -> None:
    command, *args = words.split()
    assert runner_of(command, args) is None


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("npx", "names no program"),
        ("npx -y", "names no program"),
        ("npx -p", "has no value"),
        ("npx -p a", "names no program"),
        ("npx -c server", "option '-c' is not known"),
        ("npx --registry=https://x server", "option '--registry' is not known"),
        ("npx --yes=true server", "option '--yes' is not known"),
        ("npx --prefix . server", "option '--prefix' is not known"),
        ("npm exec server --x", "npm would take its options"),
        ("npm exec server x -- --x", "write `npm exec -- PACKAGE"),
        ("uvx --index-url https://x server", "option '--index-url' is not known"),
        ("uvx --python 3.13 server", "option '--python' is not known"),
        ("uvx --from a --from b run", "names its package twice"),
        ("uvx --from a --with a run", "or one twice"),
        ("npx -p a ../run", "is not the name of a program"),
        ("uvx --from a run;x", "is not the name of a program"),
        *((f"npx {spec}", "is not a package of npm's registry") for spec in (
            "./server", "../x", "a/b", "github:a/b", "git+ssh://h/x", "https://h/x.tgz", "file:x", "a@npm:b",
            "a@https://h", "a@file:x", "a@../x", "@a", "@a/b/c", ".x", "_x", "a@1\x1b[31m", "${X:-a}", "a b", "a" * 300,
        )),
        *((f"uvx {spec}", "is not a package of the index") for spec in (
            "./server", "a@https://h/x.whl", "git+https://h/x", "a @ file:///x", "a==1;python_version>'3'", "a@1==2",
            "a[", "${X:-a}", "a==1\x1b[31m", "a" * 300,
        )),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_told(words: str, why: str) -> None:
    command, *args = words.split(" ")
    if command == "npx" and words.startswith("npx a b"):
        args = ["a b"]
    if "a @ file" in words:
        args = ["a @ file:///x"]
    with pytest.raises(McpError, match="cannot be pinned") as caught:
        runner_of(command, args)
    assert why in caught.value.message
    assert "\x1b" not in caught.value.message


@given(st.sampled_from(["npx", "uvx", "npm", "uv", "pipx"]), st.lists(st.text(max_size=12), max_size=6))
def test_any_words_are_read_or_refused(command: str, args: list[str]) -> None:
    try:
        got = runner_of(command, args)
    except McpError:
        return
    assert got is None or isinstance(got, Runner)
    for name, wanted in got.specs if got is not None else ():
        assert ":" not in name + wanted
        assert name.count("/") <= 1
        assert not name.startswith((".", "/", "-"))


def test_a_name_of_npm_leads_nowhere_else() -> None:
    assert is_npm_name("@a/b.c-d_e")
    for name in ("..", ".", "a/../b", "@a/..", "@../a", "a//b", "", "a\n", "node_modules/x", "a\\b"):
        assert not is_npm_name(name)
