"""The two operating system commands that a guest may give a terminal, made anew: a title and a link. Pure.

All others are dropped: they write the clipboard (52), ask (4, 10, 11), change colours that stay, notify, or run what
one terminal has invented (1337, 777).
"""

from __future__ import annotations

import re

from coding_agents.terminal.escape import is_visible

MAX_OSC = 4096
"""The longest command that is looked at, in characters."""

CLOSE_LINK = "\x1b]8;;\x07"

_MAX_TITLE = 200
_MAX_URL = 2048
# A host in ASCII, so that a name in another script shows as xn--…, and nothing before it that passes for a host: no
# user, and no backslash, which browsers take for a slash. The rest is RFC 3986's alphabet.
_URL = re.compile(
    r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?#][A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?",
    re.ASCII,
)
_LINK_ID = re.compile(r"(?:.*:)?id=([A-Za-z0-9._-]{1,64})(?::.*)?", re.ASCII)


def title(command: str) -> str | None:
    """The whole safe sequence for a command that sets a title (`0;TEXT`, `2;TEXT`), None for any other one."""
    number, separator, text = command.partition(";")
    if number not in ("0", "2") or not separator:
        return None
    plain = "".join(char for char in text if is_visible(char))
    return f"\x1b]{number};{plain[:_MAX_TITLE]}\x07"


def link(command: str) -> str | None:
    """The whole safe sequence for a command that begins or ends a link (`8;PARAMETERS;URL`), None for any other one.

    A link that is no plain web address ends the one before it: its text is shown and leads nowhere.
    """
    number, _, rest = command.partition(";")
    parameters, separator, url = rest.partition(";")
    if number != "8" or not separator:
        return None
    if len(url) > _MAX_URL or not _URL.fullmatch(url):
        return CLOSE_LINK
    name = _LINK_ID.fullmatch(parameters)
    return f"\x1b]8;{f'id={name[1]}' if name else ''};{url}\x07"
