"""Which Debian mirror this host uses, read from apt's own configuration. We name no host ourselves.

Formats: sources.list(5), one line a source, and deb822 stanzas in `.sources` files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from coding_agents.errors import ImageBuildError

SUITE = "bookworm"
"""The Debian release of the base image."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""Debian's own keys: the file is on each Debian host, and in the image."""

_POCKETS = ("", "-updates", "-security")


class Source(msgspec.Struct, frozen=True):
    """One place of binary packages: `signed_by` is the keyring that the host's entry names, or empty."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""


def read_sources(apt_dir: Path) -> tuple[Source, ...]:
    """All enabled binary sources below `apt_dir` (/etc/apt)."""
    parts = sorted((apt_dir / "sources.list.d").glob("*")) if (apt_dir / "sources.list.d").is_dir() else []
    found: list[Source] = []
    for path in (apt_dir / "sources.list", *parts):
        if path.is_file() and path.suffix in (".list", ".sources"):
            text = path.read_text(encoding="utf-8", errors="replace")
            found.extend(parse_deb822(text) if path.suffix == ".sources" else parse_list(text))
    return tuple(found)


def parse_list(text: str) -> Iterator[Source]:
    """Sources of a one-line-style file; `deb-src` and comments are left out."""
    for line in text.splitlines():
        found = re.match(r"\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<rest>[^#]*)", line)
        if found is None:
            continue
        options = dict(option.split("=", 1) for option in (found["options"] or "").split() if "=" in option)
        words = found["rest"].split()
        if len(words) >= 3:
            yield Source(words[0], words[1], tuple(words[2:]), options.get("signed-by", ""))


def parse_deb822(text: str) -> Iterator[Source]:
    """Sources of a deb822-style file: every combination of URI and suite of each enabled stanza."""
    for stanza in re.split(r"\n[ \t]*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields: dict[str, str] = {}
        for name, value in re.findall(r"(?m)^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)", stanza):
            fields[name.lower()] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
            "no",
            "false",
        ):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                components = tuple(fields.get("components", "").split())
                yield Source(uri, suite, components, fields.get("signed-by", ""))


def base_sources(sources: Iterable[Source], *, host_suite: str) -> tuple[str, ...]:
    """One-line sources for the base image from those of a host of the Debian release `host_suite`.

    Other vendors also name their suites after Debian's, so entries with a keyring of their own count only
    where no other entry has Debian's main archive (a company's re-signed mirror). Raises ImageBuildError.
    """
    wanted = [s for s in sources if "main" in s.components and _pocket(s.suite, host_suite) is not None]
    debian = [s for s in wanted if not s.signed_by or "debian-archive" in s.signed_by]
    chosen = debian if any(_pocket(s.suite, host_suite) == "" for s in debian) else wanted
    if not any(_pocket(s.suite, host_suite) == "" for s in chosen):
        raise ImageBuildError(
            f"apt's configuration has no source of {host_suite} main",
            hint="Add Debian's archive to /etc/apt, or make a registry with debian images reachable.",
        )
    lines: dict[str, None] = {}
    for source in chosen:
        if "@" in source.uri:
            raise ImageBuildError(
                "a source in apt's configuration holds a password, which would end up in the image",
                hint="Move it to /etc/apt/auth.conf.d.",
            )
        keyring = KEYRING if source in debian else source.signed_by
        lines[f"deb [signed-by={keyring}] {source.uri} {SUITE}{_pocket(source.suite, host_suite)} main"] = (
            None
        )
    return tuple(lines)


def host_suite(os_release: str) -> str:
    """The release's code name from the text of /etc/os-release. Raises ImageBuildError if not Debian."""
    fields: dict[str, str] = dict(re.findall(r'(?m)^([A-Z_]+)="?([^"\n]*)"?$', os_release))
    if fields.get("ID") != "debian" or not fields.get("VERSION_CODENAME"):
        raise ImageBuildError(
            "the base image can be made from packages on Debian only",
            hint="Make a container registry reachable, from which the engine can pull debian:bookworm-slim.",
        )
    return fields["VERSION_CODENAME"]


def _pocket(suite: str, release: str) -> str | None:
    """'' for the release itself, '-updates' and '-security', None for any other suite."""
    pocket = suite.removeprefix(release) if suite.startswith(release) else None
    return pocket if pocket in _POCKETS else None
