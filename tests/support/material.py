"""Looks for secrets in whatever came out of a container, an engine or a log, in the spellings they take on the way."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from support.keys import GpgHome, SshKey

LEAST = 12
"""Bytes: shorter pieces are found everywhere by chance."""


@dataclass(frozen=True)
class Secret:
    """`name` is what a failed test says, never the value."""

    name: str
    value: bytes = field(repr=False)


def text_secret(name: str, value: str) -> Secret:
    """A token or a password."""
    return Secret(name, value.encode())


def ssh_secret(name: str, key: SshKey) -> Secret:
    """The part of a private key file that is secret: the middle of its base64, on which the public half has no part."""
    body = "".join(key.secret.splitlines()[1:-1])
    raw = base64.b64decode(body)
    return Secret(name, raw[-80:-32])  # behind the public half: the seed, before comment and padding


def gpg_secret(name: str, home: GpgHome) -> Secret:
    """The secret packet of an exported key: its end, behind the public key's numbers."""
    lines = home.secret.splitlines()
    body = "".join(lines[lines.index("") + 1 :]).split("=")[0]
    raw = base64.b64decode(body + "=" * (-len(body) % 4))
    length = raw[1]  # a one-byte length, after the tag of an old-format packet (RFC 4880, 4.2.1)
    return Secret(name, raw[2 : 2 + length][-36:-2])


def spellings(secret: bytes) -> dict[str, re.Pattern[bytes]]:
    """How a secret may be written: as it is, hexadecimal, in base64 at each of three offsets, percent-encoded.

    Base64 is looked for across line breaks."""
    found = {"plain": secret, "hex": secret.hex().encode(), "percent": quote(secret, safe="").encode()}
    patterns = {name: re.compile(re.escape(value), re.IGNORECASE) for name, value in found.items()}
    for offset in range(3):
        # The first and the last group also hold bits of what stands beside it.
        body = base64.b64encode(b"\0" * offset + secret)
        body = body[4 if offset else 0 : len(body) - 4]
        for name, text in (("base64", body), ("base64url", body.translate(bytes.maketrans(b"+/", b"-_")))):
            gaps = rb"[\s\\n]*".join(re.escape(text[at : at + 1]) for at in range(len(text)))
            patterns[f"{name} at {offset}"] = re.compile(gaps)
    return patterns


def found_in(places: Mapping[str, bytes], secrets: Iterable[Secret]) -> list[str]:
    """`SECRET is in PLACE, SPELLING` for each that is there; a test wants none."""
    hits = list[str]()
    for secret in secrets:
        assert len(secret.value) >= LEAST, f"{secret.name} is too short to be looked for"
        for spelling, pattern in spellings(secret.value).items():
            hits += [
                f"{secret.name} is in {place}, {spelling}"
                for place, data in places.items()
                if pattern.search(data)
            ]
    return hits


def files_below(root: Path, *, most: int = 64 << 20) -> dict[str, bytes]:
    """All regular files of a directory, by path; git objects unpacked, as `git cat-file` shows them."""
    found = dict[str, bytes]()
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= most:
            found[str(path)] = path.read_bytes()
        if path.is_dir() and (path / "objects").is_dir() and (path / "HEAD").is_file():
            found[f"{path} (objects)"] = objects_of(path)
    return found


def objects_of(repository: Path) -> bytes:
    """All objects of a repository in one text."""
    argv = ("git", "-C", str(repository), "cat-file", "--batch-all-objects", "--batch")
    return subprocess.run(argv, capture_output=True, timeout=120, check=True).stdout
