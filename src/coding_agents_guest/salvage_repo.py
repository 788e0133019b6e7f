"""One repository of a volume under salvage: read with a git directory of our own, pushed to the relay.

So the volume's configuration, hooks and filters do not count; its commits and files are taken as data.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from coding_agents_guest import volume_history as history
from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import GuestConfig
from coding_agents_guest.gitwork import Git, GitFailedError, identity_environment
from coding_agents_guest.lfs import Sent, has_lfs, send_large_files
from coding_agents_guest.lfsclean import with_pointers
from coding_agents_guest.nested import Start
from coding_agents_guest.place import Place
from coding_agents_guest.refused import push_taken
from coding_agents_guest.regular import open_regular
from coding_agents_guest.snapshot import Snapshot, commit_snapshot, dated, newest_change, take_snapshot
from coding_agents_guest.volume import Volume, borrow

DEFAULT_MESSAGE = "Uncommitted work, salvaged (coding-agents)"

_MAX_INDEX_BYTES = 512 << 20
_SHARED_INDEX = re.compile(r"sharedindex\.[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MAX_RULES_BYTES = 1 << 20
# What decides how files become blobs and which are ignored. Everything else in the volume's configuration,
# above all what names a program, has no say; LFS files get their pointers from us (lfsclean).
# A value that git cannot read would end every command.
_BOOLEAN = "true|false|yes|no|on|off"
_TAKEN_SETTINGS = re.compile(
    rf"core\.(?:(?:filemode|precomposeunicode|symlinks)\n(?:{_BOOLEAN})"
    rf"|autocrlf\n(?:{_BOOLEAN}|input)|eol\n(?:lf|crlf|native))",
    re.IGNORECASE,
)
_NO_FILTERS = ("filter.lfs.clean=", "filter.lfs.smudge=", "filter.lfs.process=", "filter.lfs.required=false")
# What speeds git up is the volume's to plant, too; and git would look for refs beside objects that it borrows.
_NO_SHORTCUTS = (
    "core.alternateRefsCommand=true",
    "core.commitGraph=false",
    "core.multiPackIndex=false",
    "pack.useBitmaps=false",
)


class BrokenHistoryError(Exception):
    """Objects of the volume cannot be read; its files still can."""


class RefusedError(GitFailedError):
    """The relay does not take it."""


class Found:
    """What a salvage and those of the repositories inside of its work tree have found together.

    `top` is the volume; `seen` are the repositories that were looked at, `inside` those that are no submodule as it
    went in, and `further` those of which other branches came. `git_dirs` were read, and of `commons` the refs; `linked`
    are linked work trees and `modules` git directories of submodules, with their places, which may be in no work tree.
    `given` is how submodules went in (None: the relay is still to be asked). `kept` says what is in the volume alone,
    and `sending` whose large files are still to be sent. `hex_digits` is how long ids of objects are, 0 when no commit
    says so.
    """

    def __init__(self, top: Path, notes: list[str], hex_digits: int) -> None:
        self.top = top
        self.hex_digits = hex_digits
        self.notes = notes
        self.seen: list[str] = []
        self.inside: list[str] = []
        self.further: list[str] = []
        self.git_dirs: set[Path] = set()
        self.commons: set[Path] = set()
        self.linked: list[str] = []
        self.modules: list[tuple[tuple[str, ...], Path]] = []
        self.given: Mapping[str, Start] | None = None
        self.kept: list[str] = []
        self.sending: list[tuple[Repository, Volume]] = []

    def read(self, volume: Volume, places: tuple[str, ...] = ()) -> None:
        """`volume` was read, of the repository at `places`."""
        if volume.git_dir is None:
            return
        self.git_dirs.add(volume.git_dir)
        self.linked += [where for where in volume.linked if where not in self.linked]
        self.modules += [((*places, *names), git_dir) for names, git_dir in volume.modules]
        where = "/".join(places) or "the volume"
        named = {volume.head, *volume.refs.branches.values(), *volume.refs.tags.values()} - {""}
        if self.hex_digits and any(len(oid) != self.hex_digits for oid in named):
            self.kept.append(f"commits of {where}, which has another object format than the session's")
        if volume.in_tables:
            self.kept.append(
                f"the refs of {where} are a reftable: `git refs migrate --ref-format=files` inside"
            )


def fresh_git(config: GuestConfig, place: Place, scratch: Path, deadline: float) -> Git:
    """git with a git directory of our own, made here, and the volume as its work tree."""
    variables = {
        **place.environment(),
        **identity_environment(config.identity),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ALLOW_PROTOCOL": "git:file",
    }
    scratch.mkdir()
    git = Git(scratch, variables, deadline, settings=(*_NO_FILTERS, *_NO_SHORTCUTS))
    object_format = "sha256" if len(config.base) == 64 else "sha1"
    git_dir = scratch / "salvage.git"
    git.run("init", "--quiet", "--bare", f"--object-format={object_format}", str(git_dir))
    return git.within(
        GIT_DIR=str(git_dir), GIT_WORK_TREE=str(place.workspace), GIT_INDEX_FILE=str(scratch / "index")
    )


class Repository:
    """`git` works on a git directory of our own with the repository's work tree.

    `found` is shared with the salvages of repositories inside of it. `pushed` are the commits that are in the volume
    alone no more, `large` says where large files of the work tree are by SHA-256.
    """

    def __init__(self, config: GuestConfig, place: Place, git: Git, found: Found) -> None:
        self.config = config
        self.place = place
        self.git = git
        self.found = found
        self.pushed: list[str] = []
        self.large: dict[str, Path] = {}

    def prepare(self, volume: Volume) -> None:
        """Let our git directory borrow the volume's objects and take over its rules for files."""
        git_dir = Path(self.git.environment["GIT_DIR"])
        self.git.run("config", "core.bare", "false")
        common = volume.common
        if volume.git_dir is None or common is None:
            return
        borrow(volume.objects, git_dir / "objects")
        for rules in ("info/exclude", "info/attributes"):
            _take_file(common / rules, git_dir / rules, _MAX_RULES_BYTES)
        if volume.git_dir.name != ".git":
            # Elsewhere in the volume, where git takes it for files.
            top = os.path.realpath(self.place.workspace)
            with (git_dir / "info/exclude").open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"\n/{os.path.relpath(volume.git_dir, top)}/\n")
        settings = git_dir / "volume-config"
        _take_file(common / "config", settings, _MAX_RULES_BYTES)
        listed = self.git.answer("config", "--file", str(settings), "--no-includes", "--null", "--list")
        taken = dict(one.split("\n") for one in listed.split("\0") if _TAKEN_SETTINGS.fullmatch(one))
        for name, value in taken.items():  # the last of each name counts, and there may be any number
            self.git.run("config", name, value)

    def commit_worktree(self, volume: Volume, parent: str) -> tuple[str, Snapshot]:
        """Commit the files on top of `parent`. Returns the commit ("" if not needed) and what was taken."""
        index = Path(self.git.environment["GIT_INDEX_FILE"])
        deny = DenyList(self.config.deny)
        try:
            if volume.git_dir is not None:
                self._take_index(volume.git_dir, index)
            snapshot = take_snapshot(self.git, head=parent, deny=deny, around=self.found.top)
        except GitFailedError:
            self.found.notes.append("the volume's index cannot be used")
            for leftover in (index, index.with_name("index.lock")):
                with suppress(FileNotFoundError):
                    leftover.unlink()
            if parent:
                self.git.run("read-tree", parent)
            snapshot = take_snapshot(self.git, head=parent, deny=deny, around=self.found.top)
        self.found.notes.extend((*snapshot.trouble, *snapshot.notes))
        if volume.common is not None and has_lfs(volume.common):
            scratch = Path(self.git.environment["GIT_DIR"])
            snapshot, self.large = with_pointers(
                self.git, snapshot, parent=parent, top=self.place.workspace, scratch=scratch
            )
        message = self.config.message.strip() or DEFAULT_MESSAGE
        git = dated(self.git, newest_change(self.git, snapshot.tree, parent, self.place.workspace))
        commit = commit_snapshot(git, snapshot, self.config, parent=parent, message=message)
        return commit, snapshot

    def to_relay(self) -> Git:
        """git for talking to the relay: in a work tree of its own, for what it starts looks for a repository here."""
        return self.git.within(GIT_WORK_TREE=str(self.git.directory))

    def push(self, what: str, ref: str) -> None:
        """Raises RefusedError, or BrokenHistoryError when it is not the relay that does not take it."""
        try:
            self.to_relay().run("push", "--quiet", "--no-verify", self.place.relay, f"+{what}:{ref}")
        except GitFailedError as error:
            packed = ("pack-objects", "--revs", "--stdout", "-q", "--all-progress-implied")
            if self.git.status_and_output(*packed, stdin=f"{what}\n".encode(), discard=True)[0]:
                raise BrokenHistoryError(str(error)) from error
            raise RefusedError(str(error)) from error
        self.pushed.append(what)

    def push_files(self, commit: str, parent: str, ref: str) -> str:
        """Push the files of `commit`, made upon `parent`, without those that the relay does not take; what was pushed.

        Raises as `push`.
        """
        taken = push_taken(lambda oid: self.push(oid, ref), self.git, commit, parent)
        self.found.kept += [taken.why] if taken.why else []
        return taken.commit

    def send_large(self, volume: Volume) -> None:
        """Push the content of large files that the pushed commits name, and HEAD, which the relay may have had."""
        if volume.common is None or not (self.large or has_lfs(volume.common)):
            return
        try:
            tips = history.commits(self.git, [tip for tip in (*self.pushed, volume.head) if tip])
            known = history.commits(self.git, [self.config.base]) if self.config.base else set()
            sent = send_large_files(
                self.to_relay(),
                volume.common,
                tips=history.whole(self.git, sorted(tips), sorted(known)),
                known=sorted(known),
                relay=self.place.relay,
                scratch=Path(self.git.environment["GIT_DIR"]),
                others=self.large,
            )
        except GitFailedError as error:
            sent = Sent(why=str(error))
        if sent.why:
            self.found.kept.append(sent.told())

    def _take_index(self, git_dir: Path, index: Path) -> None:
        """Copy the index, and what it shares with others when it is split (gitformat-index(5), "link")."""
        _take_file(git_dir / "index", index, _MAX_INDEX_BYTES)
        shared = [path for path in git_dir.glob("sharedindex.*") if _SHARED_INDEX.fullmatch(path.name)]
        content = index.read_bytes() if shared and index.exists() else b""
        for path in shared:
            if bytes.fromhex(path.suffix[1:]) in content:
                _take_file(path, Path(self.git.environment["GIT_DIR"], path.name), _MAX_INDEX_BYTES)


def _take_file(source: Path, target: Path, limit: int) -> None:
    """Copy a regular file of at most `limit` bytes, if there is one."""
    with suppress(OSError), open_regular(source) as file:
        if file is not None and file.seek(0, os.SEEK_END) <= limit:
            file.seek(0)
            target.parent.mkdir(exist_ok=True)
            with target.open("wb") as copy:
                shutil.copyfileobj(file, copy)
            # An index younger than it was would hide what changed in the second of its last writing.
            times = os.fstat(file.fileno())
            os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
