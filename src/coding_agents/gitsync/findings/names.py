"""What a path alone tells: names that hide something, that pass for `.git`, or that a rule speaks of. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from coding_agents.gitsync.findings.model import Finding, Severity
from coding_agents.gitsync.findings.rules import Rules

# What HFS+ leaves out when it compares names (git's utf8.c, next_hfs_char).
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
# 8.3 names of `.git` that NTFS makes (git's path.c, is_ntfs_dotgit); more than one when several names collide.
_SHORT_GIT = re.compile(r"git~[0-9]{1,6}")
# Drawn as nothing though printable by category, as in `terminal.escape`.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0e\uffa0\U000e0100-\U000e01ef]"
)
_MAX_PART_BYTES = 255
_MAX_PATH_BYTES = 4096


def folded(path: str) -> str:
    """`path` as a file system that ignores case, invisible characters and trailing dots and spaces compares it."""
    return "/".join(_IGNORED.sub("", part).rstrip(" .") or part for part in path.lower().split("/"))


def judge_path(path: str) -> Iterator[Finding]:
    """Findings about the name itself, whatever stands there."""
    if passes_for_git(path):
        yield Finding("path.dotgit", Severity.BLOCK, path, "a file system may take a part of it for .git")
    if not path.isprintable() or _INVISIBLE.search(path):
        yield Finding(
            "path.hidden", Severity.BLOCK, path, "control, direction or invisible characters in its name"
        )
    if _too_long(path):
        yield Finding(
            "path.long", Severity.WARN, path, "too long for a file system; no rule was applied to its name"
        )


def judge_rules(path: str, rules: Rules) -> Finding | None:
    """What the rules by path say of a file that was added or changed."""
    if _too_long(path):
        return None
    rule = rules.path_rule(folded(path))
    return Finding(rule.id, rule.severity, path, rule.detail) if rule else None


def passes_for_git(path: str) -> bool:
    """Whether Windows, macOS or git may read a part of `path` as `.git` (git's fsck: hasDotgit, and more)."""
    for part in re.split(r"[/\\]", path.lower()):
        name = _IGNORED.sub("", part).partition(":")[0].rstrip(" .")
        if name == ".git" or _SHORT_GIT.fullmatch(name):
            return True
    return False


def _too_long(path: str) -> bool:
    size = len(path.encode("utf-8", "surrogateescape"))
    if size <= _MAX_PART_BYTES:
        return False
    parts = path.encode("utf-8", "surrogateescape").split(b"/")
    return size > _MAX_PATH_BYTES or any(len(part) > _MAX_PART_BYTES for part in parts)
