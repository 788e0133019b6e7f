"""A small model of a terminal, written from ECMA-48 and xterm's ctlseqs and not from our filter.

It is as obliging as the most obliging terminal: C1 controls of eight bits work, control characters act inside of
sequences, and whatever is not known to be harmless is an offence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_STRINGS = {"P": "DCS", "]": "OSC", "X": "SOS", "^": "PM", "_": "APC", "k": "title of screen"}
_HARMLESS_C0 = set("\a\b\t\n\r\x0e\x0f")
_HARMLESS_CSI = re.compile(r"[0-9;]*[@A-ILMPSXZ`abdef]|[0-2]?[JK]|[0-9]*T|s|u|!p")
_FLAGS = {
    "4h": ("insert", True),
    "4l": ("insert", False),
    " q": ("cursor style", False),
    "0 q": ("cursor style", False),
    **{f"{number} q": ("cursor style", True) for number in range(1, 7)},
}
_MOUSE_AND_REPORTS = {1000, 1002, 1003, 1004, 1006}
_ORDINARY = {1: False, 7: True, 25: True, 2004: False, 2026: False} | dict.fromkeys(_MOUSE_AND_REPORTS, False)
_WEB = re.compile(r"https?://[^/?#@\\\s]+([/?#][\x21-\x7e]*)?")


@dataclass
class ModelTerminal:
    """Reads a stream; `offences` are what it must not have been told, `left` what it is not as it was."""

    offences: list[str] = field(default_factory=list)
    printed: str = ""
    titles: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    _state: str = "ground"
    _sequence: str = ""
    _string: str = ""
    _left: dict[str, object] = field(default_factory=dict)
    _title_depth: int = 0

    def reads(self, stream: bytes) -> ModelTerminal:
        """Read a whole stream, which has to end between sequences."""
        for char in stream.decode("utf-8"):  # strictly: what is not UTF-8 is a failure
            self._read(char)
        if self._state != "ground":
            self.offences.append(f"ends within {self._state}")
        return self

    @property
    def left(self) -> dict[str, object]:
        return {name: value for name, value in self._left.items() if value}

    def _read(self, char: str) -> None:
        code = ord(char)
        if 0x80 <= code <= 0x9F:
            self.offences.append(f"C1 {code:#x}")
            self._state = "ground"
        elif char in "\x18\x1a":
            self.offences.append("CAN or SUB")
            self._state = "ground"
        elif char == "\x1b":
            if self._state == "string":
                self._end_string()
            self._state, self._sequence = "escape", ""
        elif self._state == "string":
            if char == "\a" and self._string == "OSC":
                self._end_string()
            else:
                self._sequence += char
        elif code < 0x20 or code == 0x7F:
            self._control_character(char)
        elif self._state == "ground":
            self.printed += char
        else:
            self._sequence += char
            self._sequence_character(char)

    def _control_character(self, char: str) -> None:
        if char not in _HARMLESS_C0:
            self.offences.append(f"C0 {char!r}")
        if self._state != "ground":
            self.offences.append(f"C0 {char!r} inside of a sequence")
        if char in "\x0e\x0f":
            self._left["shift"] = char == "\x0e"

    def _sequence_character(self, char: str) -> None:
        if self._state == "escape":
            if self._sequence in _STRINGS:
                self._state, self._string, self._sequence = "string", _STRINGS[self._sequence], ""
            elif self._sequence == "[":
                self._state, self._sequence = "control", ""
            elif char >= "0":
                self._state = "ground"
                self._escape(self._sequence)
        elif char >= "@":
            self._state = "ground"
            self._control(self._sequence)

    def _escape(self, sequence: str) -> None:
        if sequence in ("=", ">"):
            self._left["keypad"] = sequence == "="
        elif sequence in ("(B", "(0", ")B", ")0"):
            self._left["charset " + sequence[0]] = sequence[1] == "0"
        elif sequence not in ("7", "8", "D", "E", "M", "\\"):
            self.offences.append(f"ESC {sequence}")

    def _control(self, sequence: str) -> None:
        parsed = re.fullmatch(r"([<=>?]?)([0-9:;]*)([ -/]*)([@-~])", sequence)
        if parsed is None:
            self.offences.append(f"CSI {sequence}")
            return
        private, parameters, intermediate, final = parsed.groups()
        numbers = [int(one or 0) for one in re.split("[:;]", parameters)]
        if len(numbers) > 32 or any(number > 99999 for number in numbers):
            self.offences.append(f"CSI {sequence}: numbers without bounds")
        if private == "?" and not intermediate and final in "hl":
            for number in numbers:
                self._mode(number, final == "h")
        elif sequence in _FLAGS:
            name, value = _FLAGS[sequence]
            self._left[name] = value
        elif sequence in ("22;0t", "23;0t"):
            self._keep_title(push=sequence == "22;0t")
        elif final == "m" and not private and not intermediate:
            self._left["colours"] = parameters not in ("", "0")
        elif re.fullmatch(r"[0-9]*(;[0-9]*)?r", sequence):
            self._left["margins"] = sequence != "r"
        elif not _HARMLESS_CSI.fullmatch(sequence):
            self.offences.append(f"CSI {sequence}")

    def _mode(self, number: int, value: bool) -> None:
        if number in (47, 1047, 1049):
            self._left["alternate screen"] = value
        elif number in _ORDINARY:
            self._left[f"mode {number}"] = value != _ORDINARY[number]
        elif number != 1048:
            self.offences.append(f"mode {number}")

    def _keep_title(self, *, push: bool) -> None:
        """Ours alone: once before the first title, and once at the end."""
        self._title_depth += 1 if push else -1
        if self._title_depth not in (0, 1) or (push and self.titles):
            self.offences.append("title stack")
        self._left["title"] = self._left.get("title") and push

    def _end_string(self) -> None:
        self._state = "ground"
        number, _, text = self._sequence.partition(";")
        if self._string != "OSC":
            self.offences.append(f"{self._string} string")
        elif number in ("0", "2"):
            self._left["title"] = True
            self.titles.append(text)
            if not text.isprintable() or len(text) > 200 or self._title_depth != 1:
                self.offences.append(f"title {text!r}")
        elif number == "8":
            self._link(text)
        else:
            self.offences.append(f"OSC {self._sequence}")

    def _link(self, text: str) -> None:
        parameters, _, url = text.partition(";")
        self._left["link"] = url
        if url:
            self.links.append(url)
        good = url.isascii() and len(url) <= 2048 and (not url or _WEB.fullmatch(url))
        if not good or not re.fullmatch(r"(id=[\w.-]{1,64})?", parameters, re.ASCII):
            self.offences.append(f"link {text!r}")
