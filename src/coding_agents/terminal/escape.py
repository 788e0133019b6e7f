"""Hostile text made safe to show: pure, independent of how a stream is cut into chunks.

`escape` is for names, subjects and messages: whatever would move the cursor, hide or reorder text becomes a
visible escape. `StreamEscaper` is for output of programs: it keeps text, lines and, where the reader is a
terminal, colours; cursor movement, titles, clipboard writes and device queries are dropped.
"""

from __future__ import annotations

import codecs
import re

# Printable by category, yet drawn as nothing: they hide text or make two names look alike.
_INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00-\ufe0f\U000e0100-\U000e01ef"
_HIDING = re.compile(f"[{_INVISIBLE}]")
_WHOLE = re.compile(r"\r\n|\x1b\[([0-9;:]{0,48})m")
_UNUSUAL = re.compile(r"[^ -~]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

_MAX_SEQUENCE = 64
_MAX_STRING = 4096
_STRINGS = "]PX^_"  # OSC, DCS, SOS, PM, APC
_COLOURS = frozenset({0, 1, 2, 3, 4, 7, 9, 21, 22, 23, 24, 27, 29, 39, 49, *range(30, 38), *range(40, 48)})
_BRIGHT = frozenset({*range(90, 98), *range(100, 108)})


def escape(text: str, *, keep: str = "") -> str:
    """`text` with all that is not plainly visible as `\\x1b`, `\\u202e`, …; `keep` lists exceptions.

    The result is printable (but for `keep`) and is returned unchanged by a second call. It is for
    reading, not reversible: a backslash stays as it is.
    """
    return _UNUSUAL.sub(lambda match: _escape_run(match[0], keep), text)


def _escape_run(run: str, keep: str) -> str:
    if is_visible(run):
        return run
    return "".join(char if char in keep or is_visible(char) else _escaped(char) for char in run)


def is_visible(text: str) -> bool:
    """Whether all of `text` is drawn as what it is: nothing in it hides, moves or reorders."""
    return text.isprintable() and not _HIDING.search(text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as surrogateescape carries it
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class StreamEscaper:
    """Turns a byte stream into safe UTF-8, chunk by chunk. `colours` keeps colours and weights."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._state = _TEXT
        self._sequence = ""
        self._skipped = 0
        self._carriage = False
        self._coloured = False

    def feed(self, data: bytes) -> bytes:
        """The safe form of the next chunk; what is not decided yet is kept for the next call."""
        return self._convert(self._decoder.decode(data))

    def finish(self) -> bytes:
        """What was still held back, and the end of any colour."""
        out = self._convert(self._decoder.decode(b"", final=True))
        if self._carriage:
            out += b"\n"
        self._carriage = False
        self._state = _TEXT
        return out + (b"\x1b[0m" if self._coloured else b"")

    def _convert(self, text: str) -> bytes:
        out: list[str] = []
        position = 0
        while position < len(text):
            if self._state == _TEXT and not self._carriage:
                match = _CONTROL.search(text, position)
                end = match.start() if match else len(text)
                out.append(escape(text[position:end], keep="\n\t"))
                position = end
                if position == len(text):
                    break
                if whole := _WHOLE.match(text, position):
                    # Nearly all control characters of real output; the rest goes one by one.
                    out.append("\n" if whole[1] is None else self._colour(whole[1]))
                    position = whole.end()
                    continue
            out.append(self._step(text[position]))
            position += 1
        return "".join(out).encode("utf-8")

    def _step(self, char: str) -> str:
        """What one character adds to the output, by the state that the characters before it left."""
        if self._carriage:
            self._carriage = char == "\r"
            # A lone carriage return would let a line be overwritten, that is forged: it ends the line.
            return "\n" if char in "\r\n" else "\n" + self._step(char)
        if self._state == _TEXT:
            return self._text(char)
        if self._state == _STRING:
            return self._string(char)
        return self._escape_sequence(char)

    def _text(self, char: str) -> str:
        if char == "\r":
            self._carriage = True
            return ""
        if char == "\x1b":
            self._state, self._sequence = _ESCAPE, ""
            return ""
        return escape(char, keep="\n\t")

    def _escape_sequence(self, char: str) -> str:
        """After ESC: a control sequence ends with one of @ to ~, a short escape with 0 to ~ (ECMA-48)."""
        if not " " <= char <= "~" or len(self._sequence) >= _MAX_SEQUENCE:
            # Not a sequence, or one that no terminal sends: forget it and read on as text.
            self._state = _TEXT
            return self._text(char)
        self._sequence += char
        if self._sequence == "[":
            return ""
        if self._sequence in _STRINGS:
            self._state, self._skipped = _STRING, 0
            return ""
        final = "@" if self._sequence[0] == "[" else "0"
        if char < final:
            return ""
        self._state = _TEXT
        return self._colour(self._sequence[1:-1]) if self._sequence[0] == "[" and char == "m" else ""

    def _colour(self, parameters: str) -> str:
        kept = safe_sgr(parameters) if self._colours else None
        if kept is None:
            return ""
        self._coloured = kept != "0"
        return f"\x1b[{kept}m"

    def _string(self, char: str) -> str:
        """Inside OSC, DCS, …: dropped up to BEL or ST, but never past its line: output must not vanish."""
        self._skipped += 1
        if char == "\x07" or char == "\x9c":
            self._state = _TEXT
        elif char == "\x1b":
            self._state, self._sequence = _ESCAPE, ""
        elif char in "\r\n" or self._skipped > _MAX_STRING:
            self._state = _TEXT
            return self._text(char)
        return ""


_TEXT, _ESCAPE, _STRING = range(3)


def safe_sgr(parameters: str) -> str | None:
    """The parameters of a colour sequence that only colour, or None when nothing of them is left.

    Concealed text (8) and blinking (5, 6) go: what was printed must be there to be read.
    """
    if not re.fullmatch(r"[0-9;:]*", parameters):
        return None
    numbers = re.split("[;:]", parameters)
    kept: list[str] = []
    while numbers:
        number = int(numbers.pop(0) or "0")
        if number in (38, 48):
            count = {"5": 1, "2": 3}.get(numbers[0] if numbers else "", 0)
            arguments, numbers = numbers[: count + 1], numbers[count + 1 :]
            if count and len(arguments) == count + 1 and all(_is_byte(value) for value in arguments):
                kept.append(";".join((str(number), *arguments)))
        elif number in _COLOURS or number in _BRIGHT:
            kept.append(str(number))
    return ";".join(kept) if kept else None


def _is_byte(text: str) -> bool:
    return text.isdecimal() and int(text) < 256
