"""Choosing an SDK from the release index and list, and judging archives, without any network."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents_guest.dotnet import Archive, DotnetError, select_channel, select_sdk, unpack

BASE = "https://releases.example/index.json"
HASH = "ab" * 64
INDEX = {
    "releases-index": [
        {
            "channel-version": "8.0",
            "support-phase": "active",
            "releases.json": "https://releases.example/8.json",
        },
        {
            "channel-version": "9.0",
            "support-phase": "go-live",
            "releases.json": "https://releases.example/9.json",
        },
        {
            "channel-version": "10.0",
            "support-phase": "preview",
            "releases.json": "https://releases.example/10.json",
        },
    ]
}


def file(rid: str, name: str = "dotnet-sdk.tar.gz", **more: str) -> dict[str, str]:
    return {"name": name, "rid": rid, "url": f"https://builds.example/{rid}", "hash": HASH.upper(), **more}


NEWEST = [file("linux-arm64"), file("linux-x64", "dotnet.zip"), file("linux-x64")]
RELEASES = {
    "latest-sdk": "10.0.100-preview.2",
    "releases": [
        {"sdk": {"version": "10.0.100-preview.2", "files": NEWEST}, "sdks": []},
        {
            "sdk": {
                "version": "10.0.100-preview.1",
                "files": [file("linux-x64", url="https://builds.example/old")],
            }
        },
    ],
}


@pytest.mark.parametrize(("channel", "found"), [("8.0", "8"), ("10.0", "10"), ("preview", "10")])
def test_channels(channel: str, found: str) -> None:
    assert select_channel(INDEX, channel, BASE) == f"https://releases.example/{found}.json"


def test_the_latest_sdk_for_this_machine() -> None:
    expected = Archive("10.0.100-preview.2", "https://builds.example/linux-x64", HASH)
    assert select_sdk(RELEASES, "linux-x64", BASE) == expected


@pytest.mark.parametrize(
    ("index", "channel"), [(INDEX, "7.0"), ({}, "8.0"), ([], "8.0"), ({"releases-index": [{}]}, "8.0")]
)
def test_unusable_indexes(index: Any, channel: str) -> None:
    with pytest.raises(DotnetError):
        select_channel(index, channel, BASE)


@pytest.mark.parametrize(
    "change",
    [
        {"latest-sdk": "1"},
        {"latest-sdk": "../../x"},
        {"releases": [{"sdk": {"version": "10.0.100-preview.2", "files": [file("linux-x64", hash="00")]}}]},
        {
            "releases": [
                {"sdk": {"version": "10.0.100-preview.2", "files": [file("linux-x64", url="http://evil/x")]}}
            ]
        },
        {
            "releases": [
                {"sdk": {"version": "10.0.100-preview.2", "files": [file("linux-x64", url="file:///etc/x")]}}
            ]
        },
        {"releases": None},
    ],
)
def test_unusable_release_lists(change: dict[str, Any]) -> None:
    with pytest.raises(DotnetError):
        select_sdk({**RELEASES, **change}, "linux-x64", BASE)


@pytest.mark.parametrize("url", ["http://[", "https://[x]:y/", "ftp://releases.example/8.json"])
def test_malformed_urls(url: str) -> None:
    index = {"releases-index": [{"channel-version": "8.0", "releases.json": url}]}
    with pytest.raises(DotnetError):
        select_channel(index, "8.0", "http://mirror/")


def test_a_mirror_without_tls_may_serve_its_own_files_only() -> None:
    index = {"releases-index": [{"channel-version": "8.0", "releases.json": "8/releases.json"}]}
    assert select_channel(index, "8.0", "http://mirror:8080/i.json") == "http://mirror:8080/8/releases.json"
    index["releases-index"][0]["releases.json"] = "http://elsewhere/8.json"
    with pytest.raises(DotnetError):
        select_channel(index, "8.0", "http://mirror:8080/i.json")


@given(
    st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_no_document_raises_anything_else(document: Any) -> None:
    for shaped in (document, {"releases-index": document}, {"releases-index": [document]}):
        with pytest.raises(DotnetError):
            select_channel(shaped, "8.0", BASE)
    for shaped in (
        document,
        {"latest-sdk": "1", "releases": document},
        {"latest-sdk": "1", "releases": [document]},
    ):
        with pytest.raises(DotnetError):
            select_sdk(shaped, "linux-x64", BASE)


def member(name: str, **attributes: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


def packed(*members: tarfile.TarInfo) -> io.BytesIO:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    archive.seek(0)
    return archive


def test_files_directories_and_links_are_unpacked_with_safe_modes(tmp_path: Path) -> None:
    archive = packed(
        member("./sdk", type=tarfile.DIRTYPE, mode=0o777),
        member("./sdk/dotnet", size=3, mode=0o4777),
        member("./sdk/link", type=tarfile.SYMTYPE, linkname="dotnet"),
    )

    unpack(archive, tmp_path)

    assert (tmp_path / "sdk/dotnet").read_bytes() == b"xxx"
    assert (tmp_path / "sdk/dotnet").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "sdk/link").readlink() == Path("dotnet")


@pytest.mark.parametrize(
    "bad",
    [
        member("../x"),
        member("a/../../x"),
        member("/x"),
        member("x", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("x", type=tarfile.SYMTYPE, linkname="../x"),
        member("x", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("x", type=tarfile.CHRTYPE),
        member("x", type=tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name}-{info.type!r}-{info.linkname}",
)
def test_archives_that_reach_out_are_refused(bad: tarfile.TarInfo, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with pytest.raises(DotnetError):
        unpack(packed(bad), target)
    assert list(tmp_path.rglob("*")) == []


def test_what_unpacks_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coding_agents_guest.dotnet._UNPACKED_LIMIT", 10)
    with pytest.raises(DotnetError, match="too large"):
        unpack(packed(member("a", size=6), member("b", size=6)), tmp_path)
