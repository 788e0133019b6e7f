"""Which hosts package managers fetch from, read from their own configuration. Pure: no name of a host is ours.

Only addresses are taken out of a file. Users, passwords and tokens, which stand in the same files, go nowhere, nor do
words of a file that is not understood.
"""

from __future__ import annotations

import configparser
import json
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from coding_agents.sandbox.credentials import credential_in
from coding_agents_guest.egress.rules import RuleError, parse_rule

_MAX_PLACES = 500
_PIP = ("index-url", "extra-index-url", "find-links")
_VARIABLES = {
    "pip": re.compile(r"PIP_(?:INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS)"),
    "npm": re.compile(r"npm_config_(?:@[^:]+:)?registry", re.IGNORECASE),
    "cargo": re.compile(r"CARGO_REGISTRIES_[A-Z0-9_]+_INDEX"),
}


class Place(msgspec.Struct, frozen=True):
    """An address that `manager` fetches from, as `where` (a file, a variable, or the program itself) says."""

    manager: str
    url: str
    where: str


class Discovered(msgspec.Struct, frozen=True):
    """Places, and what could not be read, for people: none of it holds a word of a file."""

    places: tuple[Place, ...] = ()
    problems: tuple[str, ...] = ()


def config_files(home: Path, *, config_home: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Patterns of the files of each package manager, for the user with the home directory `home`.

    Sources: pip's "Configuration", npmrc(5), sources.list(5), cargo's "Configuration", "NuGet.Config reference",
    "Docker daemon configuration overview".
    """
    config = config_home or home / ".config"
    return {
        "pip": (
            "/etc/pip.conf", "/etc/xdg/pip/pip.conf", f"{home}/.pip/pip.conf", f"{config}/pip/pip.conf",
        ),
        "npm": ("/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc", f"{home}/.npmrc"),
        "apt": ("/etc/apt/sources.list", "/etc/apt/sources.list.d/*"),
        "cargo": (f"{home}/.cargo/config.toml", f"{home}/.cargo/config"),
        "nuget": (
            "/etc/opt/NuGet/Config/*.[cC]onfig", f"{home}/.nuget/NuGet/NuGet.Config",
            f"{config}/NuGet/NuGet.Config",
        ),
        "docker": ("/etc/docker/daemon.json", f"{config}/docker/daemon.json"),
    }  # fmt: skip


def further_files(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Files that the user's variables name besides, each with its package manager.

    One that is not absolute is none: it may be the repository's.
    """
    for name, value in environ.items():
        if not value.startswith("/"):
            continue
        if name == "PIP_CONFIG_FILE":
            yield "pip", value
        elif name.lower() in ("npm_config_userconfig", "npm_config_globalconfig"):
            yield "npm", value
        elif name == "CARGO_HOME":
            yield from (("cargo", f"{value}/{file}") for file in ("config.toml", "config"))


def places_in_environment(environ: Mapping[str, str]) -> Iterator[Place]:
    """What the user's variables say."""
    for name, value in environ.items():
        for manager, pattern in _VARIABLES.items():
            if pattern.fullmatch(name):
                yield from (Place(manager, url, name) for url in _urls(value.split()))


def places_in_file(
    manager: str, where: str, text: str, *, environ: Mapping[str, str], apt: Callable[[str], Iterable[str]]
) -> Discovered:
    """What one file of `manager` says; `apt` reads addresses out of a list of apt's. A malformed file is a problem."""
    try:
        if manager == "npm":
            urls = list(_npm(text, environ))
        elif manager == "apt":
            urls = list(apt(text))
        else:
            urls = list(_READERS[manager](text))
    except _MalformedError as error:
        return Discovered(
            problems=(f"{where} is not understood ({error}): {manager}'s registries in it are left out",)
        )
    return Discovered(tuple(Place(manager, url, where) for url in urls))


def registry_rules(places: Iterable[Place]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The rules that open these places, as narrow as can be, each once; and what can be no rule, for people.

    A tunnel shows its host alone. Of plain HTTP, reading below the path of the address is allowed.
    """
    rules: dict[str, None] = {}
    problems: dict[str, None] = {}
    for place in list(dict.fromkeys(places))[:_MAX_PLACES]:
        try:
            text = _rule(place.url)
            if text:
                rules[parse_rule(text, "registry").text] = None
        except RuleError as error:
            problems[f"a registry of {place.manager} ({place.where}) is left out: {error}"] = None
    return tuple(rules), tuple(problems)


def _rule(url: str) -> str:
    """The rule for an address, "" for what no network leads to. Raises RuleError, without a user of it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise RuleError("its address is malformed") from None
    if parts.scheme not in ("http", "https"):
        return ""
    if ":" in host or not host:
        raise RuleError("name a host" if not host else "it is an address; name a host")
    place = f"{host}:{port}" if port else host
    if parts.scheme == "https":
        return f"https://{place}"
    parse_rule(f"http://{place}", "registry")  # what is wrong with the host is told; a path may hold a token
    text = f"GET,HEAD http://{place}{parts.path.rstrip('/')}/"
    try:
        parse_rule(text, "registry")
    except RuleError:
        raise RuleError(f"the path of its address at {host} cannot stand in a rule") from None
    if credential_in(parts.path):
        raise RuleError(f"the path of its address at {host} holds a credential")
    return text


class _MalformedError(ValueError):
    """Where a file stops making sense: a line, and never its words."""


def _pip(text: str) -> Iterator[str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError as error:  # one of the next, and made otherwise
        raise _MalformedError(f"line {error.lineno}") from None
    except configparser.ParsingError as error:
        raise _MalformedError(f"line {error.errors[0][0]}") from None
    for section in parser.sections():
        for name in _PIP:
            yield from _urls(parser.get(section, name, fallback="").split())


def _npm(text: str, environ: Mapping[str, str]) -> Iterator[str]:
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        name = name.strip()
        if equals and not name.startswith((";", "#")) and re.fullmatch(r"(?:@[^:/]+:)?registry", name):
            value = value.strip().strip("\"'")
            yield from _urls([re.sub(r"\$\{([^}]+)\}", lambda found: environ.get(found[1], ""), value)])


def _cargo(text: str) -> Iterator[str]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise _MalformedError(f"line {line[1]}" if line else "its end") from None
    for table, name in (("registries", "index"), ("source", "registry")):
        entries = document.get(table)
        for entry in entries.values() if isinstance(entries, dict) else ():
            url = entry.get(name) if isinstance(entry, dict) else None
            yield from _urls([str(url)] if url else [])


def _nuget(text: str) -> Iterator[str]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise _MalformedError("it declares entities")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - without entities
    except ElementTree.ParseError as error:
        raise _MalformedError(f"line {error.position[0]}") from None
    for add in root.iterfind("./packageSources/add"):
        yield from _urls([add.get("value", "")])


def _docker(text: str) -> Iterator[str]:
    try:
        mirrors = json.loads(text or "{}").get("registry-mirrors", ())
    except (ValueError, AttributeError, RecursionError) as error:
        raise _MalformedError(f"line {getattr(error, 'lineno', 1)}") from None
    yield from _urls([one for one in mirrors if isinstance(one, str)] if isinstance(mirrors, list) else [])


_READERS: Mapping[str, Callable[[str], Iterator[str]]] = {
    "pip": _pip,
    "cargo": _cargo,
    "nuget": _nuget,
    "docker": _docker,
}


def _urls(words: Iterable[str]) -> Iterator[str]:
    """Those words that are addresses: options may also name directories."""
    return (word.removeprefix("sparse+").removeprefix("registry+") for word in words if "://" in word)
