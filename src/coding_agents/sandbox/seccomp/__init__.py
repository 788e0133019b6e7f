"""The system calls that our containers have: a default-deny profile for each role, the same for both engines.

`calls.toml` says what is allowed and why; `render.py` makes the files that the engines read; this module is what a
launch needs of them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from coding_agents_guest.paths import WATERMARK_FAMILY

_HERE = Path(__file__).parent
_OPTION = "seccomp="


class _Argument(msgspec.Struct):
    index: int
    valueTwo: int


class _Rule(msgspec.Struct):
    names: list[str]
    errnoRet: int = 0
    args: list[_Argument] = []


class _File(msgspec.Struct):
    syscalls: list[_Rule]


class Profile(msgspec.Struct, frozen=True):
    """One profile: `path` of its file, `text` as an engine that takes it in repeats it, and its `watermark`.

    The watermark is the error number with which it, and no other profile, answers the call of `watermark.py`.
    """

    path: str
    text: str
    watermark: int

    @property
    def option(self) -> str:
        """The value of `--security-opt`."""
        return _OPTION + self.path

    def is_in(self, option: str) -> bool:
        """Whether an engine's account of a security option is this profile: by its content, or by its path."""
        return option in (_OPTION + self.text, self.option)


@cache
def profile(name: str) -> Profile:
    """The profile `agent`, `ptrace` (the same with debuggers) or `holder`."""
    path = _HERE / f"{name}.json"
    content = path.read_bytes()
    rules = msgspec.json.decode(content, type=_File).syscalls
    marks = [
        rule.errnoRet
        for rule in rules
        if rule.names == ["socket"] and [(a.index, a.valueTwo) for a in rule.args] == [(0, WATERMARK_FAMILY)]
    ]
    return Profile(str(path), msgspec.json.format(content, indent=-1).decode(), marks[0])


def is_seccomp(option: str) -> bool:
    """Whether a security option names a profile, ours or another."""
    return option.startswith(_OPTION)
