"""A pinned npm package of an agent's image: which, whose digest, and on which day it was pinned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date

import msgspec

ARCH = "{arch}"
"""Stands in a package's name or version for npm's name of the processor."""

ANY_ARCHITECTURE = "any"

DEBIAN_ARCHITECTURES = {"x64": "amd64", "arm64": "arm64"}
"""npm's name of a processor and Debian's."""

Pin = tuple[str, str, str, str, str]
"""Debian's architecture or `any`, directory into which a package is unpacked, its name, version and integrity."""

_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]*(\{arch\})?")
_PACKAGE = re.compile(r"(@[a-z0-9-]+/)?[a-z0-9][a-z0-9._-]*(\{arch\})?[a-z0-9._-]*")
_INTEGRITY = re.compile(r"sha512-[A-Za-z0-9+/]{86}==")
_DIRECTORY = re.compile(r"[a-z][a-z0-9-]*")
_FOLLOW = re.compile(r"[a-z0-9][a-z0-9.-]*")
_RELEASE = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(-[0-9A-Za-z.-]*(\{arch\})?)?")
_LENGTH = 128  # of a name or a version; npm's own limit for names is 214


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A pinned npm package of an agent's image.

    `package` and `version` may hold `{arch}`, replaced by npm's name of the processor; `integrity` has the sha512
    of the tarball for each processor, in npm's own notation, or one for `any`. `pinned` is the day on which this was
    the newest version of `follow`, a tag or a range of npm's.
    """

    package: str
    version: str
    integrity: Mapping[str, str]
    pinned: date | None = None
    follow: str = "latest"

    def pins(self, directory: str) -> Iterator[Pin]:
        """One row for each processor."""
        for arch, digest in sorted(self.integrity.items()):
            name, version = self.of(arch)
            yield DEBIAN_ARCHITECTURES.get(arch, ANY_ARCHITECTURE), directory, name, version, digest

    @property
    def shown(self) -> tuple[str, str]:
        """Name and version for people, who need not know how a processor is spelt in them."""
        version = self.version.partition("-")[0] if ARCH in self.version else self.version
        return self.package.replace(ARCH, "*"), version

    def of(self, arch: str) -> tuple[str, str]:
        """Name and version for a processor."""
        return self.package.replace(ARCH, arch), self.version.replace(ARCH, arch)


Packages = Mapping[str, Package]
"""All of an agent, by the directory into which each is unpacked."""


def oldest_pin(packages: Packages) -> date | None:
    """The day of the pin that is oldest; None where nothing is pinned, or one tells no day."""
    days = [package.pinned for package in packages.values()]
    known = [day for day in days if day is not None]
    return min(known) if known and len(known) == len(days) else None


def release_key(version: str) -> tuple[int, int, int, bool] | None:
    """Orders releases: what stands before a `-`, and a version with something behind it before the one without.

    None for what is not `N.N.N` (https://semver.org, 2.0.0, §2 and §9, without the order of pre-releases).
    """
    found = _RELEASE.fullmatch(version)
    return found and (int(found[1]), int(found[2]), int(found[3]), not found[4])


def package_problems(key: str, name: str, package: Package) -> Iterator[str]:
    """What is wrong with a package whose table is `key` and whose directory `name`."""
    if not _DIRECTORY.fullmatch(name):
        yield f"packages: {name!r} is not lower-case letters, digits and '-'"
    if not _PACKAGE.fullmatch(package.package) or len(package.package) > _LENGTH:
        yield f"{key}.package {package.package!r} is not the name of an npm package"
    if not _VERSION.fullmatch(package.version) or len(package.version) > _LENGTH:
        yield f"{key}.version {package.version!r} is not one exact version"
    if not _FOLLOW.fullmatch(package.follow):
        yield f"{key}.follow {package.follow!r} is not a tag, or a version's first numbers, such as 'latest' or '22'"
    if not package.integrity:
        yield f"{key}.integrity is empty: an unpinned program is not installed"
    if ANY_ARCHITECTURE in package.integrity and (
        len(package.integrity) > 1 or ARCH in package.package + package.version
    ):
        yield f"{key}.integrity.any is for one package that fits every processor"
    for arch, digest in package.integrity.items():
        if arch not in (*DEBIAN_ARCHITECTURES, ANY_ARCHITECTURE):
            known = ", ".join((*DEBIAN_ARCHITECTURES, ANY_ARCHITECTURE))
            yield f"{key}.integrity: unknown processor {arch!r} (known: {known})"
        if not _INTEGRITY.fullmatch(digest):
            yield f"{key}.integrity.{arch} is not npm's sha512-… notation"
