"""Signing as values: whose key signs, and what git's configuration says of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

Mode = Literal["user", "session", "merge", "off"]
"""Who signs a session's commits: the user's key while it runs, a key of its own, the user's key at merge, nobody."""

MODES = ("user", "auto", "session", "merge", "off")
"""What the setting may say, from widest to strictest; `auto` is `user` where the user signs commits, else `off`."""

LIVE = ("user", "session")
"""The modes in which commits are signed while the session runs."""

Format = Literal["openpgp", "ssh"]

SIGNING_KEYS = (
    r"^(user\.(name|email|signingkey)|commit\.gpgsign|gpg\.(format|program)|gpg\.(openpgp|ssh)\.program)$"
)
"""What `git config --get-regexp` is asked for."""

# A program is never taken from the repository: whoever wrote its configuration would run on this host.
_USERS_OWN = ("system", "global")
_LITERAL = re.compile(r"(?:key::)?((?:ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+)(?: .*)?")


class SigningConfig(msgspec.Struct, frozen=True):
    """What the user's git says. `format` is "" for one that is not known here, `key` "" when none is named.

    `program` is that of the format, `signs` whether commits are signed without being asked, `name` and `email` are the
    user's.
    """

    format: Format | Literal[""] = "openpgp"
    key: str = ""
    program: str = "gpg"
    signs: bool = False
    name: str = ""
    email: str = ""


def parse_signing(listing: str) -> SigningConfig:
    """The configuration in `git config --null --show-scope --get-regexp SIGNING_KEYS`; of each key the last counts."""
    last: dict[str, str] = {}
    for scope, key, value in _entries(listing):
        if not key.endswith(".program") or scope in _USERS_OWN:
            last[key] = value
    said = last.get("gpg.format", "openpgp").lower()
    kind: Format | Literal[""] = "ssh" if said == "ssh" else "openpgp" if said == "openpgp" else ""
    programs = {
        "openpgp": last.get("gpg.openpgp.program", last.get("gpg.program", "gpg")),
        "ssh": last.get("gpg.ssh.program", "ssh-keygen"),
        "": "",
    }
    return SigningConfig(
        kind,
        last.get("user.signingkey", ""),
        programs[kind],
        last.get("commit.gpgsign", "false").lower() in ("true", "yes", "on", "1"),
        last.get("user.name", ""),
        last.get("user.email", ""),
    )


def literal_ssh_key(text: str) -> str:
    """The public key that `text` itself is (type and base64), as in `key::ssh-ed25519 AAAA…`; "" for none.

    >>> literal_ssh_key("key::ssh-ed25519 AAAA ada@host"), literal_ssh_key("~/.ssh/id")
    ('ssh-ed25519 AAAA', '')
    """
    match = _LITERAL.fullmatch(text.strip())
    return match[1] if match is not None else ""


def _entries(listing: str) -> Iterator[tuple[str, str, str]]:
    """Scope, key and value; a key without a value means true."""
    fields = listing.split("\0")
    for scope, record in zip(fields[::2], fields[1::2], strict=False):
        key, found, value = record.partition("\n")
        yield scope, key, value if found else "true"
