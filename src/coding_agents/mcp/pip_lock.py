"""What pip says a package needs, read into a lock of ours. Pure; every word of it is hostile."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from coding_agents.errors import McpError
from coding_agents.mcp.locked import MAX_PACKAGES, Lock, LockedPackage
from coding_agents.mcp.runners import Runner

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+!]{0,99}")  # what PEP 440 is written with
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MACHINE = re.compile(r"[a-z0-9_]{1,32}")


class _Archive(msgspec.Struct, frozen=True):
    hashes: Mapping[str, str] = {}


class _Download(msgspec.Struct, frozen=True):
    url: str
    archive_info: _Archive | None = None


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    version: str


class _Install(msgspec.Struct, frozen=True):
    download_info: _Download
    metadata: _Metadata
    is_direct: bool = False


class _Environment(msgspec.Struct, frozen=True):
    platform_machine: str


class _Report(msgspec.Struct, frozen=True):
    install: list[_Install]
    environment: _Environment


def pip_lock(runner: Runner, report: bytes) -> Lock:
    """The lock for `runner` from the report of `pip install --dry-run`, wheels only. Raises McpError."""
    try:
        found = msgspec.json.decode(report, type=_Report)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise McpError(f"pip's answer about {runner.asked} is not understood: {str(error)[:200]}") from error
    if len(found.install) > MAX_PACKAGES:
        raise McpError(
            f"{runner.asked} needs {len(found.install)} packages, more than {MAX_PACKAGES} can be pinned"
        )
    packages = sorted((_package(one) for one in found.install), key=lambda one: normal(one.name))
    if len({normal(one.name) for one in packages}) != len(packages):
        raise McpError(f"pip's answer about {runner.asked} names a package twice")
    wanted = normal(runner.specs[0][0].partition("[")[0])
    main = next((one for one in packages if normal(one.name) == wanted), None)
    if main is None:
        raise McpError(f"pip's answer about {runner.asked} does not hold {wanted}")
    machine = found.environment.platform_machine
    if not _MACHINE.fullmatch(machine):
        raise McpError(
            f"pip's answer about {runner.asked} is of no processor that has a name: {machine[:50]!a}"
        )
    for_all = all(one.download_info.url.endswith("-any.whl") for one in found.install)
    return Lock(
        index="pypi",
        name=main.name,
        version=main.version,
        program=runner.program,
        machine="" if for_all else machine,
        packages=tuple(packages),
    )


def normal(name: str) -> str:
    """A name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _package(one: _Install) -> LockedPackage:
    name, version = one.metadata.name, one.metadata.version
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise McpError(f"pip's answer names a package that none may be: {name[:100]!a} {version[:100]!a}")
    digest = one.download_info.archive_info.hashes.get("sha256", "") if one.download_info.archive_info else ""
    if one.is_direct or not one.download_info.url.endswith(".whl") or not _SHA256.fullmatch(digest):
        raise McpError(
            f"{name} {version} is not a wheel of the index with a sha256, so it cannot be pinned",
            hint="Ask for a version that needs wheels of the index alone.",
        )
    return LockedPackage(name, version, f"sha256:{digest}")
