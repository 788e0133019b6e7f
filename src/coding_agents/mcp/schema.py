"""One server's table, as a repository wrote it, checked into a value. Pure; whatever it is given, it answers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

import msgspec

from coding_agents.mcp.references import MalformedReferenceError, references, values
from coding_agents.model.mcp import McpServer, is_server_name, is_variable
from coding_agents.model.suggest import close_to
from coding_agents.sandbox.credentials import credential_in

MAX_SERVERS = 32
MAX_ITEMS = 64
"""Words of `args`, and entries of `env` and `headers`."""
MAX_TEXT = 4096

KEYS = ("command", "args", "env", "url", "headers", "bearer_token_env_var", "enabled")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")  # RFC 9110 5.6.2, token


def shown(key: str) -> str:
    """A key of the repository's as one line of visible characters, cut."""
    return (key if key.isprintable() else ascii(key))[:64]


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with `key` (as it is written below the server's own table; "" is the table itself)."""

    key: str
    text: str


def check_server(name: str, table: object) -> tuple[McpServer | None, list[Problem]]:
    """The server in `table`, None when anything is wrong with it; and everything that is."""
    if not is_server_name(name):
        rule = "letters, digits, '-' and single '_', at most 32, beginning with a letter or digit"
        return None, [Problem("", f"the name {name[:64]!r} is not of {rule}")]
    if not isinstance(table, dict):
        return None, [Problem("", "is not a table")]
    problems = [*_unknown_keys(table), *_types(table)]
    if problems:
        return None, problems
    server = McpServer(
        name=name,
        command=table.get("command", ""),
        args=tuple(table.get("args", ())),
        env=dict(table.get("env", {})),
        url=table.get("url", ""),
        headers=dict(table.get("headers", {})),
        bearer_token_env_var=table.get("bearer_token_env_var", ""),
        enabled=table.get("enabled", True),
    )
    problems = [*_kind_problems(server), *_value_problems(server), *_name_problems(server)]
    return (None, problems) if problems else (server, [])


def _unknown_keys(table: Mapping[str, object]) -> Iterator[Problem]:
    for key in table:
        if key not in KEYS:
            close = close_to(key[:64], KEYS)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(KEYS)}"
            yield Problem(shown(key), f"unknown key ({hint})")


def _types(table: Mapping[str, object]) -> Iterator[Problem]:
    text = (_is_text, f"is not a text of at most {MAX_TEXT} characters")
    texts = (_is_table, f"is not a table of at most {MAX_ITEMS} texts of at most {MAX_TEXT} characters")
    checks: dict[str, tuple[Callable[[object], bool], str]] = {
        "command": text,
        "args": (_is_texts, f"is not a list of at most {MAX_ITEMS} texts of at most {MAX_TEXT} characters"),
        "env": texts,
        "url": text,
        "headers": texts,
        "bearer_token_env_var": text,
        "enabled": (lambda value: isinstance(value, bool), "is neither true nor false"),
    }
    for key, (fits, problem) in checks.items():
        if key in table and not fits(table[key]):
            yield Problem(key, problem)


def _kind_problems(server: McpServer) -> Iterator[Problem]:
    if bool(server.command) == bool(server.url):
        yield Problem("", "needs either a command or a url")
        return
    for_other = ("headers", "bearer_token_env_var") if server.command else ("args", "env")
    for key in for_other:
        if getattr(server, key):
            yield Problem(key, f"is not for a server with a {'command' if server.command else 'url'}")
    if server.url:
        yield from _url_problems(server.url)


def _url_problems(url: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, known = None, False
    if not known or any(char.isspace() for char in url):
        yield Problem("url", "is not an http or https address")
    elif parts is not None and parts.username is not None and not credential_in(url):  # else told by that
        yield Problem("url", "holds user information: send it in a header, by a reference to a secret")


def _value_problems(server: McpServer) -> Iterator[Problem]:
    if "${" in server.command:
        yield Problem("command", "holds a reference; only values may")
    for place, text in (("command", server.command), *values(server)):
        key = shown(place)
        keep = "\n\t" if place == "args" or place.startswith("env.") else ""
        if bad := next((char for char in text if _hides(char) and char not in keep), ""):
            yield Problem(key, f"holds the character U+{ord(bad):04X}, which nobody sees")
            continue
        try:
            references(text)
        except MalformedReferenceError as error:
            yield Problem(key, str(error))
        if kind := credential_in(text):
            yield Problem(key, f"holds a {kind}: put it into mcp-secrets.env and write ${{NAME}}")


def _name_problems(server: McpServer) -> Iterator[Problem]:
    for name in server.env:
        if not is_variable(name):
            yield Problem(f"env.{shown(name)}", "is not the name of an environment variable")
    yield from (
        Problem(f"headers.{shown(name)}", "is not the name of a header")
        for name in server.headers
        if not _HEADER.fullmatch(name)
    )
    if server.bearer_token_env_var and not is_variable(server.bearer_token_env_var):
        yield Problem("bearer_token_env_var", "is not the name of a variable")


def _hides(char: str) -> bool:
    """Control characters, marks of direction, surrogates, unassigned and private ones, separators of lines."""
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) <= MAX_ITEMS and all(map(_is_text, value))


def _is_table(value: object) -> bool:
    return (
        isinstance(value, dict) and len(value) <= MAX_ITEMS and all(map(_is_text, (*value, *value.values())))
    )
