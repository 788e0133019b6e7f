"""Which keys a host has, by the text of known_hosts files (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"). No IO.

Only names written out or hashed count: a pattern with `*` or `?` may mean hosts that nobody thought of.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator

from coding_agents.brokers.sshagent.wire import AgentError, key_type

_MAX_LINE = 16 * 1024


def host_keys(text: str, name: str) -> tuple[bytes, ...]:
    """The public keys of the host `name` (`HOST` or `[HOST]:PORT`), less those that a line revokes."""
    found: dict[bytes, None] = {}
    revoked: set[bytes] = set()
    for marker, names, key in _lines(text):
        if marker == "@revoked":
            revoked.add(key)
        elif not marker and _names(names, name):
            found[key] = None
    return tuple(key for key in found if key not in revoked)


def known_line(name: str, key: bytes) -> str:
    """The line of a known_hosts file that says that `name` has this key."""
    return f"{name} {key_type(key).decode('ascii')} {base64.b64encode(key).decode()}\n"


def _lines(text: str) -> Iterator[tuple[str, str, bytes]]:
    for line in text.splitlines():
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or len(line) > _MAX_LINE:
            continue
        try:
            key = base64.b64decode(words[2], validate=True)
            if key_type(key) == words[1].encode():
                yield marker, words[0], key
        except (AgentError, binascii.Error, ValueError):
            continue


def _names(names: str, wanted: str) -> bool:
    several = names.split(",")
    if f"!{wanted}" in several:
        return False
    return any(one == wanted or (one.startswith("|1|") and _hashes(one, wanted)) for one in several)


def _hashes(text: str, wanted: str) -> bool:
    """Whether `text`, `|1|SALT|HASH`, stands for `wanted`."""
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in text[3:].split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, wanted.encode(), hashlib.sha1).digest(), digest)
