"""Every kind of repository that people have, each built with real git, and what becomes of it.

The one table behind tests/component/test_repository_kinds.py and docs/reference/repositories.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from support.repos import git_env, make_repo, sh
from support.triggers import git_version
from support.workspaces import Host, make_host

LFS = (
    '[filter "lfs"]\n\tclean = git-lfs clean -- %f\n\tsmudge = git-lfs smudge -- %f\n'
    "\tprocess = git-lfs filter-process\n\trequired = true\n"
)
MANY_FILES = 100_000
_KNOWS_REFTABLE = (2, 45)
LONGEST = "n" * 251 + ".txt"
ODD_NAMES = (
    "with space", "new\nline", "tab\tand \"quotes' and \\back", "-leading", "--force", ":(glob)**", "*",
    "caf\u00e9", "cafe\u0301", "Case", "case", "CASE", "trailing ", ".hidden", "a/-b/c d/e", LONGEST,
    "\u202egnp.exe", os.fsdecode(b"latin\xe9"), "HEAD", "@{-1}", "COM1", "nul.txt",
)  # fmt: skip
"""Names that git and a Linux file system take, and that programs stumble over."""


def as_it_is(path: str, content: bytes) -> bytes:
    return content


def with_line_feeds(path: str, content: bytes) -> bytes:
    """What git stores of text files where the work tree has CRLF."""
    return content.replace(b"\r\n", b"\n")


def lfs_pointer(path: str, content: bytes) -> bytes:
    """What git stores of `*.bin`: the pointer that names the content by its SHA-256 (git-lfs specification)."""
    if not path.endswith(".bin") or content.startswith(b"version https://git-lfs"):
        return content
    digest = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n".encode()


@dataclass(frozen=True)
class Kind:
    """`build` makes the repository below a directory. `refused`: the code of the error with which a launch
    refuses it, "" when it works, `says` what the message must contain. `stored` is how git stores a file, `fetches`
    whether a launch adds what the repository was promised, `slow` whether it takes too long for CI. Only git from
    version `since` on, and below `until`, has it."""

    name: str
    build: Callable[[Path], Host]
    refused: str = ""
    says: str = ""
    stored: Callable[[str, bytes], bytes] = as_it_is
    fetches: bool = False
    slow: bool = False
    since: tuple[int, ...] = (0,)
    until: tuple[int, ...] = (1000,)


def as_parameter(kind: Kind) -> object:
    """The kind for `pytest.mark.parametrize`."""
    return pytest.param(kind, id=kind.name, marks=[pytest.mark.slow] if kind.slow else [])


def plain(root: Path) -> Host:
    host = make_host(root)
    host.commit(
        **{"src/app.py": "print(1)\n", "src/util/deep.py": "x = 1\n", "gone": "gone\n", "old": "old\n"}
    )
    return host


def dirty(root: Path) -> Host:
    host = plain(root)
    host.write("changed", "by the user\n")
    host.write("kept", "staged\n")
    host.git("add", "kept")
    host.write("notes", "untracked\n")
    (host.work / "src/util/deep.py").unlink()
    return host


def detached(root: Path) -> Host:
    host = plain(root)
    host.git("checkout", "--quiet", "--detach", "HEAD~1")
    host.git("checkout", "--quiet", "main", "--", "src", "gone", "old")
    host.git("commit", "--quiet", "-m", "detached")
    return host


def linked(root: Path) -> Host:
    host = plain(root)
    host.git("worktree", "add", "--quiet", "-b", "linked", str(root / "linked"))
    other = replace(host, work=root / "linked")
    other.write("changed", "linked\n")
    return other


def shallow(root: Path) -> Host:
    host = plain(root)
    sh(root, "clone", "--quiet", "--depth=2", f"file://{host.work}", "shallow", env=host.env)
    return replace(host, work=root / "shallow")


def _partial(root: Path, spec: str) -> Host:
    """A clone that lacks objects, of an origin whose older commits have others than its newest one."""
    origin = plain(root)
    origin.git("config", "uploadpack.allowFilter", "true")
    origin.git("config", "uploadpack.allowAnySHA1InWant", "true")
    origin.commit(changed="once more\n", README="all new\n")
    sh(root, "clone", "--quiet", f"--filter={spec}", f"file://{origin.work}", "partial", env=origin.env)
    host = replace(origin, work=root / "partial")
    assert "?" in host.git("rev-list", "--objects", "--all", "--missing=print")
    return host


def partial(root: Path) -> Host:
    return _partial(root, "blob:none")


def treeless(root: Path) -> Host:
    return _partial(root, "tree:0")


def unreachable(root: Path) -> Host:
    host = partial(root)
    (root / "work").rename(root / "away")
    return host


def alternates(root: Path) -> Host:
    host = plain(root)
    sh(root, "clone", "--quiet", "--shared", str(host.work), "second", env=host.env)
    sh(root, "clone", "--quiet", "--shared", "second", "third", env=host.env)
    third = replace(host, work=root / "third")
    third.commit(own="own\n")
    third.write("changed", "by the user\n")
    return third


def lfs(root: Path) -> Host:
    host = plain(root)
    host.configure(LFS)
    host.commit(**{".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    host.commit(**{"large.bin": "large\n", "other.bin": "other\n"})
    return host


def lfs_changed(root: Path) -> Host:
    host = lfs(root)
    host.write("large.bin", "changed by the user\n")
    host.write("staged.bin", "staged by the user\n")
    host.git("add", "staged.bin")
    return host


def lfs_pointers(root: Path) -> Host:
    """A clone whose large files were never fetched."""
    host = lfs(root)
    env = {**host.env, "GIT_LFS_SKIP_SMUDGE": "1"}
    sh(root, "clone", "--quiet", f"file://{host.work}", "pointers", env=env)
    clone = Host(root, root / "pointers", env)
    assert (clone.work / "large.bin").read_bytes().startswith(b"version https://git-lfs")
    return clone


def autocrlf(root: Path) -> Host:
    host = plain(root)
    host.configure("[core]\n\tautocrlf = true\n\tsafecrlf = false\n")
    host.commit(**{"dos.txt": "one\r\ntwo\r\n", "mixed.txt": "one\r\ntwo\n"})
    host.write("dos.txt", "one\r\ntwo\r\n")
    return host


def eol(root: Path) -> Host:
    host = plain(root)
    host.commit(**{".gitattributes": "*.bat text eol=crlf\n*.sh text eol=lf\n*.dat -text\n"})
    host.write("raw.dat", b"a\nb\n")
    host.commit(**{"run.bat": "a\r\nb\r\n", "run.sh": "a\nb\n"})
    return host


def working_tree_encoding(root: Path) -> Host:
    host = plain(root)
    host.commit(**{".gitattributes": "*.u16 text working-tree-encoding=UTF-16LE\n"})
    host.write("a.u16", "text \u00fc\n".encode("utf-16-le"))
    host.git("add", "a.u16")
    host.git("commit", "--quiet", "-m", "encoded")
    return host


def global_rules(root: Path) -> Host:
    host = plain(root)
    (root / "home/my ignore").write_text("*.orig\n")
    (root / "home/attributes").write_text("*.txt text eol=crlf\n")
    host.configure('[core]\n\texcludesFile = "~/my ignore"\n\tattributesFile = ~/attributes\n')
    (host.work / ".git/info/exclude").write_text("private/\n")
    host.commit(**{"a.txt": "a\r\n"})
    host.write("a.orig", "x")
    host.write("private/x", "x")
    host.write("shown", "x")
    return host


def signing(root: Path) -> Host:
    host = plain(root)
    for key, value in (("commit.gpgSign", "true"), ("gpg.format", "ssh"), ("gpg.program", "/no/gpg"),
                       ("user.signingKey", "/no/key"), ("gpg.ssh.program", "/no/ssh")):  # fmt: skip
        host.git("config", key, value)
    return host


def _sparse(root: Path, *options: str) -> Host:
    host = plain(root)
    host.commit(**{"far/away": "far\n", "far/deep/er": "far\n"})
    host.git("sparse-checkout", "set", *options, "src")
    assert not (host.work / "far").exists()
    host.write("src/app.py", "print(22)\n")  # another size: the time is the same second
    return host


def sparse(root: Path) -> Host:
    return _sparse(root, "--cone")


def sparse_patterns(root: Path) -> Host:
    return _sparse(root, "--no-cone", "/*", "!/far/")


def sparse_index(root: Path) -> Host:
    return _sparse(root, "--cone", "--sparse-index")


def unborn(root: Path) -> Host:
    env = git_env(root / "home")
    host = Host(root, make_repo(root / "work", env=env, commits=0), env)
    host.write("first", "x\n")
    host.write("kept", "x\n")
    host.git("add", "kept")
    return host


def sha256(root: Path) -> Host:
    env = git_env(root / "home")
    work = root / "work"
    work.mkdir()
    sh(work, "init", "--quiet", "--object-format=sha256", env=env)
    host = Host(root, work, env)
    host.commit(kept="kept\n", changed="before\n", gone="gone\n", old="old\n")
    host.write("changed", "by the user\n")
    return host


def add_submodule(host: Host, origin: Path, path: str, *options: str) -> Host:
    """Add the repository at `origin` to `host` as a submodule at `path` and commit that; its checkout, aged."""
    host.git(
        "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", *options, f"file://{origin}", path
    )
    host.git("commit", "--quiet", "-m", f"submodule {path}")
    inner = replace(host, work=host.work / path)
    for name in filter(None, inner.git("ls-files", "-z").split("\0")):
        if (inner.work / name).is_file():
            inner.write(name, (inner.work / name).read_bytes())
    inner.git("status")
    return inner


def origin_of(root: Path, name: str) -> Host:
    """A repository to be a submodule, with commits that no other one has."""
    host = plain(root / name)
    host.commit(**{"only": f"{name}\n"})
    host.commit(**{"only": f"{name} again\n"})
    return host


def submodule(root: Path) -> Host:
    host = plain(root)
    add_submodule(host, origin_of(root, "origin").work, "libs/inner")
    return host


def submodule_changed(root: Path) -> Host:
    """Its HEAD is not the recorded commit, and there is staged, changed, untracked and deleted work in it."""
    host = submodule(root)
    inner = replace(host, work=host.work / "libs/inner")
    inner.commit(new="new\n")
    inner.write("changed", "by the user\n")
    inner.write("kept", "staged\n")
    inner.git("add", "kept")
    inner.write("notes", "untracked\n")
    (inner.work / "gone").unlink()
    return host


def submodule_nested(root: Path) -> Host:
    """Three deep, the innermost one changed."""
    host = plain(root)
    outer = origin_of(root, "outer")
    middle = origin_of(root, "middle")
    add_submodule(middle, origin_of(root, "innermost").work, "deep/est")
    add_submodule(outer, middle.work, "mid")
    add_submodule(host, outer.work, "libs/out")
    allowed = ("-c", "protocol.file.allow=always")
    host.git(*allowed, "submodule", "--quiet", "update", "--init", "--recursive")
    innermost = replace(host, work=host.work / "libs/out/mid/deep/est")
    innermost.write("changed", "by the user\n")
    return host


def submodule_linked(root: Path) -> Host:
    """In a linked work tree: its git directory is below that one's."""
    host = submodule(root)
    host.git("worktree", "add", "--quiet", "-b", "linked", str(root / "linked"))
    other = replace(host, work=root / "linked")
    other.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
    inner = replace(host, work=other.work / "libs/inner")
    inner.write("changed", "linked\n")
    assert "worktrees" in inner.git("rev-parse", "--absolute-git-dir")
    return other


def submodule_shallow(root: Path) -> Host:
    host = plain(root)
    inner = add_submodule(host, origin_of(root, "origin").work, "libs/inner", "--depth=1")
    assert inner.git("rev-list", "--count", "HEAD") == "1"
    return host


def submodule_old_style(root: Path) -> Host:
    """Its git directory stands in its work tree, as git made it long ago and `git clone` makes it still."""
    host = plain(root)
    sh(host.work, "clone", "--quiet", f"file://{origin_of(root, 'origin').work}", "libs/inner", env=host.env)
    host.git("submodule", "--quiet", "add", f"file://{root / 'origin/work'}", "libs/inner")
    host.git("commit", "--quiet", "-m", "submodule")
    assert (host.work / "libs/inner/.git").is_dir()
    return host


def reftable(root: Path) -> Host:
    """A real one: its HEAD is a stub, and no ref is a file."""
    env = git_env(root / "home")
    work = root / "work"
    work.mkdir()
    sh(work, "init", "--quiet", "--ref-format=reftable", env=env)
    host = Host(root, work, env)
    host.commit(kept="kept\n", changed="before\n", gone="gone\n", old="old\n")
    host.commit(**{"src/app.py": "print(1)\n", "src/util/deep.py": "x = 1\n"})
    host.write("changed", "by the user\n")
    host.write("notes", "untracked\n")
    assert (work / ".git/reftable/tables.list").is_file()
    assert not list((work / ".git/refs").rglob("main"))
    return host


def reftable_of_tomorrow(root: Path) -> Host:
    """Made by a newer git than is here, so by hand: what counts is that git does not know the extension."""
    host = plain(root)
    host.git("config", "core.repositoryFormatVersion", "1")
    host.git("config", "extensions.refStorage", "reftable")
    return host


def odd_names(root: Path) -> Host:
    host = plain(root)
    for number, name in enumerate(ODD_NAMES):
        host.write(name, f"{number}\n")
    host.git("add", "--all")
    host.git("commit", "--quiet", "-m", "odd")
    host.write("Case", "by the user\n")
    host.write("new\n-line", "untracked\n")
    return host


def symlinks(root: Path) -> Host:
    host = plain(root)
    for name, target in (("out", "../../etc/passwd"), ("absolute", "/etc/shadow"), ("in", "src/app.py"),
                         ("broken", "nowhere"), ("loop", "loop"), ("directory", "src")):  # fmt: skip
        (host.work / name).symlink_to(target)
    host.git("add", "--all")
    host.git("commit", "--quiet", "-m", "links")
    (host.work / "untracked-out").symlink_to("/root/.ssh")
    return host


def hard_links(root: Path) -> Host:
    host = plain(root)
    os.link(host.work / "kept", host.work / "twin")
    (root / "outside").write_text("outside\n")
    os.link(root / "outside", host.work / "shared")
    host.git("add", "twin")
    host.git("commit", "--quiet", "-m", "twin")
    return host


def modes(root: Path) -> Host:
    host = plain(root)
    host.write("run", "#!/bin/sh\n").chmod(0o755)
    host.git("add", "run")
    host.git("commit", "--quiet", "-m", "run")
    (host.work / "kept").chmod(0o755)
    host.write("private", "x").chmod(0o600)
    return host


def conflict(root: Path) -> Host:
    host = plain(root)
    host.git("checkout", "--quiet", "-b", "side")
    host.commit(changed="side\n")
    host.git("checkout", "--quiet", "main")
    host.commit(changed="main\n")
    sh(host.work, "merge", "--quiet", "side", env=host.env, check=False)
    assert "UU changed" in host.git("status", "--porcelain")
    return host


def many_files(root: Path) -> Host:
    host = plain(root)
    for number in range(MANY_FILES):
        host.write(f"many/{number % 1000:03d}/{number}.txt", f"{number}\n")
    host.git("add", "--all")
    host.git("commit", "--quiet", "-m", "many")
    host.write("many/999/999.txt", "by the user\n")
    host.write("many/untracked", "untracked\n")
    (host.work / "many/000/0.txt").unlink()
    return host


def grafted(root: Path) -> Host:
    """Replace refs are the user's own view of history; what they hide is what a commit really names."""
    host = plain(root)
    first = host.git("rev-list", "--max-parents=0", "HEAD")
    host.git("replace", "--graft", "HEAD~1", first)
    return host


_EVERY = (
    Kind("plain", plain),
    Kind("dirty", dirty),
    Kind("detached", detached),
    Kind("linked-worktree", linked),
    Kind("shallow", shallow),
    Kind("partial", partial, fetches=True),
    Kind("partial-treeless", treeless, fetches=True),
    Kind("partial-unreachable", unreachable, refused="git", says="of HEAD's history, such as "),
    Kind("alternates", alternates),
    Kind("lfs", lfs, stored=lfs_pointer),
    Kind("lfs-changed", lfs_changed, stored=lfs_pointer),
    Kind("lfs-pointers", lfs_pointers, stored=lfs_pointer),
    Kind("autocrlf", autocrlf, stored=with_line_feeds),
    Kind("eol", eol, stored=with_line_feeds),
    Kind("working-tree-encoding", working_tree_encoding, stored=lambda path, content:
         content.decode("utf-16-le").encode() if path.endswith(".u16") else content),
    Kind("global-rules", global_rules, stored=with_line_feeds),
    Kind("gpgsign", signing),
    Kind("sparse", sparse),
    Kind("sparse-patterns", sparse_patterns),
    Kind("sparse-index", sparse_index),
    Kind("unborn", unborn),
    Kind("sha256", sha256),
    Kind("submodule", submodule),
    Kind("submodule-changed", submodule_changed),
    Kind("submodule-nested", submodule_nested),
    Kind("submodule-linked-worktree", submodule_linked),
    Kind("submodule-shallow", submodule_shallow),
    Kind("submodule-old-style", submodule_old_style),
    Kind("reftable", reftable, since=_KNOWS_REFTABLE),
    Kind("reftable-unknown", reftable_of_tomorrow, refused="git", says="reftable", until=_KNOWS_REFTABLE),
    Kind("odd-names", odd_names),
    Kind("symlinks", symlinks),
    Kind("hard-links", hard_links),
    Kind("modes", modes),
    Kind("conflict", conflict),
    Kind("replace-refs", grafted),
    Kind("many-files", many_files, slow=True),
)  # fmt: skip

KINDS = tuple(kind for kind in _EVERY if kind.since <= git_version() < kind.until)
"""Those that the git of this machine has."""
