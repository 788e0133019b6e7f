"""What a guest's git asks of a credential helper, read strictly (git-credential(1), "Input/output format").

Nothing of it is passed on: from what is understood the host asks its own git anew (`fill_input`). So a line that two
programs read differently (CVE-2020-5260: a line break in a value; CVE-2024-52006: a carriage return that some helpers
take for one; CVE-2024-50349: what `%` stands for) has nowhere to go, and is refused all the same.
"""

from __future__ import annotations

import re

import msgspec

from coding_agents.model.release import parse_host, parse_path

MAX_REQUEST = 16 * 1024
"""Bytes; servers may send long `www-authenticate` headers, which git repeats."""
_MAX_LINES = 64
_ASKED = ("protocol", "host", "path", "username")
# Told by git beside the question, and of no use here; a list may be told several times.
_IGNORED = frozenset({"capability[]", "wwwauth[]", "state[]", "ephemeral", "continue"})
_USER = re.compile(r"[A-Za-z0-9._+@-]{1,200}")


class RequestError(ValueError):
    """It is not answered, for a reason that the guest is told. The message repeats nothing of it."""


class CredentialRequest(msgspec.Struct, frozen=True):
    """A credential for this place: host in its one spelling, segments of the path, the account that is meant or ""."""

    host: str
    path: tuple[str, ...]
    username: str = ""

    @property
    def url(self) -> str:
        """The place, for people and records."""
        return f"https://{self.host}/{'/'.join(self.path)}"


def parse_request(data: bytes) -> CredentialRequest:
    """The request in `data`: lines `KEY=VALUE` up to an empty line or the end. Raises RequestError."""
    if len(data) > MAX_REQUEST:
        raise RequestError(f"a request for a credential has at most {MAX_REQUEST} bytes")
    if b"\0" in data or b"\r" in data:
        raise RequestError("a request for a credential holds no NUL and no carriage return")
    told = _told(data)
    protocol = told.get("protocol", "")
    if protocol != "https":
        raise RequestError(
            "credentials are given for https alone: with all else they would travel in the clear"
        )
    if not told.get("path"):
        raise RequestError(
            "the request names no path, and credentials are released by path; set credential.useHttpPath=true"
        )
    username = told.get("username", "")
    if username and not _USER.fullmatch(username):
        raise RequestError("the name of the account is not plain text")
    try:
        return CredentialRequest(parse_host(told.get("host", "")), parse_path(told["path"]), username)
    except ValueError as error:
        raise RequestError(str(error)) from None


def fill_input(request: CredentialRequest, user: str = "") -> bytes:
    """What the host's own `git credential fill` is asked; `user` is the entry's account, never the guest's word."""
    lines = ["protocol=https", f"host={request.host}", f"path={'/'.join(request.path)}"]
    if user:
        lines.append(f"username={user}")
    return "".join(f"{line}\n" for line in (*lines, "")).encode("ascii")


def _told(data: bytes) -> dict[str, str]:
    """The values that count, each at most once."""
    told: dict[str, str] = {}
    lines = data.split(b"\n")
    if len(lines) > _MAX_LINES:
        raise RequestError(f"a request for a credential has at most {_MAX_LINES} lines")
    for number, line in enumerate(lines):
        if not line:
            if any(lines[number:]):
                raise RequestError("a request for a credential ends with its empty line")
            break
        key, equals, value = line.partition(b"=")
        name = key.decode("ascii", "replace")
        if not equals or (name not in _ASKED and name not in _IGNORED):
            raise RequestError("the request holds a line that is not known")
        if name in _IGNORED:
            continue
        text = value.decode("ascii", "replace")
        if name in told or not text.isascii() or not text.isprintable():
            raise RequestError("a value is told twice, or is not plain text")
        told[name] = text
    return told
