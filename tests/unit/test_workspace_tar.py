"""The tar writer against Python's reader: whatever is written is read back the same."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.workspace.tar import AGENT_UID, TarWriter, header

NAMES = st.binary(min_size=1, max_size=400).map(
    lambda raw: raw.replace(b"\0", b"x").strip(b"/").replace(b"//", b"/") or b"x"
)
TIMES = st.integers(min_value=-10, max_value=8**11 + 10)


def read_back(stream: io.BytesIO) -> list[tuple[tarfile.TarInfo, bytes]]:
    stream.seek(0)
    with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        return [(member, b"" if (f := archive.extractfile(member)) is None else f.read())
                for member in archive if not member.issym()] + [
            (member, b"") for member in archive if member.issym()]  # fmt: skip


@given(NAMES, st.binary(max_size=2000), st.integers(min_value=0, max_value=0o177777), TIMES)
def test_files_come_back(name: bytes, content: bytes, mode: int, mtime_s: int) -> None:
    stream = io.BytesIO()
    tar = TarWriter(stream)
    tar.data(os.fsdecode(name), content, mode=mode, mtime_s=mtime_s)
    tar.data("last", b"", mode=0o600, mtime_s=1)
    tar.close()
    (member, read), (last, _) = read_back(stream)
    assert os.fsencode(member.name) == name
    assert read == content
    assert member.mode == mode & 0o777
    assert (member.uid, member.gid) == (AGENT_UID, AGENT_UID)
    assert member.mtime == min(max(mtime_s, 0), 8**11 - 1)
    assert last.name == "last"


@given(NAMES, NAMES)
def test_links_come_back(name: bytes, target: bytes) -> None:
    stream = io.BytesIO()
    tar = TarWriter(stream)
    tar.link(os.fsdecode(name), os.fsdecode(target), mtime_s=5)
    tar.close()
    [(member, _)] = read_back(stream)
    assert member.issym()
    assert os.fsencode(member.name) == name
    assert os.fsencode(member.linkname) == target


@pytest.mark.parametrize("size", [0, 511, 8**11 - 1, 8**11, 2**40])
def test_sizes_of_any_magnitude(size: int) -> None:
    block = header(b"big", b"0", mode=0o644, size=size)
    assert tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size == size


def test_directories_and_descriptors(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"0123456789" * 300_000)
    stream = io.BytesIO()
    tar = TarWriter(stream)
    tar.directory("d", mode=0o2750, mtime_s=7)
    with source.open("rb") as file:
        tar.file("d/f", file.fileno(), size=3_000_000, mode=0o755, mtime_s=8)
    tar.close()
    (directory, _), (member, content) = read_back(stream)
    assert directory.isdir()
    assert directory.mode == 0o750
    assert content == source.read_bytes()
    assert member.mode == 0o755


def test_a_file_that_shrank_is_reported(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"short")
    with source.open("rb") as file, pytest.raises(EOFError, match="'f' ended 1 bytes early"):
        TarWriter(io.BytesIO()).file("f", file.fileno(), size=6, mode=0o644, mtime_s=0)
