"""What a program of the guest writes to its terminal, made fit for the user's: pure, chunk by chunk.

What comes out is a row of whole pieces: printable text, a few control characters, and sequences that `allowed` has
judged and `osc` has made anew. No piece is begun before its end is known, and text holds neither ESC nor a C1 control;
so nothing that is left out can make a sequence of what stood before and behind it. Everything else is dropped:
clipboard writes, device queries, DCS, APC, PM and SOS strings, full resets, control characters of eight bits.

It bounds what the guest can do to the terminal, not what it can draw there: while it is shown, the screen is its own.
"""

from __future__ import annotations

import codecs
import re

from coding_agents.terminal.allowed import DRAWING, MAX_SEQUENCE, Allowed
from coding_agents.terminal.osc import CLOSE_LINK, MAX_OSC, link, title

# All characters but C0, DEL and C1; of these BEL, BS, HT, LF and CR, which move no further than their line's end.
_TEXT = r"[^\x00-\x06\x0b-\x0c\x0e-\x1f\x7f-\x9f]"
# Nearly all real output, so that it passes at the speed of a search. No group here is possessive: before Python 3.11.5
# (Debian 12 has 3.11.2) such a one also keeps what an alternative had matched that failed, so ESC [ of any sequence
# (https://github.com/python/cpython/issues/106052).
_PASSING = re.compile(rf"(?:{_TEXT}++|\x1b\[{DRAWING})*", re.ASCII)
_WHOLE = re.compile(rf"\x1b\[([ -?]{{0,{MAX_SEQUENCE - 1}}}[@-~])")
_DROPPED = re.compile(r"[\x00-\x06\x0b-\x0c\x10-\x1a\x1c-\x1f\x7f-\x9f]+")
_IN_STRING = re.compile(r"[^\x07\x18\x1a\x1b\x9c]*+")
_STRINGS = "]PX^_k"  # OSC, DCS, SOS, PM, APC, and the title of screen(1)
_ABORT = "\x18\x1a"  # CAN and SUB end any sequence (ECMA-48)

_GROUND, _ESCAPE, _CONTROL, _STRING, _STRING_END = range(5)


class TerminalFilter:
    """Filters one program's output; `finish` gives the terminal back as it was."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._allowed = Allowed()
        self._state = _GROUND
        self._body = ""  # of the sequence that is under way, without what introduced it
        self._kind = ""  # of the string that is under way
        self._too_long = False
        self._steps = {
            _GROUND: self._ground,
            _ESCAPE: self._escape,
            _CONTROL: self._control,
            _STRING_END: self._string_end,
        }

    def feed(self, data: bytes) -> bytes:
        """What of the next chunk goes to the terminal; a sequence whose end has not come is kept for the next call."""
        return self._convert(self._decoder.decode(data)).encode("utf-8")

    def finish(self) -> bytes:
        """The end of the output: what undoes the modes, colours, links and titles that are left of it."""
        rest = self._convert(self._decoder.decode(b"", final=True))
        self._state = _GROUND
        return (rest + self._allowed.undo()).encode("utf-8")

    def _convert(self, text: str) -> str:
        out: list[str] = []
        position, end = 0, len(text)
        while position < end:
            if self._state == _STRING:
                position = self._string(text, position, out)
            elif self._state == _GROUND and (after := self._run(text, position, out)) > position:
                position = after
            else:
                out.append(self._steps[self._state](text[position]))
                position += 1
        return "".join(out)

    def _run(self, text: str, position: int, out: list[str]) -> int:
        """Take what can be judged at once, as `_steps` would one by one; returns where that ends."""
        passing = _PASSING.match(text, position)
        if passing is not None and passing.end() > position:
            if "\x1b" in passing[0]:
                self._allowed.drew()
            out.append(passing[0])
            return passing.end()
        if whole := _WHOLE.match(text, position):
            out.append(self._allowed.control(whole[1]))
            return whole.end()
        dropped = _DROPPED.match(text, position)
        return dropped.end() if dropped else position

    def _ground(self, char: str) -> str:
        """One character outside of sequences."""
        if char == "\x1b":
            self._state, self._body = _ESCAPE, ""
            return ""
        if char in "\x0e\x0f":
            return self._allowed.shift(char)
        return "" if _DROPPED.match(char) else char

    def _escape(self, char: str) -> str:
        """After ESC: intermediates from space to /, then a final from 0 to ~."""
        if not " " <= char <= "~" or len(self._body) >= MAX_SEQUENCE:
            return self._start_again(char)
        if not self._body and char == "[":
            self._state = _CONTROL
            return ""
        if not self._body and char in _STRINGS:
            self._state, self._kind, self._too_long = _STRING, char, False
            return ""
        self._body += char
        if char <= "/":
            return ""
        self._state = _GROUND
        return self._allowed.escape(self._body)

    def _control(self, char: str) -> str:
        """After ESC [: parameters and intermediates from space to ?, then a final from @ to ~."""
        if not " " <= char <= "~" or len(self._body) >= MAX_SEQUENCE:
            return self._start_again(char)
        self._body += char
        if char < "@":
            return ""
        self._state = _GROUND
        return self._allowed.control(self._body)

    def _string(self, text: str, position: int, out: list[str]) -> int:
        """Inside OSC, DCS, …, which have no end but their own, as terminals have it; returns where to go on."""
        inside = _IN_STRING.match(text, position)
        end = inside.end() if inside else position
        self._keep(text[position:end])
        if end == len(text):
            return end
        char = text[end]
        if char == "\x1b":
            self._state = _STRING_END
        elif char == "\x9c" or (char == "\x07" and self._kind == "]"):
            out.append(self._dispatch())
        elif char in _ABORT:
            self._state = _GROUND
        return end + 1

    def _keep(self, piece: str) -> None:
        if self._kind != "]" or self._too_long:
            return
        self._too_long = len(self._body) + len(piece) > MAX_OSC
        self._body = "" if self._too_long else self._body + piece

    def _string_end(self, char: str) -> str:
        """After ESC in a string: a backslash ends it; anything else begins another sequence, as in any state."""
        if char == "\\":
            return self._dispatch()
        self._state, self._body = _ESCAPE, ""
        return self._escape(char)

    def _dispatch(self) -> str:
        self._state = _GROUND
        if self._kind != "]" or self._too_long:
            return ""
        if (safe := link(self._body)) is not None:
            return self._allowed.link(safe, opens=safe != CLOSE_LINK)
        safe = title(self._body)
        return "" if safe is None else self._allowed.title(safe)

    def _start_again(self, char: str) -> str:
        """What had begun is no sequence, or one that no program sends: it is dropped, and this read afresh."""
        self._state = _GROUND
        return self._ground(char)
