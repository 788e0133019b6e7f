"""The pack scanner against git itself: on packs of every shape, and on damaged ones, both say the same."""

from __future__ import annotations

import subprocess
import time
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding_agents.gitsync.pack_scan import MalformedPackError, PackBounds, PackScanner, PackTooLargeError
from support.gitattack import BLOB, entry_header, sealed
from support.packfuzz import OUTSIDE, MadePack, damaged, lying, packs
from support.repos import git_env, sh

MIB = 1 << 20
WIDE = PackBounds(object_bytes=100 * MIB, unpacked_bytes=200 * MIB, objects=1000)
Outcome = tuple[object, ...]

_HELD = 8 * MIB
_SECONDS = 5.0


class Receiver:
    """A repository with OUTSIDE in it, and git's verdict on a pack that comes there."""

    def __init__(self, root: Path) -> None:
        self.env = git_env(root / "home")
        self.repo = root / "repo"
        self.repo.mkdir()
        sh(self.repo, "init", "--quiet", "--bare", env=self.env)
        (root / "outside").write_bytes(OUTSIDE)
        self.outside = sh(self.repo, "hash-object", "-w", str(root / "outside"), env=self.env)

    def takes(self, pack: bytes, *words: str) -> list[int] | None:
        """The sizes of all objects that came, by `git index-pack`; None when it refuses them."""
        with TemporaryDirectory(prefix="objects-") as objects:
            env = {**self.env, "GIT_OBJECT_DIRECTORY": objects,
                   "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self.repo / "objects")}  # fmt: skip
            done = self._git(env, pack, "index-pack", "--stdin", "--fix-thin", *words)
            if done.returncode != 0:
                return None
            if not int.from_bytes(pack[8:12], "big"):
                return []
            (index,) = (Path(objects) / "pack").glob("*.idx")
            shown = self._git(env, index.read_bytes(), "show-index").stdout.decode().splitlines()
            oids = [line.split()[1] for line in shown]
            if len(oids) > int.from_bytes(pack[8:12], "big"):
                oids.remove(self.outside)  # --fix-thin has put it there
            sizes = self._git(env, "\n".join(oids).encode(), "cat-file", "--batch-check=%(objectsize)").stdout
            return [int(size) for size in sizes.split()]

    def unpacks(self, pack: bytes) -> bool:
        with TemporaryDirectory(prefix="objects-") as objects:
            env = {**self.env, "GIT_OBJECT_DIRECTORY": objects,
                   "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self.repo / "objects")}  # fmt: skip
            return self._git(env, pack, "unpack-objects", "-q").returncode == 0

    def _git(self, env: dict[str, str], stdin: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
        env = {**env, "GIT_ALLOC_LIMIT": "512m"}
        return subprocess.run(
            ["git", *words], cwd=self.repo, env=env, input=stdin, capture_output=True, timeout=60, check=False
        )

    def __repr__(self) -> str:
        return "receiver"


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Receiver:
    return Receiver(tmp_path_factory.mktemp("receiver"))


def outcome(data: bytes, cuts: list[int], bounds: PackBounds = WIDE) -> Outcome:
    """What the scanner says of `data` that is cut at `cuts`. Any other exception than its two is a failure."""
    scanner = PackScanner(bounds, hash_bytes=20)
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    try:
        for start, end in pairwise(edges):
            scanner.feed(data[start:end])
    except MalformedPackError:
        return ("malformed",)
    except PackTooLargeError as error:
        return ("too large", error.what, error.size)
    return ("whole" if scanner.complete else "waiting", scanner.unpacked)


_cuts = st.lists(st.integers(0, 4000), max_size=20)


@settings(max_examples=60)
@given(pack=packs(), cuts=_cuts)
def test_what_git_takes_is_taken_and_measures_the_same(
    receiver: Receiver, pack: MadePack, cuts: list[int]
) -> None:
    taken = receiver.takes(pack.data)
    assert taken is not None
    assert sorted(taken) == sorted(pack.sizes)
    assert outcome(pack.data, cuts) == ("whole", sum(pack.sizes))
    assert outcome(pack.data + b"x", cuts) == ("malformed",)


@settings(max_examples=120)
@given(pack=damaged(), cuts=_cuts)
def test_a_damaged_pack_never_gets_past_the_scanner_and_not_past_git(
    receiver: Receiver, pack: bytes, cuts: list[int]
) -> None:
    """What git takes of them (a changed byte may make another pack) the scanner takes, with the same sum."""
    said = outcome(pack, [])
    assert outcome(pack, cuts) == said
    taken = receiver.takes(pack)
    if taken is not None and said != ("malformed",):
        assert said == ("whole", sum(taken))
    if said == ("malformed",):
        # git stops reading where the pack ends; to us what follows is no part of it.
        assert taken is None or _has_more(pack)
    if said[0] == "waiting":
        assert not receiver.unpacks(pack)


@settings(max_examples=60)
@given(pack=lying(), cuts=_cuts)
def test_an_object_of_another_size_than_it_says_is_refused_as_git_does(
    receiver: Receiver, pack: bytes, cuts: list[int]
) -> None:
    assert receiver.takes(pack) is None
    assert outcome(pack, cuts) == ("malformed",)


@settings(max_examples=100)
@given(pack=packs(), more=st.tuples(st.integers(-1, 1), st.integers(-1, 1), st.integers(-1, 1)), cuts=_cuts)
def test_a_bound_is_kept_to_the_byte(pack: MadePack, more: tuple[int, int, int], cuts: list[int]) -> None:
    largest = max((*pack.sizes, *pack.deltas), default=0)
    one, together, count = (
        max(0, exact + by)
        for exact, by in zip((largest, sum(pack.sizes), len(pack.sizes)), more, strict=True)
    )
    said = outcome(pack.data, cuts, PackBounds(object_bytes=one, unpacked_bytes=together, objects=count))
    if largest <= one and sum(pack.sizes) <= together and len(pack.sizes) <= count:
        assert said == ("whole", sum(pack.sizes))
    else:
        assert said[0] == "too large"


@settings(max_examples=8)
@given(size=st.integers(10 * MIB, 40 * MIB), said=st.sampled_from((None, 0, 4, 90 * MIB)))
def test_a_bomb_costs_no_memory(size: int, said: int | None) -> None:
    body = zlib.compress(bytes(size))
    pack = sealed(entry_header(BLOB, size if said is None else said) + body, 1)
    tracemalloc.start()
    try:
        kind = outcome(pack, list(range(0, len(pack), 1 << 16)))[0]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kind == ("whole" if said is None else "malformed")
    assert most < 4 * MIB


@settings(max_examples=100)
@given(
    pack=st.one_of(damaged(), st.binary(max_size=2000).map(lambda data: b"PACK\0\0\0\2\0\0\0\7" + data)),
    cuts=_cuts,
)
def test_it_costs_neither_memory_nor_time(pack: bytes, cuts: list[int]) -> None:
    began = time.process_time()
    tracemalloc.start()
    try:
        outcome(pack, cuts)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < _HELD
    assert time.process_time() - began < _SECONDS


def _has_more(pack: bytes) -> bool:
    """Whether a pack that ends earlier stands at the beginning of `pack`."""
    scanner = PackScanner(WIDE, hash_bytes=20)
    try:
        for byte in pack:
            if scanner.complete:
                return True
            scanner.feed(bytes([byte]))
    except MalformedPackError:
        return False
    return False
