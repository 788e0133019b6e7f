"""The repository that a workspace is made from: how this part runs git and reads files in it.

The user's work tree is read with the user's own configuration (their excludes, line endings and filters
define what is clean), and as the user to whom it belongs when root launches. Nothing here writes to it.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import msgspec

from coding_agents.errors import WorkspaceError
from coding_agents.model.repo import RepoFacts, RepoKind
from coding_agents.proc.git import Profile, git, git_command, owner_of
from coding_agents.proc.runner import Command, Outcome, run

SCRATCH_PREFIX = "coding-agents-"
GIT_TIMEOUT_S = 1800.0
"""For calls whose time grows with the repository; only a hang is meant to reach it."""

_NONE: Mapping[str, str] = MappingProxyType({})
_INDEX_SETTINGS = {
    "core.splitIndex": "false",
    "core.untrackedCache": "false",
    "index.sparse": "false",
    "index.skipHash": "false",
    "index.version": "2",
}


class Source(msgspec.Struct, frozen=True):
    """`repo` with the user's environment `env`."""

    repo: RepoFacts
    env: Mapping[str, str]

    def git(
        self,
        args: Sequence[str],
        *,
        work_tree: Path | None = None,
        stdin: bytes | None = None,
        env_extra: Mapping[str, str] = _NONE,
        check: bool = True,
    ) -> Outcome:
        """Run git in the repository; `work_tree` replaces the user's own. Raises GitError as `proc.git`."""
        return git(
            args,
            profile=self._profile,
            env=self.env,
            git_dir=self.repo.git_dir,
            work_tree=work_tree or self.repo.work_tree,
            owner=owner_of(self.repo),
            stdin=stdin,
            env_extra=env_extra,
            timeout_s=GIT_TIMEOUT_S,
            check=check,
        )

    def command(self, args: Sequence[str], *, env_extra: Mapping[str, str] = _NONE) -> Command:
        """The same as a process to stream from and to."""
        return git_command(
            args,
            profile=self._profile,
            env=self.env,
            git_dir=self.repo.git_dir,
            owner=owner_of(self.repo),
            env_extra=env_extra,
            timeout_s=GIT_TIMEOUT_S,
        )

    def read(self, path: Path) -> bytes:
        """The file at `path`, read by the repository's owner; empty when there is none.

        Root does not read it itself: a link in another user's repository could name any file.
        """
        if not path.is_file():
            return b""
        outcome = run(self._as_owner(("cat", "--", str(path))))
        if not outcome.ok:
            raise WorkspaceError(f"cannot read {str(path)!r}", details=outcome.describe())
        return outcome.stdout

    def copy(self, path: Path, target: Path) -> None:
        """Copy one file with its time into a scratch directory, as the repository's owner."""
        outcome = run(self._as_owner(("cp", "-p", "--", str(path), str(target))))
        if not outcome.ok:
            raise WorkspaceError(f"cannot copy {str(path)!r}", details=outcome.describe())

    def config_home(self, name: str) -> str:
        """Where git looks for the user's own file `name` (`ignore`, `attributes`), `~` not yet expanded."""
        xdg = "" if self._foreign else self.env.get("XDG_CONFIG_HOME", "")
        return f"{xdg or '~/.config'}/git/{name}"

    @contextmanager
    def scratch(self, near: Path) -> Iterator[Path]:
        """A temporary directory that the repository's owner can write to, gone afterwards.

        It lies in `near` (our own state, on a disk with room), or, as another user cannot reach that, in
        the system's temporary directory.
        """
        place = None if self._foreign else near
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=place) as name:
            if self._foreign:
                os.chown(name, self.repo.owner_uid, self.repo.owner_gid)
            yield Path(name)

    @property
    def _profile(self) -> Profile:
        return Profile.USER_READ if self.repo.kind is RepoKind.PATH else Profile.OWN

    @property
    def _foreign(self) -> bool:
        """Whether root launches on another user's repository."""
        return os.geteuid() == 0 and self.repo.owner_uid != 0

    def _as_owner(self, argv: tuple[str, ...]) -> Command:
        return Command(
            argv,
            env={"PATH": self.env.get("PATH", os.defpath), "LC_ALL": "C"},
            owner=owner_of(self.repo) if self._foreign else None,
        )


def index_env(index: Path, settings: Mapping[str, str] = _NONE) -> dict[str, str]:
    """Variables that make git use the file `index`, and write it so that any git can read it.

    It then depends on no other file (split index) and on no running program. `settings` are further
    configuration of this one call.
    """
    configuration = {**_INDEX_SETTINGS, **settings}
    return {
        "GIT_INDEX_FILE": str(index),
        "GIT_CONFIG_COUNT": str(len(configuration)),
        **{f"GIT_CONFIG_KEY_{number}": key for number, key in enumerate(configuration)},
        **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(configuration.values())},
    }


def paths_of(output: bytes) -> list[str]:
    """The NUL-separated paths of a git command's output, bytes that are not UTF-8 kept as surrogates."""
    return [os.fsdecode(path) for path in output.split(b"\0") if path]


def unreadable_directories(stderr: bytes) -> list[str]:
    """Directories that git named on standard error as not readable (it then goes on without them)."""
    return re.findall(r"could not open directory '(.*?)/?': ", os.fsdecode(stderr))
