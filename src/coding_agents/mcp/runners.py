"""Package runners in a server's definition: `npx PACKAGE`, `uvx TOOL` and their kin, and what they name. Pure.

What is not understood is an error for people, never a guess: an option that we do not know may name another package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from coding_agents.errors import McpError
from coding_agents.mcp.locked import RUNNERS, Index

MAX_SPECS = 8
_NPM_NAME = re.compile(r"(?:@[A-Za-z0-9~-][A-Za-z0-9._~-]*/)?[A-Za-z0-9~-][A-Za-z0-9._~-]*")
_NPM_RANGE = re.compile(r"[A-Za-z0-9^~<>=*][A-Za-z0-9.^~<>=|*+ -]{0,99}")
_PYPI_SPEC = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?P<extras>\[[A-Za-z0-9._-]+(?:,[A-Za-z0-9._-]+)*\])?"
    r"(?P<at>@[A-Za-z0-9.+!]+)?"
    r"(?P<range>(?:==|>=|<=|~=|!=|<|>)[A-Za-z0-9.+!*]+(?:,(?:==|>=|<=|~=|!=|<|>)[A-Za-z0-9.+!*]+)*)?"
)
_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_MAX_NAME = 214  # npm's own bound


class Runner(msgspec.Struct, frozen=True):
    """What a runner is told to run: packages of `index` as they are asked for, and which program of theirs.

    `specs` are (name, range) in npm's words, (name with extras, range) in pip's; the first one's own program is meant
    where `program` is "". `skip` is how many words of the server's `args` all that takes: the rest are the program's.
    """

    index: Index
    specs: tuple[tuple[str, str], ...]
    program: str
    skip: int

    @property
    def asked(self) -> str:
        """The packages as a person writes them."""
        return ", ".join(
            name + ("@" if self.index == "npm" and wanted else "") + wanted for name, wanted in self.specs
        )


class _Grammar(msgspec.Struct, frozen=True):
    """The words of one runner: options without a value, with one that names a package, and whether it takes
    options behind the package, too (then only a `--` ends them)."""

    index: Index
    plain: frozenset[str]
    specs: frozenset[str]
    extra: frozenset[str] = frozenset()
    greedy: bool = False


_NPX = _Grammar("npm", frozenset({"-y", "--yes", "-q", "--quiet"}), frozenset({"-p", "--package"}))
_NPM_EXEC = _Grammar("npm", _NPX.plain, frozenset({"--package"}), greedy=True)
_UVX = _Grammar(
    "pypi", frozenset({"-q", "--quiet", "--no-progress"}), frozenset({"--from"}), frozenset({"--with", "-w"})
)
_PIPX = _Grammar("pypi", frozenset({"-q", "--quiet", "--no-cache"}), frozenset({"--spec"}))
_COMMANDS: Mapping[tuple[str, ...], _Grammar] = {
    ("npx",): _NPX,
    ("npm", "exec"): _NPM_EXEC,
    ("npm", "x"): _NPM_EXEC,
    ("uvx",): _UVX,
    ("uv", "tool", "run"): _UVX,
    ("pipx", "run"): _PIPX,
}
if {words[0] for words in _COMMANDS} != RUNNERS:
    raise AssertionError("each runner has its grammar")


def runner_of(command: str, args: Sequence[str]) -> Runner | None:
    """What the words of a server run from a package index; None for what is no runner.

    Raises McpError for a runner whose words are not understood.
    """
    for words, grammar in _COMMANDS.items():
        if (command, *args[: len(words) - 1]) == words:
            try:
                return _read(grammar, args, len(words) - 1)
            except _UnknownError as error:
                shown = " ".join(words)
                raise McpError(f"the packages of {shown!r} cannot be pinned: {error}", hint=_FORMS) from None
    return None


_FORMS = (
    "Write it as `npx -y [-p PACKAGE@VERSION] PROGRAM …` or `uvx [--from PACKAGE==VERSION] PROGRAM …`, with packages "
    "of the index, or put the server into the repository."
)


class _UnknownError(Exception):
    """Why words are not understood."""


def _read(grammar: _Grammar, args: Sequence[str], at: int) -> Runner:
    specs: list[str] = []
    extras: list[str] = []
    ended = False
    while at < len(args) and args[at].startswith("-") and not ended:
        option, equals, value = args[at].partition("=")
        at += 1
        if option == "--" and not equals:
            ended = True
        elif option in grammar.specs | grammar.extra:
            if not equals:
                value, at = _value(option, args, at)
            (specs if option in grammar.specs else extras).append(value)
        elif equals or option not in grammar.plain:
            raise _UnknownError(f"its option {option!r} is not known here")
    if at >= len(args):
        raise _UnknownError("it names no program")
    if len(specs) > 1 and grammar.index == "pypi":
        raise _UnknownError("it names its package twice")
    word, at = args[at], at + 1
    if grammar.greedy and not ended:
        at = _past_options(args, at)
    return _runner(grammar.index, word, specs, extras, at)


def _value(option: str, args: Sequence[str], at: int) -> tuple[str, int]:
    if at >= len(args):
        raise _UnknownError(f"its option {option} has no value")
    return args[at], at + 1


def _past_options(args: Sequence[str], at: int) -> int:
    """npm takes options also behind the package, up to a `--`."""
    if "--" in args[at:]:
        if args[at] != "--":
            raise _UnknownError("write `npm exec -- PACKAGE …`")
        return at + 1
    if any(word.startswith("-") for word in args[at:]):
        raise _UnknownError("npm would take its options for its own: write `npm exec -- PACKAGE …`")
    return at


def _runner(index: Index, word: str, specs: list[str], extras: list[str], skip: int) -> Runner:
    read = _npm_spec if index == "npm" else _pypi_spec
    if specs and not _PROGRAM.fullmatch(word):
        raise _UnknownError(f"{word[:100]!r} is not the name of a program")
    asked = [read(one) for one in (*(specs or [word]), *extras)]
    if len(asked) > MAX_SPECS or len({name for name, _ in asked}) != len(asked):
        raise _UnknownError(f"it names more than {MAX_SPECS} packages, or one twice")
    program = word if specs else ("" if index == "npm" else asked[0][0].partition("[")[0])
    return Runner(index, tuple(asked), program, skip)


def _npm_spec(text: str) -> tuple[str, str]:
    name, _, wanted = text[1:].partition("@")
    name = text[:1] + name
    if not is_npm_name(name) or (wanted and not _NPM_RANGE.fullmatch(wanted)):
        raise _UnknownError(
            f"{text[:100]!r} is not a package of npm's registry, like name, @scope/name or name@1.2.3"
        )
    return name, wanted


def _pypi_spec(text: str) -> tuple[str, str]:
    match = _PYPI_SPEC.fullmatch(text.replace(" ", ""))
    if match is None or len(text) > _MAX_NAME or (match["at"] and match["range"]):
        raise _UnknownError(
            f"{text[:100]!r} is not a package of the index, like name, name==1.2.3 or name[extra]"
        )
    at = match["at"] or ""
    wanted = match["range"] or ("" if at in ("", "@latest") else f"=={at[1:]}")
    return match["name"] + (match["extras"] or ""), wanted


def is_npm_name(name: str) -> bool:
    """Whether `name` may be a package of npm's: one or two parts of a path that lead nowhere else."""
    return _NPM_NAME.fullmatch(name) is not None and len(name) <= _MAX_NAME
