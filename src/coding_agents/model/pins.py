"""Pins of the user's own, beside those of an agent's manifest: what `images update` writes, and which of them hold.

The later pin holds. So an update stays in force until a release of coding-agents brings pins that are newer still, and
a file that no longer fits its manifest stops nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import date
from typing import Final

import msgspec
from msgspec.structs import replace

from coding_agents.errors import ManifestError
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.packages import Packages, oldest_pin, package_problems, release_key

STALE_DAYS: Final = 14
"""Days after which a pin is told to be old."""

_HEAD = (
    "# Written by `coding-agents images update`. Without this file the pins of the agent's manifest hold.\n"
)


class PinFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The user's pins of one agent; `previous` those before them, empty where those were the manifest's own."""

    agent: str
    packages: Packages
    previous: Packages = {}


def parse_pins(data: bytes, *, origin: str, agent: str) -> PinFile:
    """Checked pins from TOML. Raises ManifestError naming `origin`."""
    hint = "Remove the file: then the pins of the agent's manifest hold."
    try:
        pins = msgspec.convert(tomllib.loads(data.decode("utf-8")), PinFile)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"{origin} is not valid TOML: {error}", hint=hint) from error
    except msgspec.ValidationError as error:
        raise ManifestError(f"{origin}: {error}", hint=hint) from error
    problem = next(_problems(pins, agent), None)
    if problem is not None:
        raise ManifestError(f"{origin}: {problem}", hint=hint)
    return pins


def render_pins(pins: PinFile) -> bytes:
    """`pins` as TOML. All of it has passed `package_problems`, so nothing needs an escape."""
    lines = [_HEAD, f'agent = "{pins.agent}"\n']
    for table, packages in (("packages", pins.packages), ("previous", pins.previous)):
        for name, package in packages.items():
            lines.append(f"\n[{table}.{name}]\n")
            lines += [f'{key} = "{getattr(package, key)}"\n' for key in ("package", "version", "follow")]
            lines += [f"pinned = {package.pinned}\n"] if package.pinned else []
            lines.append(f"\n[{table}.{name}.integrity]\n")
            lines += [f'{arch} = "{digest}"\n' for arch, digest in package.integrity.items()]
    return "".join(lines).encode("utf-8")


def with_pins(manifest: AgentManifest, pins: PinFile) -> tuple[AgentManifest, str]:
    """The manifest with the user's pins in force, or as it is and why they are not."""
    if not _same_packages(manifest.packages, pins.packages):
        return manifest, "the manifest now names other packages"
    shipped = [package.pinned for package in manifest.packages.values() if package.pinned is not None]
    own = oldest_pin(pins.packages)
    if own is not None and shipped and own < max(shipped):
        return manifest, f"the manifest's pins of {max(shipped)} are later than these of {own}"
    return replace(manifest, packages=pins.packages), ""


def stale_days(packages: Packages, today: date) -> int:
    """How many days ago the oldest package was pinned, where that is too long ago; else 0."""
    oldest = oldest_pin(packages)
    age = (today - oldest).days if oldest is not None else 0
    return age if age > STALE_DAYS else 0


def _same_packages(ours: Packages, theirs: Packages) -> bool:
    def shape(packages: Packages) -> dict[str, tuple[str, frozenset[str]]]:
        return {name: (one.package, frozenset(one.integrity)) for name, one in packages.items()}

    return shape(ours) == shape(theirs)


def _problems(pins: PinFile, agent: str) -> Iterator[str]:
    if pins.agent != agent:
        yield f"agent is {pins.agent!r}, but the file is for {agent!r}"
    if not pins.packages:
        yield "packages is empty"
    for table, packages in (("packages", pins.packages), ("previous", pins.previous)):
        for name, package in packages.items():
            yield from package_problems(f"{table}.{name}", name, package)
            if release_key(package.version) is None:
                yield f"{table}.{name}.version {package.version!r} is not one exact version"
    if any(package.pinned is None for package in pins.packages.values()):
        yield "packages: a pin without `pinned`, the day of it"
