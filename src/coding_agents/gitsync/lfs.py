"""Large files (Git LFS): from the relay into the place where the user's repository keeps them.

The relay has them as pieces (`coding_agents_guest.lfspointer`), which anybody inside can push. Written is what a
commit beyond the session's base names by a pointer, and only when size and SHA-256 are those of the pointer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import IO

import msgspec

from coding_agents.errors import GitError
from coding_agents.gitsync.lfs_added import Added
from coding_agents.gitsync.packs import Store
from coding_agents.gitsync.relay_repo import GIVEN, Relay
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts
from coding_agents.proc.git import git_command, require_ok
from coding_agents.proc.runner import Command, streaming
from coding_agents.store.lfs import find_lfs_store
from coding_agents_guest.lfspointer import (
    LFS,
    LFS_HOME,
    MAX_POINTER,
    Pointer,
    parse_piece_name,
    parse_pointer,
)
from coding_agents_guest.nestedref import GIVEN_HEADS

MAX_ENTRIES = 1_000_000
"""So many names of pieces are read, of all trees together; a hostile guest can push more."""

MAX_POINTERS = 200_000

_READ_S = 3600.0
_AT_ONCE = 20_000
_CHUNK = 1 << 20
_ENTRY = re.compile(rb"100644 blob ([0-9a-f]{40}(?:[0-9a-f]{24})?)\t(.*)", re.DOTALL)


class Brought(msgspec.Struct, frozen=True):
    """By SHA-256: `added`, `refused` (not what the name says), and `too_large` for what the session may have."""

    added: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    too_large: tuple[str, ...] = ()


def bring_large_files(repo: RepoFacts, relay: Relay, *, env: Mapping[str, str], most_bytes: int) -> Brought:
    """Bring home what the relay has of large files. Raises GitError, StoreError.

    All that a session ever adds may have `most_bytes`: one piece can be named as often as a pusher likes, and what
    names it can be taken away again. Afterwards the relay says which of them need not be sent again, and lets go of
    refs that are done with.
    """
    trees = relay.store.refs(LFS)
    if not trees:
        return Brought()
    wanted = _wanted(relay)
    home = find_lfs_store(repo, env)
    missing = {oid: pointer for oid, pointer in wanted.items() if not home.has(pointer)}
    counted = Added(relay.git_dir)
    offered, names = _offered(relay.store, trees, missing)
    added, refused, too_large = [], [], []
    with streaming(_cat_file(relay.store)) as reader:
        for oid, pieces in offered.items():
            pointer = missing[oid]
            if len(pieces) != pointer.pieces or pieces.keys() != set(range(len(pieces))):
                continue  # the rest may be on its way
            if counted.bytes + counted.cost(pointer) > most_bytes:
                too_large.append(oid)
                continue
            counted.add(pointer)
            content = _pieces(pointer, pieces, reader.stdin, reader.stdout)
            if home.add(pointer, content):
                added.append(oid)
            else:
                refused.append(oid)
        require_ok(reader.finish(), "git cat-file")
    at_home = wanted.keys() - missing.keys() | set(added)
    _note_home(relay.store, sorted(at_home))
    done = [ref for ref, oids in names.items() if oids and oids <= at_home]
    if done:
        relay.store.update_refs(*(f"delete {ref} {trees[ref]}" for ref in done))
    return Brought(tuple(added), tuple(refused), tuple(too_large))


def _wanted(relay: Relay) -> dict[str, Pointer]:
    """The pointers in all commits of the relay beyond the base and what went in of submodules, by SHA-256."""
    base = (f"^{relay.base}",) if relay.base is not None else ()
    small = relay.store.git(
        "rev-list", "--objects", "--no-object-names", f"--filter=blob:limit={MAX_POINTER + 1}",
        f"--exclude={LFS}*", f"--exclude={LFS_HOME}", f"--exclude={GIVEN}/*", "--all", *base,
        "--not", f"--glob={GIVEN_HEADS}*", timeout_s=_READ_S,
    ).stdout  # fmt: skip
    checked = relay.store.git(
        "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)", stdin=small, timeout_s=_READ_S
    )
    fields = (line.split() for line in checked.stdout.splitlines())
    blobs = [oid for oid, kind, size in fields if kind == b"blob" and 100 < int(size) <= MAX_POINTER]
    found: dict[str, Pointer] = {}
    for start in range(0, len(blobs), _AT_ONCE):
        some = blobs[start : start + _AT_ONCE]
        answers = BytesIO(relay.store.git("cat-file", "--batch", stdin=b"\n".join([*some, b""])).stdout)
        for _ in some:
            _, size = _header(answers)
            pointer = parse_pointer(answers.read(size))
            answers.read(1)
            if pointer is not None and len(found) < MAX_POINTERS:
                found[pointer.oid] = pointer
    return found


def _offered(
    store: Store, trees: Mapping[str, Oid], missing: Mapping[str, Pointer]
) -> tuple[dict[str, dict[int, bytes]], dict[str, set[str]]]:
    """The blobs for `missing` by SHA-256 and number, and what each ref names, as far as names are read."""
    offered: dict[str, dict[int, bytes]] = {}
    names: dict[str, set[str]] = {}
    left = MAX_ENTRIES
    for ref, tree in trees.items():
        oids: set[str] = set()
        # The ref may name anything, and a tree have links and other trees in it: only what is named as a piece counts.
        command = git_command(
            ("ls-tree", "-z", tree),
            profile=store.profile, env=store.env, git_dir=store.git_dir, owner=store.owner, timeout_s=_READ_S,
        )  # fmt: skip
        with streaming(command) as listing:
            for record in _records(listing.stdout):
                left -= 1
                if left < 0:
                    return offered, names
                entry = _ENTRY.fullmatch(record)
                piece = parse_piece_name(entry[2]) if entry else None
                if entry is None or piece is None:
                    continue
                oids.add(piece[0])
                if piece[0] in missing:
                    offered.setdefault(piece[0], {})[piece[1]] = entry[1]
            listing.finish()  # what is no tree offers nothing
        names[ref] = oids
    return offered, names


def _pieces(
    pointer: Pointer, pieces: Mapping[int, bytes], requests: IO[bytes], answers: IO[bytes]
) -> Iterator[bytes]:
    """The content of the pieces, up to the first that has not the size that it must have."""
    for number in range(pointer.pieces):
        requests.write(pieces[number] + b"\n")
        requests.flush()
        kind, left = _header(answers)
        is_right = kind == b"blob" and left == pointer.piece_size(number)
        while left:
            chunk = answers.read(min(left, _CHUNK))
            if not chunk:
                raise GitError("git cat-file ended early")
            left -= len(chunk)
            if is_right:
                yield chunk
        answers.read(1)
        if not is_right:
            return


def _header(answers: IO[bytes]) -> tuple[bytes, int]:
    """Type and size of the next object that `cat-file --batch` answers with."""
    head = answers.readline(200).split()
    if len(head) != 3:
        raise GitError("git cat-file does not find an object of the relay")
    return head[1], int(head[2])


def _records(stream: IO[bytes]) -> Iterator[bytes]:
    """NUL-terminated records."""
    rest = b""
    while chunk := stream.read(_CHUNK):
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole


def _note_home(store: Store, oids: list[str]) -> None:
    """Say which large files need not be sent."""
    text = "".join(f"{oid}\n" for oid in oids).encode("ascii")
    blob = store.git("hash-object", "-w", "--stdin", stdin=text).text().strip()
    if blob != store.resolve(LFS_HOME):
        store.update_refs(f"update {LFS_HOME} {blob}")


def _cat_file(store: Store) -> Command:
    return git_command(
        ("cat-file", "--batch"),
        profile=store.profile, env=store.env, git_dir=store.git_dir, owner=store.owner, timeout_s=_READ_S,
    )  # fmt: skip
