"""Where the Dockerfiles and manifests that we ship are, and reading a directory of them whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import coding_agents
from coding_agents.errors import ImageBuildError

Tree = Mapping[str, bytes]
"""Content of each file of a directory by its relative path, '/' between the parts."""

_MAX_BYTES = 64 << 20


def data_dir(name: str) -> Path:
    """The directory `images` or `agents`: inside an installed wheel, else at the root of the checkout."""
    package = Path(coding_agents.__file__).resolve().parent
    installed = package / "_data" / name
    return installed if installed.is_dir() else package.parent.parent / name


def read_tree(path: Path) -> dict[str, bytes]:
    """Every regular file below `path`. Raises ImageBuildError for symbolic links and more than 64 MiB."""
    tree: dict[str, bytes] = {}
    for entry in sorted(path.rglob("*")):
        if entry.is_symlink():
            raise ImageBuildError(
                f"{entry} is a symbolic link", hint="A build context holds regular files only."
            )
        if entry.is_file() and "__pycache__" not in entry.parts:
            tree[entry.relative_to(path).as_posix()] = entry.read_bytes()
    if sum(map(len, tree.values())) > _MAX_BYTES:
        raise ImageBuildError(f"{path} is larger than {_MAX_BYTES >> 20} MiB", hint="Keep data out of it.")
    return tree


def write_tree(tree: Tree, destination: Path) -> None:
    """Write `tree` below `destination`; what begins with '#!' is executable, whatever a wheel made of it."""
    for name, content in tree.items():
        path = destination / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if content.startswith(b"#!") else 0o644)


def tree_hash(tree: Tree, *facts: str) -> str:
    """SHA-256 in hex over `facts` and the names and contents of `tree`, independent of its order."""
    digest = hashlib.sha256()
    for part in (*(fact.encode() for fact in facts), b"tree"):
        digest.update(b"%d:%s" % (len(part), part))
    for name in sorted(tree):
        for part in (name.encode(), tree[name]):
            digest.update(b"%d:%s" % (len(part), part))
    return digest.hexdigest()
