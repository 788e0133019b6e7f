"""Pushing the states of a repository one after the other, so that what the relay refuses keeps nothing else back.

What it refuses may be a file (`refused`) or commits of the agent's: then the files come upon the last commit that it
took. Either is tried again after some saves, for the reason may have passed: the relay was full, or asked too often.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from coding_agents_guest import volume_history as history
from coding_agents_guest.gitwork import Git, GitFailedError
from coding_agents_guest.lfs import Sent, has_lfs, send_large_files
from coding_agents_guest.records import dataclass, replace
from coding_agents_guest.refused import Taken, push_taken

_PATIENCE = 10  # saves, of which one is made each minute


@dataclass(frozen=True)
class Pushed:
    """The last state of a repository that was pushed: the files of `tree` while HEAD was `head`.

    `commit` is what the relay has of it, made upon `upon`: HEAD, unless that was refused. `lacks` and `why` are as in
    `refused.Taken`. `large` is the last commit whose large files have all arrived, `large_why` tells why not those of
    `commit`. What is missing is tried again after `patience` more saves.
    """

    tree: str = ""
    head: str = ""
    commit: str = ""
    upon: str = ""
    lacks: str = ""
    why: str = ""
    large: str = ""
    large_why: str = ""
    patience: int = 0

    @property
    def missing(self) -> list[str]:
        """What to tell a person that the relay does not have, nothing when it has all."""
        beyond = f" beyond {self.upon[:12]}" if self.upon else ""
        commits = "" if self.upon == self.head else f"commits{beyond} were not taken, their files were"
        return [text for text in (commits, self.why, self.large_why) if text]


@dataclass(frozen=True)
class Pusher:
    """Pushes states of the repository of `git`, which has an index of ours, to `ref` of the relay.

    `make` makes a commit of the files upon another ("" for none); it returns that other one when nothing differs, and
    "" when there is nothing at all. `base` is what the relay has of the repository from the beginning, "" for nothing.
    """

    git: Git
    git_dir: Path
    relay: str
    ref: str
    base: str
    make: Callable[[str], str]

    def push(self, tree: str, head: str, before: Pushed, *, whole: bool = False) -> Pushed:
        """Push what stands now, unless it is as `before`. Raises GitFailedError when nothing of it is taken.

        `whole` says that what is refused must not be left out.
        """
        is_due = bool(before.missing) and before.patience <= 0
        if before.commit and (tree, head) == (before.tree, before.head) and not is_due:
            return replace(before, patience=before.patience - 1)
        again = bool(before.commit) and head == before.head and not is_due
        patience = before.patience - 1 if again and before.missing else _PATIENCE
        state = replace(before, tree=tree, head=head, patience=patience)
        first, *others = dict.fromkeys((before.upon if again else head, before.upon or self.base, self.base))
        try:
            return self._push_upon(first, state, known=again, is_due=is_due, whole=whole)
        except GitFailedError:
            for upon in () if whole else others:
                with suppress(GitFailedError):  # the first one tells why
                    return self._push_upon(upon, state, known=again, is_due=is_due, whole=False)
            raise

    def _push_upon(self, upon: str, state: Pushed, *, known: bool, is_due: bool, whole: bool) -> Pushed:
        """`known` says that the state before was of the same HEAD, and what was refused then is again."""
        commit = self.make(upon)
        if not commit and state.head:
            raise GitFailedError("there are no files to save without the commits")
        if not commit:
            return Pushed(state.tree)
        sent = self._send_large(commit, state.large if is_due or not state.large_why else state.commit)
        taken = Taken(commit)
        if whole:
            self._push(commit)
        else:
            before = Taken(state.commit, state.lacks, state.why) if known and upon == state.upon else Taken()
            taken = push_taken(self._push, self.git, commit, upon, before)
        has_large = not sent.why and (is_due or not state.large_why)
        return replace(
            state,
            commit=taken.commit,
            upon=upon,
            lacks=taken.lacks,
            why=taken.why,
            large=commit if has_large else state.large,
            large_why="" if has_large else sent.told() or state.large_why,
        )

    def _send_large(self, commit: str, before: str) -> Sent:
        """Push the content of large files ahead of what names them; the relay has what `before` names."""
        if not has_lfs(self.git_dir):
            return Sent()
        known = history.commits(self.git, [oid for oid in (self.base, before) if oid])  # gc may have taken it
        return send_large_files(
            self.git, self.git_dir, tips=[commit], known=sorted(known), relay=self.relay, scratch=self.git_dir
        )

    def _push(self, commit: str) -> None:
        self.git.run("push", "--quiet", "--no-verify", self.relay, f"+{commit}:{self.ref}")
