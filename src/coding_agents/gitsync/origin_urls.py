"""How origin's address is written elsewhere, so that git in a session brings all its spellings to us. Pure.

git rewrites by the beginning of an address and has no way to say where it is to end (git-config(1), `url.*.insteadOf`):
a rule for `https://host/team/app` would take `https://host/team/app-docs`, too. The longest rule wins, so for each
character that a longer name may have next, one more rule leaves such an address as it is. The whole is bounded: git
reads it with each command.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from coding_agents.errors import CloneError
from coding_agents.gitsync.urls import parse_url
from coding_agents.model.gitconfig import Section
from coding_agents.model.origin import Origin

_HOST = "git://coding-agents/"
_NEXT = (*string.ascii_letters, *string.digits, "-", "_", ".", "~", "+", "%")
_NEXT_AFTER_GIT = (*string.ascii_lowercase, "-", "_", ".")  # as of app.github.io
_MOST = 256 * 1024
_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}


def guest_sections(origins: Sequence[Origin]) -> tuple[Section, ...]:
    """The rules by which git in a session comes to us for its origins.

    What cannot be written is left out, and what is beyond the bound: the last ones, and of each the rarer spellings.
    """
    sections: list[Section] = []
    seen: set[str] = set()
    left = _MOST
    for origin in origins:
        rules: list[tuple[str, str]] = []
        for address in (origin.fetch, *((origin.push,) if origin.push else ()), *origin.rewritten):
            for spelling in _spellings(address):
                longer = [f"{spelling}{more}" for more in _NEXT]
                longer += [f"{spelling}.git{more}" for more in _NEXT_AFTER_GIT]
                size = sum(2 * len(one.encode("utf-8", "surrogateescape")) + 30 for one in longer)
                if spelling in seen or not spelling.isprintable() or size > left:
                    continue
                seen.add(spelling)
                left -= size
                rules += [("insteadOf", f"{spelling}{end}") for end in (".git/", ".git", "/", "")]
                sections += [Section("url", (("insteadOf", one),), one) for one in longer]
        sections.append(Section("url", tuple(rules), f"{_HOST}{origin.place}"))
    return tuple(sections)


def same_address(one: str, other: str) -> bool:
    """Whether two addresses are one, written in two ways."""
    return bool(set(_spellings(one)) & set(_spellings(other)))


def _spellings(address: str) -> Iterator[str]:
    """Ways to write it, each without `.git` or a slash at its end; the common ones of a server with common ports."""
    try:
        url = parse_url(address)
    except CloneError:
        return
    if url is None or address.startswith("file:"):
        yield address.rstrip("/").removesuffix(".git")
        return
    scheme, user, host, port, path = _parts(address)
    if not path or not host:
        return
    yield address.rstrip("/").removesuffix(".git")
    users = tuple(dict.fromkeys(("git", *((user,) if user else ()))))
    if port is not None and port != _PORTS.get(scheme):
        names = (f"{one}@" for one in ("", *users)) if scheme == "ssh" else ("",)
        yield from (f"{scheme}://{name.lstrip('@')}{host}:{port}/{path}" for name in names)
        return
    yield from (f"https://{host}/{path}", f"https://git@{host}/{path}", f"ssh://{host}/{path}")
    for one in users:
        yield from (f"ssh://{one}@{host}/{path}", f"{one}@{host}:{path}")


def _parts(address: str) -> tuple[str, str, str, int | None, str]:
    """Scheme, user, host, port and path without a slash in front and `.git` behind."""
    if "://" in address:
        parts = urlsplit(address)
        user, host, port, path = parts.username or "", parts.hostname or "", parts.port, parts.path
        scheme = parts.scheme.lower()
    else:
        where, _, path = address.partition(":")
        user, _, host = where.rpartition("@")
        scheme, port = "ssh", None
    return scheme, user, host.lower(), port, path.strip("/").removesuffix(".git")
