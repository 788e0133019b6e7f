"""What the content of a file tells: secrets, characters that deceive a reader, programs. Pure.

Patterns work on bytes, need time in proportion to the content, and are compared with the old content only
where the new one has a hit: what was there before is not a finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from coding_agents.gitsync.findings.model import Finding, Severity
from coding_agents.gitsync.findings.rules import Rules, SecretRule

_BINARY_LOOK = 8000  # as git decides it (xdiff-interface.c, buffer_is_binary)
# ELF, PE, Mach-O (three kinds, and the universal one, which is that of Java too), WebAssembly
_PROGRAMS = (
    b"\x7fELF", b"MZ", b"\xfe\xed\xfa", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\0asm",
)  # fmt: skip
_LONGEST_LIST = 20
# How many hits of one file are compared with its old content; the next one counts as new, whatever it is.
_MAX_HITS = 100_000

OldContent = Callable[[], bytes]


class _Deceit:
    """Characters that make a text look other than it is. Each pattern takes at most a few bytes from any start."""

    # Embeddings, overrides, isolates: "Trojan Source", CVE-2021-42574.
    BIDI = re.compile(rb"\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]")
    # Direction marks, zero width, fillers, tags and variation selectors that are no part of a script or an emoji.
    INVISIBLE = re.compile(
        rb"\xe2\x80[\x8b\x8e\x8f]|\xd8\x9c|\xe2\x81[\xa0-\xa4]|\xcd\x8f|\xe1\x85[\x9f\xa0]|\xe3\x85\xa4|\xef\xbe\xa0"
        rb"|(?<=[A-Za-z0-9_])(?:\xe2\x80[\x8c\x8d]|\xef\xbb\xbf|\xc2\xad)"
        rb"|\xf3\xa0[\x84-\x87][\x80-\xbf]|(?:\xef\xb8[\x80-\x8f]){2}"
        rb"|(?<!\xf0\x9f\x8f\xb4)(?<!\xf3\xa0[\x80\x81][\x80-\xbf])\xf3\xa0[\x80\x81][\x80-\xbf]"
    )
    # What a terminal obeys. Tab, line feed, form feed and carriage return before a line feed are text.
    CONTROL = re.compile(rb"[\x01-\x08\x0b\x0e-\x1f\x7f]|\xc2[\x80-\x9f]|\r(?![\n\r]|\Z)")


_DECEITS = (
    ("text.bidi", Severity.BLOCK, _Deceit.BIDI, "characters that reorder the text"),
    ("text.invisible", Severity.WARN, _Deceit.INVISIBLE, "invisible characters"),
    ("text.control", Severity.WARN, _Deceit.CONTROL, "control characters"),
)


def judge_content(
    path: str, data: bytes, old: OldContent, rules: Rules, *, executable: bool
) -> Iterator[Finding]:
    """Findings about what `data` has and the content that `old` gives has not."""
    binary = is_binary(data)
    for rule in rules.secrets:
        found = _new_secret_lines(rule, data, old)
        if found.numbers:
            where = "" if binary else f" in {found}"
            yield Finding(rule.id, rule.severity, path, f"{rule.detail}{where}")
    if binary:
        yield _binary(path, data, old, executable=executable)
        return
    for rule_id, severity, pattern, what in _DECEITS:
        found = _new_lines(pattern, data, old)
        if found.numbers:
            yield Finding(rule_id, severity, path, f"{what} in {found}")


def is_binary(data: bytes) -> bool:
    """Whether git would call it binary."""
    return b"\0" in data[:_BINARY_LOOK]


def _binary(path: str, data: bytes, old: OldContent, *, executable: bool) -> Finding:
    if executable or data.startswith(_PROGRAMS):
        return Finding("binary.program", Severity.WARN, path, "a program that cannot be read")
    before = old()
    if before and not is_binary(before):
        return Finding("binary.was-text", Severity.WARN, path, "was text, and cannot be read any more")
    return Finding("binary", Severity.NOTE, path, f"binary, {len(data)} bytes")


def _new_secret_lines(rule: SecretRule, data: bytes, old: OldContent) -> _Lines:
    """Lines with a value that the old content has not."""
    known: frozenset[bytes] | None = None
    lines = _Lines(data)
    for number, (offset, value) in enumerate(islice(rule.values(data), _MAX_HITS + 1)):
        if known is None:
            known = frozenset(value for _, value in islice(rule.values(old()), _MAX_HITS))
        if (value not in known or number == _MAX_HITS) and not lines.add(offset):
            break
    return lines


def _new_lines(pattern: re.Pattern[bytes], data: bytes, old: OldContent) -> _Lines:
    """Lines with a match of `pattern` that are not lines of the old content."""
    lines = _Lines(data)
    if data.isascii() and pattern is not _Deceit.CONTROL:
        return lines
    known: frozenset[int] | None = None
    for number, (offset, line) in enumerate(islice(_lines_with(pattern, data), _MAX_HITS + 1)):
        if known is None:
            known = frozenset(line for _, line in islice(_lines_with(pattern, old()), _MAX_HITS))
        if (line not in known or number == _MAX_HITS) and not lines.add(offset):
            break
    return lines


def _lines_with(pattern: re.Pattern[bytes], data: bytes) -> Iterator[tuple[int, int]]:
    """Offset of the first match in each line, and the hash of the whole line."""
    position = 0
    while match := pattern.search(data, position):
        start = data.rfind(b"\n", 0, match.start()) + 1
        end = data.find(b"\n", match.end())
        position = end + 1 if end >= 0 else len(data)
        yield match.start(), hash(data[start:position])


class _Lines:
    """Numbers of the lines at growing offsets, each once, counted in one pass; the first twenty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0
        self._line = 1
        self.numbers: list[int] = []

    def add(self, offset: int) -> bool:
        """Add the line at `offset`; False when the list is full."""
        self._line += self._data.count(b"\n", self._offset, offset)
        self._offset = offset
        if not self.numbers or self.numbers[-1] != self._line:
            self.numbers.append(self._line)
        return len(self.numbers) < _LONGEST_LIST

    def __str__(self) -> str:
        more = " and more" if len(self.numbers) == _LONGEST_LIST else ""
        return f"line{'s' if len(self.numbers) > 1 else ''} {', '.join(map(str, self.numbers))}{more}"
