"""What of a volume's history can be read: commits and branches are claims until git has walked them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence

from coding_agents_guest.gitwork import Git

_NAME = re.compile(r"(?!-)(?!.*(?:\.\.|@\{))[^\x00-\x20\x7f~^:?*\[\\\udc80-\udcff]{1,200}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_PART = 200  # of the 255 bytes of a file name: git adds `.lock`
BUNDLE = "coding-agents-more-branches"
_BUNDLE_SIZE = 500


def bundled(git: Git, branches: Mapping[str, str]) -> str:
    """A commit without files that has all `branches` in its history and names them; always the same one.

    Its message has them as they are, but for control characters: a planted name must forge no line.
    """
    git = git.within(GIT_AUTHOR_DATE="@1 +0000", GIT_COMMITTER_DATE="@1 +0000")
    tree = git.text("mktree")
    tip = ""
    names = list(branches)
    for start in range(0, len(names), _BUNDLE_SIZE):
        some = names[start : start + _BUNDLE_SIZE]
        parents = ([tip] if tip else []) + sorted({branches[name] for name in some})
        message = "Branches of the volume (coding-agents)\n\n" + "".join(
            f"{branches[name]} {_CONTROL.sub('?', name)}\n" for name in some
        )
        options = [word for parent in parents for word in ("-p", parent)]
        tip = os.fsdecode(git.run("commit-tree", tree, *options, stdin=os.fsencode(message))).strip()
    return tip


def commits(git: Git, oids: Sequence[str]) -> set[str]:
    """Those of `oids` that are commits here."""
    listed = git.run("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin="\n".join(oids).encode())
    lines = (line.split() for line in listed.decode("ascii", "replace").splitlines())
    return {line[0] for line in lines if line[1:] == ["commit"]}


def peeled(git: Git, oids: Collection[str]) -> dict[str, str]:
    """The commits that `oids` are, or for which tags among them stand, by these."""
    listed = git.run("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin="\n".join(oids).encode())
    kinds = dict(
        line.split() for line in listed.decode("ascii", "replace").splitlines() if line.count(" ") == 1
    )
    found = {oid: oid for oid in oids if kinds.get(oid) == "commit"}
    return {**found, **_peel(git, [oid for oid in oids if kinds.get(oid) == "tag"])}


def _peel(git: Git, tags: Sequence[str]) -> dict[str, str]:
    """The commits of `tags`; one that is damaged ends git, so it is found by halves."""
    if not tags:
        return {}
    wanted = "".join(f"{tag}^{{commit}}\n" for tag in tags)
    options = ("cat-file", "--batch-check=%(objectname) %(objecttype)")
    status, listed = git.status_and_output(*options, stdin=wanted.encode())
    if status == 0:
        answers = (line.split() for line in listed.decode("ascii", "replace").splitlines())
        return {tag: answer[0] for tag, answer in zip(tags, answers) if answer[1:] == ["commit"]}
    half = len(tags) // 2
    return {**_peel(git, tags[:half]), **_peel(git, tags[half:])} if half else {}


def beyond(git: Git, tips: Collection[str], known: Collection[str]) -> set[str]:
    """Those of `tips` that no one of `known` contains; all, when a broken one keeps git from telling."""
    if not tips:
        return set()
    wanted = "".join([*(f"{oid}\n" for oid in tips), *(f"^{oid}\n" for oid in known)])
    status, listed = git.status_and_output("rev-list", "--stdin", stdin=wanted.encode())
    return set(tips) if status else set(tips).intersection(listed.decode().split())


def whole(git: Git, tips: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """Those of `tips` whose history, as far as `known` does not contain it, is here."""
    if not tips or is_whole(git, tips, known):
        return tips
    half = len(tips) // 2
    return [*whole(git, tips[:half], known), *whole(git, tips[half:], known)] if half else []


def is_whole(git: Git, tips: Sequence[str], known: Sequence[str]) -> bool:
    """Whether all that `tips` name, as far as `known` does not, is here."""
    wanted = "".join([*(f"{oid}\n" for oid in tips), *(f"^{oid}\n" for oid in known)])
    return git.status_and_output("rev-list", "--objects", "--quiet", "--stdin", stdin=wanted.encode())[0] == 0


def can_be_pushed(name: str, others: Mapping[str, str]) -> bool:
    """Whether git takes `name` for a branch beside `others`: planted ones need not be so."""
    parts = name.split("/")
    return (
        _NAME.fullmatch(name) is not None
        and name != BUNDLE
        and not any(part.startswith(".") or part.endswith((".", ".lock")) or not part for part in parts)
        and all(len(part.encode()) <= _MAX_PART for part in parts)
        and not any("/".join(parts[:end]) in others for end in range(1, len(parts)))
    )
