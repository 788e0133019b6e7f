"""Installing a .NET SDK from a local release index over HTTP."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import platform
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coding_agents_guest.dotnet import DotnetError, install_dotnet, installed_dotnet

VERSION = "10.0.100-preview.2"
RID = {"x86_64": "linux-x64", "aarch64": "linux-arm64", "armv7l": "linux-arm"}[platform.machine()]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away.json":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/index.json")  # type: ignore[attr-defined]
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Mirror:
    url: str
    directory: Path
    seen: list[str]


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    directory = tmp_path / "mirror"
    directory.mkdir()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        info = tarfile.TarInfo("./dotnet")
        info.mode, content = 0o755, b"#!/bin/sh\necho fake sdk\n"
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    (directory / "sdk.tar.gz").write_bytes(archive.getvalue())
    entry = {"channel-version": "10.0", "support-phase": "preview", "releases.json": "releases.json"}
    (directory / "index.json").write_text(json.dumps({"releases-index": [entry]}))
    file = {
        "name": "dotnet-sdk.tar.gz",
        "rid": RID,
        "url": "sdk.tar.gz",
        "hash": hashlib.sha512(archive.getvalue()).hexdigest(),
    }
    releases = {"latest-sdk": VERSION, "releases": [{"sdk": {"version": VERSION, "files": [file]}}]}
    (directory / "releases.json").write_text(json.dumps(releases))
    handler = functools.partial(_Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.seen = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Mirror(f"http://127.0.0.1:{server.server_port}/index.json", directory, server.seen)  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


def install(mirror: Mirror, home: Path, channel: str = "10.0") -> dict[str, str]:
    return install_dotnet(channel, index_url=mirror.url, home=home, environment={"PATH": "/usr/bin"})


def test_it_is_installed_once_and_put_on_the_path(mirror: Mirror, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()

    environment = install(mirror, home, "preview")

    root = home / ".local/share/dotnet" / VERSION
    assert environment["PATH"] == f"{root}:/usr/bin"
    assert environment["DOTNET_ROOT"] == str(root)
    assert (root / "dotnet").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in root.parent.iterdir()] == [VERSION]
    assert install(mirror, home) == environment
    assert sum("sdk.tar.gz" in line for line in mirror.seen) == 1


def test_a_later_start_finds_the_newest_without_a_network(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin"}
    assert installed_dotnet(tmp_path, environment=environment) == {}
    for version in ("9.0.300", "10.0.100-preview.2", "10.0.100-preview.10", "11.0.0"):
        (tmp_path / ".local/share/dotnet" / version).mkdir(parents=True)
        if version != "11.0.0":  # what is not whole does not count
            (tmp_path / ".local/share/dotnet" / version / "dotnet").touch()

    found = installed_dotnet(tmp_path, environment=environment)

    assert found["DOTNET_ROOT"].endswith("/10.0.100-preview.10")


def test_a_changed_archive_is_refused_and_leaves_nothing(mirror: Mirror, tmp_path: Path) -> None:
    with (mirror.directory / "sdk.tar.gz").open("ab") as archive:
        archive.write(b"more")

    with pytest.raises(DotnetError, match="SHA-512"):
        install(mirror, tmp_path)

    assert list((tmp_path / ".local/share/dotnet").iterdir()) == []


@pytest.mark.parametrize("missing", ["index.json", "releases.json", "sdk.tar.gz"])
def test_missing_parts_are_named(mirror: Mirror, tmp_path: Path, missing: str) -> None:
    (mirror.directory / missing).unlink()
    with pytest.raises(DotnetError, match="404"):
        install(mirror, tmp_path)


@pytest.mark.parametrize("name", ["index.json", "releases.json"])
def test_garbage_and_oversize_are_refused(
    mirror: Mirror, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mirror.directory / name).write_text("not json")
    with pytest.raises(DotnetError):
        install(mirror, tmp_path)
    monkeypatch.setattr("coding_agents_guest.dotnet._INDEX_LIMIT", 4)
    monkeypatch.setattr("coding_agents_guest.dotnet._RELEASES_LIMIT", 4)
    with pytest.raises(DotnetError, match="too large"):
        install(mirror, tmp_path)


def test_a_redirection_to_another_place_without_tls_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.url.replace("index.json", "away.json")
    with pytest.raises(DotnetError, match="not an https URL"):
        install_dotnet("10.0", index_url=url, home=tmp_path, environment={"PATH": "/usr/bin"})


def test_an_unreachable_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(DotnetError, match=r"\.NET 10\.0: .*refused"):
        install_dotnet(
            "10.0", index_url="http://127.0.0.1:1/i", home=tmp_path, environment={"PATH": "/usr/bin"}
        )
