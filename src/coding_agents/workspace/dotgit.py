"""The guest's `.git`, made and not copied.

No stash, reflog, hook, other branch, remote or foreign setting of the user can travel, because nothing
is copied but the text of their ignore and attribute rules.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoKind
from coding_agents.workspace.copyset import Submodule
from coding_agents.workspace.settings import Setting, parse_config, render_config, travelling
from coding_agents.workspace.source import Source

WORKSPACE = "/workspace"
"""Where the copy stands in the container (design §3 Names)."""

_GLOBAL_ATTRIBUTES = "info/global-attributes"
_BOM = b"\xef\xbb\xbf"


def dot_git_files(
    source: Source,
    configured: Sequence[Setting],
    *,
    base: Oid | None,
    base_branch: str | None,
    submodule: Submodule | None = None,
    inner: Iterable[Submodule] = (),
) -> Iterator[tuple[str, bytes]]:
    """Names below the git directory and contents of all files but index, objects and `shallow`.

    `configured` is what `read_settings` returned.
    `base` is what HEAD stands on, detached until the guest makes its branch; None leaves HEAD unborn.
    `base_branch` is the branch that names it, None for none. `submodule` is the one whose git directory it is,
    None for `.git` itself; `inner` are the submodules that stand in it.
    """
    repo = source.repo
    if base is None:
        yield "HEAD", os.fsencode(f"ref: refs/heads/{repo.branch or 'main'}\n")
    else:
        yield "HEAD", f"{base}\n".encode()
        if base_branch is not None:
            line = f"{base} refs/heads/{base_branch}\n"
            yield "packed-refs", b"# pack-refs with: peeled fully-peeled sorted \n" + os.fsencode(line)
    attributes = b""
    settings: list[Setting] = []
    if repo.kind is RepoKind.PATH:
        settings = travelling(configured)
        attributes = source.read(_rules_file(source, "core.attributesFile", "attributes"))
        yield from _rules(source)
    if attributes:
        yield _GLOBAL_ATTRIBUTES, attributes
    git_dir = submodule.git_dir if submodule is not None else ".git"
    fixed = _fixed(repo.object_format, f"{WORKSPACE}/{git_dir}/{_GLOBAL_ATTRIBUTES}" if attributes else "")
    if submodule is not None:
        fixed.append(("core.worktree", posixpath.relpath(submodule.path, submodule.git_dir)))
    active = [(f"submodule.{one.name}.active", "true" if one.active else "false") for one in inner]
    yield "config", render_config([*fixed, *settings, *active]).encode()


def dot_git_link(submodule: Submodule) -> bytes:
    """The file `.git` in the work tree of a submodule, which leads to its git directory."""
    return b"gitdir: " + os.fsencode(posixpath.relpath(submodule.git_dir, submodule.path)) + b"\n"


def read_settings(source: Source) -> list[Setting]:
    """The configuration of the user's repository and of the user; nothing of a clone of ours. Raises GitError."""
    if source.repo.kind is not RepoKind.PATH:
        return []
    listed = source.git(["config", "--list", "--null", "--show-scope", "--includes"])
    return parse_config(listed.stdout)


def _fixed(object_format: str, global_attributes: str) -> list[Setting]:
    """Settings that every session's repository has; `global_attributes` is where those lie inside, "" for none."""
    settings = [
        ("core.repositoryformatversion", "0" if object_format == "sha1" else "1"),
        ("core.bare", "false"),
        ("core.logallrefupdates", "true"),
    ]
    if object_format != "sha1":
        settings.append(("extensions.objectformat", object_format))
    if global_attributes:
        # A file of its own: in info/attributes it would win over the repository's .gitattributes.
        settings.append(("core.attributesfile", global_attributes))
    return settings


def _rules(source: Source) -> Iterator[tuple[str, bytes]]:
    """Ignore and attribute rules that lie outside the work tree.

    Both ignore files become one: git lets the last match of info/exclude win over the user's own file.
    """
    info = source.repo.common_dir / "info"
    ignored = [source.read(_rules_file(source, "core.excludesFile", "ignore")), source.read(info / "exclude")]
    yield "info/exclude", b"".join(text.removeprefix(_BOM).rstrip(b"\n") + b"\n" for text in ignored if text)
    if attributes := source.read(info / "attributes"):
        yield "info/attributes", attributes


def _rules_file(source: Source, key: str, name: str) -> Path:
    """Where git looks for the user's rules: what `key` says, or `git/NAME` in their configuration."""
    found = source.git(["config", "--type=path", "--default", source.config_home(name), "--get", key])
    path = Path(os.fsdecode(found.stdout.removesuffix(b"\n")))
    return (source.repo.work_tree or source.repo.git_dir) / path
