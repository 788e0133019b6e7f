"""Where pushes to origin land and wait: one bare repository of a session, which borrows the host's copy of origin.

What a push brings is kept by a ref of its own until somebody has decided; its branches and tags are origin's, made anew
before each push, so that git in the session compares with what is there now.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from coding_agents.errors import GitError
from coding_agents.gitsync.base import appear, init_draft
from coding_agents.gitsync.origin_refs import LISTED, settle_refs
from coding_agents.gitsync.origin_store import OriginStore
from coding_agents.gitsync.packs import PRIVATE, Store
from coding_agents.gitsync.relay_limits import RelayLimits, Usage
from coding_agents.gitsync.relay_repo import MAX_ALLOCATION, RECEIVING, service_command
from coding_agents.model.approval import is_approval_id
from coding_agents.model.refs import Oid
from coding_agents.proc.git import Profile
from coding_agents.proc.runner import Command

_ASKED = f"{PRIVATE}/asked"
_SETTINGS = RECEIVING.replace("advertisePushOptions = false", "advertisePushOptions = true")


class Quarantine:
    """The quarantine in a session's directory; only one process uses it, by several threads.

    It is there from `open` to `close`, and for as long as something is held.
    """

    def __init__(self, directory: Path, *, env: Mapping[str, str]) -> None:
        self.git_dir = directory / "origin-push.git"
        self._env = env
        self._lock = threading.RLock()
        self._users = 0

    @property
    def store(self) -> Store:
        return Store(self.git_dir, Profile.OWN, self._env)

    def open(self, origin: OriginStore, refs: Mapping[str, Oid], *, object_format: str) -> None:
        """Make it what origin is, as far as `refs` go, for one push. Raises GitError, StoreError."""
        with self._lock:
            self._users += 1
            if not self.git_dir.exists():
                self._make(origin, object_format)
            self.store.sweep()
            settle_refs(self.git_dir, {**refs, **self.store.refs(_ASKED)})  # without what the last push moved

    def close(self) -> None:
        """A push that it was opened for, or that could not be, is over. Raises GitError."""
        with self._lock:
            self._users -= 1
            self._tidy()

    def hold(self, approval_id: str, new: Oid) -> None:
        """Keep what a push has brought. Raises GitError."""
        with self._lock:
            self.store.update_refs(f"update {_ref(approval_id)} {new}")
            self.store.sync()

    def held(self, approval_id: str) -> Oid | None:
        """What is kept under this id. Raises GitError."""
        ref = _ref(approval_id)
        return self.store.resolve(ref) if self.git_dir.exists() else None

    def release(self, approval_id: str) -> None:
        """Keep it no longer. Raises GitError."""
        with self._lock:
            if (oid := self.held(approval_id)) is not None:
                self.store.update_refs(f"delete {_ref(approval_id)} {oid}")
            self._tidy()

    def usage(self) -> Usage:
        """What it holds; how large its objects are unpacked is not known here."""
        used = 0
        for directory, _, names in os.walk(self.git_dir / "objects"):
            for name in names:
                try:
                    used += (Path(directory) / name).lstat().st_blocks * 512
                except FileNotFoundError:
                    continue
        return Usage(used, 0)

    def receive_pack(self, limits: RelayLimits, *, timeout_s: float) -> Command:
        """`git receive-pack` for one push; origin's branches and tags are all that it shows."""
        settings = (f"receive.maxInputSize={limits.push_bytes}", "receive.denyNonFastForwards=false")
        return service_command(
            self.store,
            "receive-pack",
            tuple(f"refs/{name}" for name in LISTED),
            settings=settings,
            env_extra=MAX_ALLOCATION,
            limits=limits.of_git(limits.disk_bytes),
            timeout_s=timeout_s,
        )

    def _tidy(self) -> None:
        if not self._users and self.git_dir.exists() and not self.store.refs(_ASKED):
            shutil.rmtree(self.git_dir, ignore_errors=True)

    def _make(self, origin: OriginStore, object_format: str) -> None:
        draft = self.git_dir.with_name(f"{self.git_dir.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        init_draft(draft, object_format=object_format, env=self._env, branch="nothing-is-checked-out")
        with (draft / "config").open("a", encoding="utf-8") as config:
            config.write(_SETTINGS)
        info = draft / "objects" / "info"
        info.mkdir(exist_ok=True)
        (info / "alternates").write_bytes(os.fsencode(origin.git_dir / "objects") + b"\n")
        appear(draft, self.git_dir)


def _ref(approval_id: str) -> str:
    if not is_approval_id(approval_id):
        raise GitError(f"{approval_id[:40]!r} is no approval's id")
    return f"{_ASKED}/{approval_id}"
