"""What the host's `git credential fill` has printed, read strictly, and what of it the guest is told."""

from __future__ import annotations

from coding_agents.brokers.credential.request import CredentialRequest
from coding_agents.model.masked import Masked
from coding_agents.model.release import parse_host

MAX_ANSWER = 64 * 1024
_MAX_VALUE = 16 * 1024
_ONCE = (
    "protocol",
    "host",
    "path",
    "username",
    "password",
    "password_expiry_utc",
    "quit",
    "authtype",
    "credential",
)


class AnswerError(ValueError):
    """The host's git, or a helper of it, has given no credential that can be used. The message holds nothing of it."""


class Credential(Masked, frozen=True):
    """An account and its password or token; `expires` in seconds since the epoch, "" where nobody said."""

    MASKED = frozenset({"password"})

    username: str
    password: str
    expires: str = ""


def parse_answer(data: bytes, request: CredentialRequest, user: str = "") -> Credential:
    """The credential in `data` for what `request` asked, of the account `user` if one is named. Raises AnswerError.

    A helper may change what it was asked for; then it is an answer to another question, and not passed on.
    """
    if len(data) > MAX_ANSWER:
        raise AnswerError("the host's git has answered with more than a credential")
    told = _told(data)
    if told.get("quit", "") not in ("", "0", "false"):
        raise AnswerError("a credential helper of the host refuses")
    _require_same_place(told, request)
    username, password = told.get("username", ""), told.get("password", "")
    if not username or not password:
        raise AnswerError("the host's git knows no user name and password for it")
    for wanted in filter(None, (user, request.username)):
        if username != wanted:
            raise AnswerError(f"the host's credential there is of another account than {wanted}")
    expires = told.get("password_expiry_utc", "")
    return Credential(username, password, expires if expires.isdecimal() and len(expires) < 20 else "")


def guest_lines(credential: Credential) -> bytes:
    """What a guest's git is told: these lines and no others of the host's answer."""
    lines = [f"username={credential.username}", f"password={credential.password}"]
    if credential.expires:
        lines.append(f"password_expiry_utc={credential.expires}")
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _require_same_place(told: dict[str, str], request: CredentialRequest) -> None:
    try:
        same = told.get("protocol") == "https" and parse_host(told.get("host", "")) == request.host
    except ValueError:
        same = False
    # Without credential.useHttpPath the host's git drops the path that it was asked for.
    if not same or told.get("path", "/".join(request.path)) != "/".join(request.path):
        raise AnswerError("a credential helper of the host has answered for another place")


def _told(data: bytes) -> dict[str, str]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise AnswerError("the host's git has answered with what is no text") from None
    told: dict[str, str] = {}
    for line in text.split("\n"):
        if not line:
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise AnswerError("the host's git has answered with lines that are none of git-credential(1)")
        if key not in _ONCE:
            continue  # what is for the host alone, such as oauth_refresh_token
        if key in told or len(value) > _MAX_VALUE or any(ord(one) < 0x20 or one == "\x7f" for one in value):
            raise AnswerError(
                "the host's git has answered with a value twice, or with one that no line can carry"
            )
        told[key] = value
    return told
