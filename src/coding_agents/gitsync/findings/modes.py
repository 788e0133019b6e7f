"""What the kind of an entry tells: programs, links, repositories within. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from coding_agents.gitsync.findings.model import Change, Finding, Severity, clipped
from coding_agents.gitsync.findings.names import passes_for_git

EXECUTABLE = "100755"
SYMLINK = "120000"
GITLINK = "160000"

_DRIVE = re.compile(r"[A-Za-z]:|[\\/]")


def judge_mode(change: Change) -> Iterator[Finding]:
    """Findings about the entry's mode, but for links, which need their target."""
    if change.new.mode == EXECUTABLE != change.old.mode:
        yield Finding("mode.executable", Severity.NOTE, change.path, "became executable")
    if change.new.mode == GITLINK:
        was = "its commit changed" if change.old.mode == GITLINK else "added"
        yield Finding("gitlink", Severity.WARN, change.path, f"submodule, {was}: {change.new.oid}")


def judge_link(path: str, target: bytes) -> Finding:
    """A symbolic link at `path` that leads to `target`, as far as the two texts tell."""
    text = target.decode("utf-8", "surrogateescape")
    shown = clipped(text)
    if passes_for_git(text):
        return Finding("symlink.git", Severity.BLOCK, path, f"symbolic link into a .git directory: {shown}")
    if _DRIVE.match(text):
        return Finding("symlink.outside", Severity.BLOCK, path, f"symbolic link out of the tree: {shown}")
    depth = path.count("/")
    down = False
    for part in text.split("/"):
        if part == "..":
            depth -= 1
            # After a step down, `..` leads to wherever a link on the way leads.
            if down or depth < 0:
                where = "maybe out of the tree" if depth >= 0 else "out of the tree"
                return Finding("symlink.outside", Severity.BLOCK, path, f"symbolic link, {where}: {shown}")
        elif part not in ("", "."):
            depth += 1
            down = True
    return Finding("symlink", Severity.WARN, path, f"symbolic link: {shown}")
