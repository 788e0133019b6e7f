"""Which control sequences of a guest reach the user's terminal, and how each that stays is undone. Pure.

Allowed is what tmux and full-screen programs draw with. Left out, beside all that is unknown: whatever makes a terminal
answer (device attributes, status and mode reports, window operations), what prints, what locks or re-encodes the
keyboard (modes 2, 8, 1034, the protocols of kitty and xterm for more keys), what forgets what was there before
(full reset, erasure of the scrollback), and what no reset brings back (tab stops, palettes).
"""

from __future__ import annotations

import re

_NUMBERS = r"(?:[0-9]{0,5};){0,31}[0-9]{0,5}"
_COLOURS = r"(?:[0-9]{0,5}[;:]){0,31}[0-9]{0,5}"

MAX_SEQUENCE = 200
"""The longest control sequence that is looked at, in characters: 32 numbers."""

# Finals by what they may carry. Cursor: @ABCDEFGHIZ`abdef; erase and shift: JKLMPXST. `b` repeats a character.
DRAWING = (
    r"(?:"
    rf"{_COLOURS}m"  # colours and weights
    r"|[0-9]{0,5}(?:;[0-9]{0,5})?[Hf]"
    r"|[0-9]{0,5}[@A-GILMPSTXZ`abde]"
    r"|[012]?[JK]"  # 3J would erase the scrollback, which is not the guest's
    r")"
)
"""A control sequence, without its ESC [, that only draws: nothing but colours is left of it."""

_DRAWING = re.compile(DRAWING, re.ASCII)
_MARGINS = re.compile(r"[0-9]{0,5}(?:;[0-9]{0,5})?r", re.ASCII)
_CURSOR_STYLE = re.compile(r"[0-6]? q", re.ASCII)
_MODES = re.compile(rf"(\??)({_NUMBERS})[hl]", re.ASCII)
_PLAIN = frozenset({"s", "u", "!p"})  # save and restore the cursor; soft reset

_ALTERNATE = frozenset({47, 1047, 1049})
# Mode → the letter of its ordinary state (xterm's ctlseqs, "DEC Private Mode Set").
_PRIVATE = {
    2026: "l",  # synchronized output
    **dict.fromkeys((1000, 1002, 1003, 1006), "l"),  # mouse
    1004: "l",  # focus
    2004: "l",  # bracketed paste
    1: "l",  # cursor keys
    7: "h",  # wrap at the margin
    25: "h",  # cursor visible
    **dict.fromkeys(_ALTERNATE, "l"),
}
_STATELESS = frozenset({1048})  # save and restore the cursor
_INSERT = 4

_ESCAPES = frozenset({"7", "8", "D", "E", "M"})  # save, restore the cursor; index, next line, reverse index
_KEYPAD = {"=": True, ">": False}
_CHARSETS = frozenset({"(B", "(0", ")B", ")0"})  # ASCII and line drawing
_PUSH_TITLE, _POP_TITLE = "\x1b[22;0t", "\x1b[23;0t"


class Allowed:
    """Judges one whole sequence after the other, and knows what they leave on the terminal."""

    def __init__(self) -> None:
        self._modes: set[int] = set()  # private modes that are not in their ordinary state
        self._insert = False
        self._keypad = False
        self._charsets = False
        self._margins = False
        self._cursor_style = False
        self._link = False
        self._titled = False
        self._drawn = False

    def drew(self) -> None:
        """Sequences that only draw (`DRAWING`) have passed without being asked for."""
        self._drawn = True

    def control(self, body: str) -> str:
        """What passes of the control sequence ESC [ `body`: all of it, some of its modes, or nothing."""
        final = body[-1]
        if final in "hl":
            match = _MODES.fullmatch(body)
            return self._set_modes(match[1], match[2], final) if match else ""
        if final == "r" and _MARGINS.fullmatch(body):
            self._margins = True
        elif final == "q" and _CURSOR_STYLE.fullmatch(body):
            self._cursor_style = body not in (" q", "0 q")
        elif _DRAWING.fullmatch(body):
            self._drawn = True
        elif body not in _PLAIN:
            return ""
        return f"\x1b[{body}"

    def escape(self, body: str) -> str:
        """What passes of the short sequence ESC `body`."""
        if body in _KEYPAD:
            self._keypad = _KEYPAD[body]
        elif body in _CHARSETS:
            self._charsets = True
        elif body not in _ESCAPES:
            return ""
        return f"\x1b{body}"

    def shift(self, char: str) -> str:
        """SO and SI: the other character set and back."""
        self._charsets = True
        return char

    def link(self, sequence: str, *, opens: bool) -> str:
        """What passes of a link that was made anew: no end of one that has not begun."""
        was, self._link = self._link, opens
        return sequence if was or opens else ""

    def title(self, sequence: str) -> str:
        """A title that was made anew; the first one has the terminal keep its own."""
        first, self._titled = not self._titled, True
        return (_PUSH_TITLE if first else "") + sequence

    def undo(self) -> str:
        """What brings the terminal back from all that has passed."""
        modes = [mode for mode in _PRIVATE if mode in self._modes - _ALTERNATE]
        parts = (
            "\x1b]8;;\x07" if self._link else "",
            # Before anything is put right: each screen has a saved cursor of its own.
            "\x1b[?1049l" if self._modes & _ALTERNATE else "",
            *(f"\x1b[?{mode}{_PRIVATE[mode]}" for mode in modes),
            "\x0f\x1b(B\x1b)B" if self._charsets else "",
            "\x1b[0m" if self._drawn else "",
            "\x1b7\x1b[r\x1b8" if self._margins else "",  # setting margins moves the cursor home
            "\x1b[4l" if self._insert else "",
            "\x1b[0 q" if self._cursor_style else "",
            "\x1b>" if self._keypad else "",
            _POP_TITLE if self._titled else "",
        )
        return "".join(parts)

    def _set_modes(self, private: str, numbers: str, letter: str) -> str:
        """What passes of it, each mode in its one spelling: what terminals make of leading zeros is theirs."""
        modes = [int(number) for number in numbers.split(";") if number]
        kept = [str(mode) for mode in modes if self._set_mode(private, mode, letter)]
        return f"\x1b[{private}{';'.join(kept)}{letter}" if kept else ""

    def _set_mode(self, private: str, mode: int, letter: str) -> bool:
        if not private:
            self._insert = letter == "h" if mode == _INSERT else self._insert
            return mode == _INSERT
        if mode in _ALTERNATE:
            self._modes -= _ALTERNATE
        if mode in _PRIVATE:
            self._modes = self._modes - {mode} if letter == _PRIVATE[mode] else self._modes | {mode}
        return mode in _PRIVATE or mode in _STATELESS
