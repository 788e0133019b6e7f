"""Copies out of a session: streams that a hostile guest writes, and what they leave on the host."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coding_agents.errors import CopyError
from coding_agents.workspace.tar import TarWriter
from coding_agents.workspace.unpack import Unpacked, stays_inside, unpack
from coding_agents.workspace.untar import TarReader, UntarLimits

LIMITS = UntarLimits(size_bytes=1 << 20, entries=50)
Member = tuple[str, bytes, dict[str, object]]


def archive(*members: Member, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, content, changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def file(name: str, content: bytes = b"x", **changes: object) -> Member:
    return name, content, changes


def directory(name: str) -> Member:
    return name, b"", {"type": tarfile.DIRTYPE, "mode": 0o755}


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return name, b"", {"type": kind, "linkname": target}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where copies go; beside it a file that none of them may touch."""
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def take(stream: bytes, target: Path, limits: UntarLimits = LIMITS) -> Unpacked:
    return unpack(TarReader(io.BytesIO(stream), limits), target, complete=lambda: None)


def tree(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def test_a_tree_comes_out_whole_and_ours(place: Path) -> None:
    deep = "top/" + "d" * 90 + "/" + "f" * 120
    stream = archive(
        directory("top"),
        file("top/a", b"1" * 70_000, mode=0o4755, uid=0),
        directory("top/" + "d" * 90),
        file(deep, b"2"),
        link("top/l", "a"),
        link("top/" + "d" * 90 + "/up", "../a"),
    )
    done = take(stream, place / "new")
    assert (done.files, done.size_bytes, done.left_out_count) == (2, 70_001, 0)
    assert (place / "new/a").read_bytes() == b"1" * 70_000
    assert (place / "new" / deep[4:]).read_bytes() == b"2"
    assert (place / "new/l").readlink() == Path("a")
    assert stat.S_IMODE((place / "new/a").stat().st_mode) == 0o755
    assert (place / "new/a").stat().st_uid == os.geteuid()
    assert tree(place)[0] == "new"


def test_what_tar_itself_writes_is_read(place: Path, tmp_path: Path) -> None:
    written = io.BytesIO()
    writer = TarWriter(written)
    writer.directory("x" * 200, mode=0o700, mtime_s=1)
    writer.data("x" * 200 + "/" + "é" * 100, b"content", mode=0o600, mtime_s=1)
    writer.close()
    take(written.getvalue(), place / "new")
    assert (place / "new" / ("é" * 100)).read_bytes() == b"content"


@pytest.mark.parametrize(
    "members",
    [
        [file("../victim")],
        [file("/victim")],
        [file("top/../../victim")],
        [directory("top"), file("top/./a")],
        [directory("top"), file("top//a")],
        [directory("top"), file("other/a")],
        [directory("top"), file("other")],
        [file("top/a")],
        [directory("top"), file("top/a"), file("top/a")],
        [directory("top"), directory("top")],
        [directory("top"), file("top/a"), directory("top/a/b")],
        [directory("top"), link("top/l", "."), file("top/l/a")],
        [directory("top"), directory("top/d"), link("top/l", "d"), file("top/l/a")],
        [directory("top"), link("top/l", "a"), file("top/l")],
        [file("top", type=b"S")],
        [file("top", type=b"M")],
        [file("top", type=b"V")],
        [file("top", type=b"7")],
        [file("top", b"x", type=tarfile.SYMTYPE, linkname="y")],
        [directory("/".join("d" * 120))],
        [file("a" * 256)],
        [file("x" * 5000)],
    ],
    ids=range(22),
)
def test_what_leads_elsewhere_or_is_odd_is_refused_and_nothing_is_left(
    place: Path, members: list[Member]
) -> None:
    with pytest.raises(CopyError):
        take(archive(*members), place / "new")
    assert tree(place) == []
    assert (place.parent / "victim").read_text() == "untouched"


def test_pax_headers_and_their_sizes_are_refused(place: Path) -> None:
    with pytest.raises(CopyError, match="type b'x'"):
        take(archive(file("é" * 120), form=tarfile.PAX_FORMAT), place / "new")


@pytest.mark.parametrize(
    "left_out",
    [
        link("top/l", "/etc/passwd"),
        link("top/l", "../victim"),
        link("top/l", "d/../../victim"),
        link("top/l", "a/.."),
        link("top/l", ""),
        link("top/l", "top/a", tarfile.LNKTYPE),
        ("top/l", b"", {"type": tarfile.FIFOTYPE}),
        ("top/l", b"", {"type": tarfile.CHRTYPE}),
        ("top/l", b"", {"type": tarfile.BLKTYPE}),
    ],
    ids=range(9),
)
def test_links_out_and_devices_are_left_out_and_named(place: Path, left_out: Member) -> None:
    done = take(archive(directory("top"), file("top/a"), left_out), place / "new")
    assert tree(place) == ["new", "new/a"]
    assert (done.left_out, done.left_out_count) == (["top/l"], 1)


def test_a_link_alone_that_leads_out_is_an_error(place: Path) -> None:
    for alone in (link("top", "/etc/passwd"), link("top", "../victim")):
        with pytest.raises(CopyError, match="nothing"):
            take(archive(alone), place / "new")
        assert tree(place) == []


@pytest.mark.parametrize(
    ("target", "depth", "inside"),
    [
        (b"a", 0, True), (b"a/b", 0, True), (b"../a", 1, True), (b"..", 1, True), (b"../..", 2, True), (b".", 0, True),
        (b"../a", 0, False), (b"../../a", 1, False), (b"/a", 5, False), (b"a/../b", 1, False), (b"a/..", 3, False),
        (b"", 0, False), (b"a//b", 0, False), (b"./..", 1, False),
    ],
)  # fmt: skip
def test_which_links_stay_inside(target: bytes, depth: int, inside: bool) -> None:
    assert stays_inside(target, depth=depth) is inside


_LINK_PARTS = st.lists(st.sampled_from([b"..", b"a", b"b", b"."]), min_size=1, max_size=5).map(b"/".join)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(links=st.dictionaries(st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a"]), _LINK_PARTS, max_size=5))
def test_no_set_of_links_leads_out(tmp_path_factory: pytest.TempPathFactory, links: dict[str, bytes]) -> None:
    """Links may lead through each other: the file system itself says where each ends."""
    place = tmp_path_factory.mktemp("links")
    members = [directory("top"), directory("top/d"), directory("top/d/e")]
    take(
        archive(*members, *(link(f"top/{name}", target.decode()) for name, target in links.items())),
        place / "new",
    )
    for path in (place / "new").rglob("*"):
        if path.is_symlink():
            try:
                resolved = path.resolve()
            except (OSError, RuntimeError):  # a circle
                continue
            assert resolved.is_relative_to(place / "new"), (path, path.readlink())


def test_limits_are_held_before_anything_is_written(place: Path) -> None:
    big = bytearray(archive(file("top")))
    big[124:136] = b"\x80" + (1 << 40).to_bytes(11, "big")
    big[148:156] = b"%06o\0 " % (sum(big[:148]) + sum(big[156:512]) + 8 * 32)
    with pytest.raises(CopyError, match="more than 1m"):
        take(bytes(big), place / "new")
    with pytest.raises(CopyError, match="more than 50 files"):
        take(archive(directory("top"), *(file(f"top/{n}") for n in range(60))), place / "new")
    with pytest.raises(CopyError, match="more than 1m"):
        take(archive(directory("top"), *(file(f"top/{n}", b"x" * 300_000) for n in range(4))), place / "new")
    assert tree(place) == []


def test_a_long_name_is_not_taken_at_its_word(place: Path) -> None:
    """The size of a GNU long name is read before anything of it: no gigabytes in memory."""
    block = bytearray(archive(file("top")))[:512]
    block[156:157] = b"L"
    block[124:136] = b"77777777777\0"
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:512]) + 8 * 32)
    with pytest.raises(CopyError, match="name of"):
        take(bytes(block) + b"x" * 4096, place / "new")


def test_a_stream_that_ends_early_leaves_nothing(place: Path) -> None:
    stream = archive(directory("top"), file("top/a", b"x" * 5000))
    for cut in (0, 100, 512, 1024, 3000):
        with pytest.raises(EOFError):
            take(stream[:cut], place / "new")
    assert tree(place) == []


def test_what_fails_at_the_end_leaves_nothing(place: Path) -> None:
    def complete() -> None:
        raise CopyError("tar failed", hint="x")

    with pytest.raises(CopyError, match="tar failed"):
        unpack(TarReader(io.BytesIO(archive(file("top"))), LIMITS), place / "new", complete=complete)
    assert tree(place) == []


def _as_link(target: Path) -> None:
    target.symlink_to(target.parent.parent / "victim")


@pytest.mark.parametrize("there", [Path.mkdir, _as_link])
def test_nothing_but_a_plain_file_is_replaced(place: Path, there: Callable[[Path], None]) -> None:
    there(place / "new")
    with pytest.raises(CopyError, match="there already"):
        take(archive(file("top", b"evil")), place / "new")
    assert (place.parent / "victim").read_text() == "untouched"


def test_a_plain_file_is_replaced_by_a_file_alone(place: Path) -> None:
    (place / "new").write_text("old")
    with pytest.raises(CopyError, match="there already"):
        take(archive(directory("top")), place / "new")
    take(archive(file("top", b"fresh")), place / "new")
    assert (place / "new").read_bytes() == b"fresh"


_NOISE = st.lists(
    st.one_of(
        st.sampled_from(
            [archive(file("top", b"x" * 600))[:1536], archive(directory("top"))[:512], bytes(512)]
        ),
        st.binary(min_size=512, max_size=512),
    ),
    max_size=6,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_NOISE, st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=6))
def test_noise_makes_a_copy_or_one_of_our_errors(
    tmp_path_factory: pytest.TempPathFactory, blocks: Iterable[bytes], changes: list[tuple[int, int]]
) -> None:
    stream = bytearray(b"".join(blocks))
    for at, value in changes:
        if at < len(stream):
            stream[at] = value
    place = tmp_path_factory.mktemp("noise")
    try:
        take(bytes(stream), place / "new")
    except (CopyError, EOFError):
        assert tree(place) == []
    else:
        assert tree(place)[0] == "new"
