"""Installing a .NET SDK of a chosen channel into the agent's home.

Our own few lines instead of the vendor's install script: the release index and the release list of the
channel are read as JSON, the archive is checked against the SHA-512 that the list gives, and unpacked without
following anything out of its directory. Nothing is executed. The format is that of release-notes/ in
https://github.com/dotnet/core.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import ssl
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, Callable
from urllib.parse import urljoin, urlsplit
from urllib.response import addinfourl

from coding_agents_guest.records import dataclass

DEFAULT_INDEX = "https://builds.dotnet.microsoft.com/dotnet/release-metadata/releases-index.json"

_INDEX_LIMIT = 4 << 20
_RELEASES_LIMIT = 64 << 20
_ARCHIVE_LIMIT = 1 << 30
_UNPACKED_LIMIT = 8 << 30
_TIMEOUT_S = 60.0
_PLACE = Path(".local/share/dotnet")  # not ~/.dotnet, which is the SDK's own
_PREVIEW_PHASES = ("preview", "go-live")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}")
_SHA512 = re.compile(r"[0-9a-f]{128}")
_RIDS = {"x86_64": "linux-x64", "aarch64": "linux-arm64", "armv7l": "linux-arm"}


class DotnetError(Exception):
    """The SDK cannot be had; the message says what is wrong with which part."""


@dataclass(frozen=True)
class Archive:
    """One SDK build: its version, where it lies and the SHA-512 (hex) that it must have."""

    version: str
    url: str
    sha512: str


def install_dotnet(
    channel: str, *, index_url: str, home: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    """Install the newest SDK of `channel` ("10.0", or "preview" for the newest preview) below `home`.

    `index_url` "" stands for the public index; `environment` gives the proxies (https_proxy, …) and
    SSL_CERT_FILE. Returns the variables to add to the agent's environment; does not download what is already
    there. Raises DotnetError.
    """
    index_url = index_url or DEFAULT_INDEX
    fetch = _fetcher(environment)
    try:
        releases_url = select_channel(_json(fetch, index_url, _INDEX_LIMIT), channel, index_url)
        archive = select_sdk(
            _json(fetch, releases_url, _RELEASES_LIMIT), _rid(platform.machine()), releases_url
        )
        root = home / _PLACE / archive.version
        if not root.is_dir():
            _install(fetch, archive, root)
    except (OSError, HTTPException, tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise DotnetError(f".NET {channel}: {error}") from error
    return _variables(root, environment)


def installed_dotnet(home: Path, *, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for the newest SDK that an earlier start installed below `home`; empty without one."""
    roots = [root for root in (home / _PLACE).glob("[0-9]*") if (root / "dotnet").is_file()]
    if not roots:
        return {}
    return _variables(max(roots, key=lambda root: (_version_key(root.name), root.name)), environment)


def _variables(root: Path, environment: Mapping[str, str]) -> dict[str, str]:
    return {
        "DOTNET_ROOT": str(root),
        "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
        "DOTNET_NOLOGO": "1",
        "PATH": f"{root}:{environment['PATH']}",
    }


def select_channel(index: Any, channel: str, index_url: str) -> str:
    """The URL of the release list of `channel` in the release index. Pure. Raises DotnetError."""
    try:
        found = [
            (_version_key(entry["channel-version"]), entry["releases.json"])
            for entry in index["releases-index"]
            if entry["channel-version"] == channel
            or (channel == "preview" and entry.get("support-phase") in _PREVIEW_PHASES)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DotnetError(f"the release index is malformed: {error!r}") from error
    if not found:
        raise DotnetError(f"the release index has no channel {channel!r}")
    return _joined(index_url, max(found)[1])


def select_sdk(releases: Any, rid: str, releases_url: str) -> Archive:
    """The archive of the latest SDK for `rid` ("linux-x64") in a release list. Pure. Raises DotnetError."""
    try:
        latest = releases["latest-sdk"]
        sdks = [sdk for release in releases["releases"] for sdk in _sdks(release) if sdk["version"] == latest]
        files = [
            (latest, file["url"], file["hash"].lower())
            for sdk in sdks
            for file in sdk["files"]
            if file.get("rid") == rid and file["name"].endswith(".tar.gz")
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DotnetError(f"the release list is malformed: {error!r}") from error
    if not files:
        raise DotnetError(f"the release list has no SDK {latest!r} for {rid}")
    version, url, sha512 = files[0]
    if not _VERSION.fullmatch(version) or not _SHA512.fullmatch(sha512):
        raise DotnetError(f"the release list has a malformed version or hash for SDK {latest!r}")
    return Archive(version, _joined(releases_url, url), sha512)


def unpack(archive: IO[bytes], directory: Path) -> None:
    """Unpack a .tar.gz below `directory`. Raises DotnetError for what is not a plain file or link in it."""
    budget = _UNPACKED_LIMIT
    with tarfile.open(fileobj=archive, mode="r:gz") as tar:
        for member in tar:
            budget -= member.size
            if budget < 0:
                raise DotnetError("the archive is too large when unpacked")
            if not _stays_inside(member):
                raise DotnetError(f"the archive holds {member.name!r}, which does not belong there")
            member.mode = (member.mode & 0o755) | 0o600 | (0o100 if member.isdir() else 0)
            member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
            tar.extract(member, directory, set_attrs=not member.issym())


_Fetch = Callable[[str], addinfourl]


def _install(fetch: _Fetch, archive: Archive, root: Path) -> None:
    """Download to a temporary file, check, unpack beside `root`, then rename: never a half installation."""
    root.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".installing-", dir=root.parent))
    try:
        with tempfile.TemporaryFile(dir=staging) as file:
            with fetch(archive.url) as response:
                found = _copy_hashed(response, file)
            if found != archive.sha512:
                raise DotnetError(f"{archive.url} has SHA-512 {found} instead of {archive.sha512}")
            file.seek(0)
            unpack(file, staging / "sdk")
        (staging / "sdk").rename(root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _copy_hashed(source: addinfourl, target: IO[bytes]) -> str:
    digest, size = hashlib.sha512(), 0
    while chunk := source.read(1 << 20):
        size += len(chunk)
        if size > _ARCHIVE_LIMIT:
            raise DotnetError("the archive is too large")
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


def _fetcher(environment: Mapping[str, str]) -> _Fetch:
    """A function that opens URLs with the proxies and roots that `environment` names."""
    proxies = {
        scheme: value
        for scheme in ("http", "https")
        if (value := environment.get(f"{scheme}_proxy") or environment.get(f"{scheme.upper()}_PROXY"))
    }
    context = ssl.create_default_context(cafile=environment.get("SSL_CERT_FILE") or None)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
    )
    return lambda url: opener.open(url, timeout=_TIMEOUT_S)


def _json(fetch: _Fetch, url: str, limit: int) -> Any:
    with fetch(url) as response:
        _joined(url, response.url)  # a redirection may not leave https either
        text = response.read(limit + 1)
    if len(text) > limit:
        raise DotnetError(f"{url} is too large")
    return json.loads(text)


def _joined(base: str, url: str) -> str:
    """`url` as seen from `base`: https, or exactly where `base` lies (a mirror without TLS)."""
    try:
        absolute = urljoin(base, url)
        ours, theirs = urlsplit(base), urlsplit(absolute)
    except ValueError as error:
        raise DotnetError(f"{url!r} is not a URL: {error}") from error
    if theirs.scheme != "https" and (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
        raise DotnetError(f"{absolute!r} is not an https URL")
    return absolute


def _sdks(release: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*release.get("sdks", ()), *([release["sdk"]] if release.get("sdk") else [])]


def _stays_inside(member: tarfile.TarInfo) -> bool:
    """Whether a member is a file, directory or link whose path and target lie in the archive's directory."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return False
    paths = [member.name] + ([member.linkname] if member.issym() or member.islnk() else [])
    # Nothing in an SDK points upwards, so no path with ".." is needed to be judged.
    return not any(PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts for path in paths)


def _rid(machine: str) -> str:
    if machine not in _RIDS:
        raise DotnetError(f"there is no SDK for {machine}")
    return _RIDS[machine]


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", version))
