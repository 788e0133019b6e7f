"""The grammars of setting values: each parser takes a TOML value or a text, or raises ValueError.

A flag, an environment variable and a file therefore accept the same spellings, and refuse the same.
"""

from __future__ import annotations

import ipaddress
import re
import reprlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TypeVar

from coding_agents.errors import UsageError
from coding_agents.model.limits import cpus_text, duration_text, rate_text, size_text
from coding_agents.model.origin import MOST_PLACES, parse_address, parse_branches, parse_refs
from coding_agents.model.protection import BEST_AVAILABLE, REQUIRED
from coding_agents.model.registry import Kind, parse_registry
from coding_agents.model.release import FILES, parse_key_grant, parse_release
from coding_agents.model.suggest import close_to
from coding_agents_guest.egress.hosts import HostError, parse_host
from coding_agents_guest.egress.rules import RuleError, parse_rule

Value = str | int | bool | Decimal | tuple[str, ...]

_Measured = TypeVar("_Measured", int, Decimal)

_DURATION = re.compile(r"(\d{1,9})([smh]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_PERSON = re.compile(r"[^<>\s.,:;\"'\\][^<>]* <[^<>\s.,:;\"'\\][^<>\s]*>")
_SLUG = re.compile(r"[a-z][a-z0-9-]{0,31}")
_UPSTREAM = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._~-]+)*/?")
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|\[::1\]")
_TOOL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{1,63}")
_PRICE = re.compile(r"([a-z0-9][a-z0-9._:-]*\*?)=([0-9.]{1,12}),([0-9.]{1,12}),([0-9.]{1,12})")
_PROTECTION = re.compile(r"[a-z][a-z0-9_-]{0,31}")

_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 60
_shown = _shortened.repr


TRAILERS = ("agent", "session")
"""What commits can say at their end of how they came to be."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not a text in quotes")
    return value


def parse_line(value: object) -> str:
    """One line of printable text."""
    text = _text(value)
    if not text.strip() or not text.isprintable() or len(text) > 200:
        raise ValueError(f"{_shown(text)} is not one line of 1 to 200 printable characters")
    return text


def parse_person(value: object) -> str:
    """Empty, or `NAME <ADDRESS>` as git writes who made a commit."""
    text = _text(value)
    if text and (_PERSON.fullmatch(text) is None or not text.isprintable() or len(text) > 200):
        raise ValueError(f"{_shown(text)} is not NAME <ADDRESS>")
    return text


def parse_trailers(value: object) -> tuple[str, ...]:
    """Which trailers commits are given."""
    words = _each(value, parse_choice(*TRAILERS))
    return tuple(name for name in TRAILERS if name in words)


def parse_slug(value: object) -> str:
    """The name of an agent: its form only, manifests are looked up at launch."""
    text = _text(value)
    if not _SLUG.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not a name of lower-case letters, digits and dashes")
    return text


def parse_bool(value: object) -> bool:
    """A TOML boolean, or its text in the environment."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise ValueError(f"{_shown(value)} is not true or false")


def measure(parse_text: Callable[[str], _Measured]) -> Callable[[object], _Measured]:
    """A parser of numbers and texts made from one of `model.limits`, so that flags and files agree."""

    def parse(value: object) -> _Measured:
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
            raise ValueError(f"{_shown(value)} is not a number or a text")
        text = str(value)
        if len(text) > 40:
            raise ValueError(f"{_shown(text)} is too long for a number")
        try:
            return parse_text(text)
        except UsageError as error:
            raise ValueError(error.message) from error

    return parse


def parse_duration(value: object) -> int:
    """Seconds, given as a number or as `90s`, `2m`, `1h`; 10 seconds to one hour."""
    return _duration(value, 10)


def parse_wait(value: object) -> int:
    """The same from nothing on."""
    return _duration(value, 0)


def _duration(value: object, least: int) -> int:
    match = _DURATION.fullmatch(str(value)) if not isinstance(value, bool) else None
    seconds = int(match[1]) * _SECONDS[match[2]] if match else -1
    if not least <= seconds <= 3600:
        raise ValueError(f"{_shown(value)} is not a duration from {least}s to 1h")
    return seconds


def parse_globs(value: object) -> tuple[str, ...]:
    """Patterns of paths relative to the repository's root."""
    return _each(value, _glob)


def parse_endpoints(value: object) -> tuple[str, ...]:
    """`address:port` pairs, an IPv6 address in brackets, each with the name of its host before a `=` or without one."""
    return _each(value, _endpoint)


def parse_egress(value: object) -> tuple[str, ...]:
    """Rules of network mode `squid`, each in its one spelling."""
    return _each(value, _egress)


def parse_indexes(kind: Kind, most: int) -> Callable[[object], tuple[str, ...]]:
    """A parser of at most `most` package indexes (`model.registry`), each in its one spelling."""

    def parse(value: object) -> tuple[str, ...]:
        found = _each(value, lambda text: parse_registry(kind, text).text)
        if len(found) > most:
            raise ValueError(f"more than {most} of {kind}'s indexes")
        return found

    return parse


def parse_releases(value: object) -> tuple[str, ...]:
    """Places whose credential a session may be given (`model.release`), each in its one spelling."""
    return _each(value, lambda text: parse_release(text).text)


def parse_key_grants(value: object) -> tuple[str, ...]:
    """Keys of the user's ssh-agent, each with the host that a session may use it at, in their one spelling."""
    return _each(value, lambda text: parse_key_grant(text).text)


def parse_auth_files(value: object) -> tuple[str, ...]:
    """Names of the user's configurations that hold logins and that a session may read."""
    return tuple(sorted(_each(value, parse_choice(*FILES))))


def parse_upstream(value: object) -> str:
    """The address of a model's gateway; "" for the provider's own."""
    text = _text(value)
    match = _UPSTREAM.fullmatch(text) if text else None
    if text and (match is None or ".." in text):
        raise ValueError(f"{_shown(text)} is not of the form https://HOST[:PORT][/PREFIX]")
    if match is not None and match[1] == "http" and not _LOOPBACK.fullmatch(match[2]):
        raise ValueError(
            f"{_shown(text)} would carry the credential in the clear: only this machine's own is http://"
        )
    return text.rstrip("/")


def parse_file(value: object) -> str:
    """The path of a file, absolute or below the home directory (`~/`); "" for none."""
    text = _text(value)
    if text and (not text.startswith(("/", "~/")) or not text.isprintable() or len(text) > 4096):
        raise ValueError(f"{_shown(text)} is not a path that begins with / or ~/")
    return text


def parse_tools(value: object) -> tuple[str, ...]:
    """Names of tools that run at a model's provider, or what their names begin with."""
    return _each(value, _tool)


def parse_words(value: object) -> tuple[str, ...]:
    """The words of a command, which is never given to a shell."""
    if isinstance(value, str):  # from the environment
        value = value.split()
    if not isinstance(value, list | tuple) or len(value) > 64:
        raise ValueError(f"{_shown(value)} is not a list of at most 64 words")
    words = tuple(_text(word) for word in value)
    if any(not word.isprintable() or len(word) > 1000 for word in words) or (words and not words[0]):
        raise ValueError(f"{_shown(value)} holds a word that is empty, too long or not printable")
    return words


def parse_prices(value: object) -> tuple[str, ...]:
    """Prices by model, as `NAME=READ,CACHED,WRITTEN`; a name may end in `*`."""
    if isinstance(value, str):  # from the environment, where a comma is part of a price
        value = value.split()
    return _each(value, _price)


def parse_refspecs(value: object) -> tuple[str, ...]:
    """Patterns of refs of origin (`model.origin`); at least one."""
    found = _each(value, parse_refs)
    if not found:
        raise ValueError("an empty list: to reach nothing of origin set origin.access to false")
    return found


def parse_protected(value: object) -> tuple[str, ...]:
    """Patterns of branches."""
    return _each(value, parse_branches)


def parse_addresses(value: object) -> tuple[str, ...]:
    """Addresses of repositories without a password, at most as many as a session may have."""
    found = _each(value, parse_address)
    if len(found) > MOST_PLACES:
        raise ValueError(f"more than {MOST_PLACES} addresses")
    return found


def parse_require(value: object) -> tuple[str, ...]:
    """Names of protections: the keys of the `[require]` table, or a list of them."""
    if isinstance(value, Mapping):
        refused = [name for name, wanted in value.items() if wanted is not True]
        if refused:
            raise ValueError(
                f"{_shown(refused[0])} can only be true: a requirement is dropped by removing its line"
            )
        value = list(value)
    return tuple(sorted(_each(value, _protection)))


def parse_best_effort(value: object) -> tuple[str, ...]:
    """Names of protections that may be missing: never one without which nothing starts."""
    return tuple(sorted(_each(value, _dispensable)))


def parse_choice(*choices: str) -> Callable[[object], str]:
    """A parser of exactly one of `choices`."""

    def parse(value: object) -> str:
        if value in choices:
            return str(value)
        close = close_to(str(value), choices)
        asked = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{_shown(value)} is not one of {', '.join(choices)}{asked}")

    return parse


def _each(value: object, parse_one: Callable[[str], str]) -> tuple[str, ...]:
    if isinstance(value, str):  # from the environment
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple) or len(value) > 256:
        raise ValueError(f"{_shown(value)} is not a list of at most 256 texts")
    return tuple(dict.fromkeys(parse_one(_text(item)) for item in value))


def _glob(text: str) -> str:
    parts = text.split("/")
    if not text or not text.isprintable() or len(text) > 500 or text.startswith("/") or ".." in parts:
        raise ValueError(f"{_shown(text)} is not a pattern of paths inside the repository")
    return text


def _endpoint(text: str) -> str:
    name, equals, place = text.rpartition("=")
    if not equals:
        return _address_and_port(place)
    try:
        return f"{parse_host(name)}={_address_and_port(place)}"
    except HostError as error:
        raise ValueError(f"{_shown(text)} is not NAME=ADDRESS:PORT: {error}") from error


def _address_and_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65535:
        raise ValueError(f"{_shown(text)} is not ADDRESS:PORT, such as 10.1.2.3:443 or [fd00::1]:443")
    bracketed = host.startswith("[") and host.endswith("]") and "%" not in host
    try:
        address = ipaddress.IPv6Address(host[1:-1]) if bracketed else ipaddress.IPv4Address(host)
    except ValueError:
        # A name would be whatever the resolver says at the moment, and the guard opens addresses alone.
        raise ValueError(
            f"{_shown(text)} is not ADDRESS:PORT: write the address of {_shown(host)}, such as 10.1.2.3:{port}"
        ) from None
    if address.is_loopback or address.is_multicast or address.is_link_local or address.is_unspecified:
        raise ValueError(
            f"{_shown(text)} cannot be opened: it is not the address of a machine in your network"
        )
    return f"[{address}]:{int(port)}" if bracketed else f"{address}:{int(port)}"


def _egress(text: str) -> str:
    try:
        return parse_rule(text, "").text
    except RuleError as error:
        raise ValueError(f"{_shown(text)} is not a rule: {error}") from error


def _tool(text: str) -> str:
    if not _TOOL.fullmatch(text):
        raise ValueError(f"{_shown(text)} is not the name of a tool, such as web_search")
    return text


def _price(text: str) -> str:
    match = _PRICE.fullmatch(text)
    if match is None or any(part.count(".") > 1 or part == "." for part in match.groups()[1:]):
        raise ValueError(
            f"{_shown(text)} is not NAME=READ,CACHED,WRITTEN in dollars for a million tokens, "
            "such as claude-opus-*=5,0.5,25"
        )
    return text


def _protection(text: str) -> str:
    if not _PROTECTION.fullmatch(text):
        raise ValueError(
            f"{_shown(text)} is not the name of a protection, as `enforced` in `list --json` shows them"
        )
    return text


def _dispensable(text: str) -> str:
    if text in REQUIRED:
        raise ValueError(f"{text} is required: no session starts without it")
    if text not in BEST_AVAILABLE:
        raise ValueError(f"{_shown(text)} is not one of {', '.join(BEST_AVAILABLE)}")
    return text


_AS_TEXT: Mapping[str, Callable[[int], str]] = {
    "bytes": size_text,
    "time": duration_text,
    "rate": rate_text,
    "io": size_text,
    "traffic": size_text,
}


def render(value: Value, *, unit: str = "") -> str:
    """A value as it is written in a settings file; of a number `unit` makes a size ("bytes"), a "time" or a "rate"."""
    if unit in _AS_TEXT and isinstance(value, int):
        return quote(_AS_TEXT[unit](value))
    if isinstance(value, tuple):
        return "[" + ", ".join(quote(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return cpus_text(value)
    return quote(value) if isinstance(value, str) else str(value)


def quote(text: str) -> str:
    """A printable text as a TOML basic string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
