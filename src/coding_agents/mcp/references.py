"""References to secrets in the values of a server: `${NAME}` and `${NAME:-default}`. Pure.

A secret never goes into a container with a list of servers. So a value is either whole without one, or its server
is named as one that needs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from coding_agents.model.mcp import McpServer, is_variable

Resolve = Callable[[str], str | None]
"""The value of a secret by its name; None when there is none."""

_OPENED = re.compile(r"\$\{([^}]*)(\}?)")


class MalformedReferenceError(ValueError):
    """A reference is malformed; the message says how."""


class Settled(msgspec.Struct, frozen=True):
    """A server with its defaults filled in.

    `needs` are the names of secrets without which it is not what was meant, `missing` those of them that are not set.
    """

    server: McpServer
    needs: tuple[str, ...]
    missing: tuple[str, ...]


def references(text: str) -> tuple[tuple[str, str | None], ...]:
    """The references in `text` as (name, default or None), in order. Raises MalformedReferenceError."""
    found = []
    for match in _OPENED.finditer(text):
        name, colon, default = match[1].partition(":-")
        if not match[2]:
            raise MalformedReferenceError("'${' without its '}'")
        if not is_variable(name):
            raise MalformedReferenceError(f"${{{match[1]}}} is neither ${{NAME}} nor ${{NAME:-default}}")
        found.append((name, default if colon else None))
    return tuple(found)


def settle(server: McpServer, resolve: Resolve) -> Settled:
    """`server` with the defaults of what is not set, and what it needs beside. Its references are well-formed."""
    needs: dict[str, bool] = {}

    def fill(text: str) -> str:
        def one(match: re.Match[str]) -> str:
            name, colon, default = match[1].partition(":-")
            is_set = resolve(name) is not None
            if colon and not is_set:
                return default
            needs[name] = is_set
            return match[0]

        return _OPENED.sub(one, text)

    filled = replace(
        server,
        args=tuple(fill(word) for word in server.args),
        env=_filled(server.env, fill),
        url=fill(server.url),
        headers=_filled(server.headers, fill),
    )
    if token := server.bearer_token_env_var:
        needs[token] = resolve(token) is not None
    return Settled(filled, tuple(needs), tuple(name for name, is_set in needs.items() if not is_set))


def filled(server: McpServer, secrets: Mapping[str, str]) -> McpServer:
    """A settled `server` with `secrets` in the place of the references to them. Raises KeyError for one that lacks."""

    def fill(text: str) -> str:
        return _OPENED.sub(lambda match: secrets[match[1].partition(":-")[0]], text)

    return replace(
        server,
        args=tuple(map(fill, server.args)),
        env=_filled(server.env, fill),
        url=fill(server.url),
        headers=_filled(server.headers, fill),
    )


def values(server: McpServer) -> Iterator[tuple[str, str]]:
    """Every value that may hold references, with its key."""
    yield from (("args", word) for word in server.args)
    yield from ((f"env.{name}", value) for name, value in server.env.items())
    yield ("url", server.url)
    yield from ((f"headers.{name}", value) for name, value in server.headers.items())


def _filled(table: Mapping[str, str], fill: Callable[[str], str]) -> dict[str, str]:
    return {name: fill(value) for name, value in table.items()}
