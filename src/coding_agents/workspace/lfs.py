"""Which large files (Git LFS) go into the container as objects, so that git-lfs needs no server to check them out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path

from coding_agents.model.refs import Oid
from coding_agents.proc.git import Profile, git
from coding_agents.store.lfs import LfsStore
from coding_agents.workspace.source import GIT_TIMEOUT_S
from coding_agents_guest.lfspointer import MAX_POINTER, Pointer, parse_pointer

_AT_ONCE = 20_000


def large_files(
    store: LfsStore, git_dir: Path, trees: Iterable[Oid], env: Mapping[str, str]
) -> Iterator[tuple[Pointer, int]]:
    """What `trees` (of the repository of ours at `git_dir`) name and the host has, each opened for the caller to close.

    Raises GitError.
    """
    if not store.is_there:
        return
    seen: set[Pointer] = set()
    for tree in trees:
        for pointer in _pointers(git_dir, tree, env):
            if pointer not in seen:
                seen.add(pointer)
                file = store.open(pointer)
                if file is not None:
                    yield pointer, file


def _pointers(git_dir: Path, tree: Oid, env: Mapping[str, str]) -> Iterator[Pointer]:
    def run(*args: str, stdin: bytes | None = None) -> bytes:
        return git(
            args, profile=Profile.OWN, env=env, git_dir=git_dir, stdin=stdin, timeout_s=GIT_TIMEOUT_S
        ).stdout

    # MODE blob OID SIZE<TAB>PATH
    entries = (record.split(None, 4) for record in run("ls-tree", "-r", "-l", "-z", tree).split(b"\0"))
    small = [
        entry[2]
        for entry in entries
        if len(entry) == 5 and entry[1] == b"blob" and 100 < int(entry[3]) <= MAX_POINTER
    ]
    for start in range(0, len(small), _AT_ONCE):
        some = small[start : start + _AT_ONCE]
        answers = BytesIO(run("cat-file", "--batch", stdin=b"\n".join([*some, b""])))
        for _ in some:
            content = answers.read(int(answers.readline().split()[2]))
            answers.read(1)
            pointer = parse_pointer(content)
            if pointer is not None:
                yield pointer
