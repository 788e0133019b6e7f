"""What came back of a session beside its branch: its other branches and states, and the repositories inside.

A branch is compared with where it leaves the session's; a repository inside with what went in of it, which is nothing
but for a submodule.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from coding_agents.app.work import home_store
from coding_agents.gitsync.findings.scan import Subject
from coding_agents.gitsync.integrate import INCOMING
from coding_agents.gitsync.nested import list_nested
from coding_agents.gitsync.packs import Store, user_store
from coding_agents.model.refs import Oid
from coding_agents.supervisor.context import SessionContext, facts_of
from coding_agents.workspace.launch_state import WORKTREE_REF
from coding_agents_guest.nestedref import GIVEN_HEADS, GIVEN_TREES, NESTED, nested_path


class Other(msgspec.Struct, frozen=True):
    """`tip` came back as `ref` of the user's repository (hostile text), and `store` has it.

    `path` is that of a repository inside, "" for a branch. `near` is a commit that it may start from, `known` are
    commits whose work is looked at elsewhere, and `launch` is what stood there at launch.
    """

    ref: str
    path: str
    store: Store
    tip: Oid
    near: Oid | None = None
    known: tuple[Oid, ...] = ()
    launch: Oid | None = None

    def subject(self, author: tuple[str, ...]) -> Subject | None:
        """What to look at, None when all of it is known. Raises GitError."""
        if any(self.store.is_ancestor(self.tip, oid) for oid in self.known):
            return None
        base = _fork(self.store, self.tip, self.near)
        # Of a repository that was cloned inside the authors are others by nature.
        own = author if base is not None or not self.path else None
        return Subject(base, self.tip, self.launch, own, self.known, self.ref)


def others_of(session: SessionContext, *, base: Oid | None, tip: Oid | None) -> list[Other]:
    """What came back beside the commits from `base` to `tip`. Raises GitError when the repository cannot be read."""
    return [*_branches(session, base, tip), *_inside(session)]


def _branches(session: SessionContext, base: Oid | None, tip: Oid | None) -> Iterator[Other]:
    """Other branches, and states that do not continue the session's, all kept under incoming refs of its own."""
    home, mine = home_store(session), f"{INCOMING}/{session.record.id}-"
    refs = {ref: oid for ref, oid in home.refs(INCOMING).items() if ref.startswith(mine)}
    if not refs:
        return
    relay = session.relay.store if session.relay.git_dir.is_dir() else home
    there = set(relay.present(refs.values()))
    for store, wanted in ((relay, there), (home, set(refs.values()) - there)):
        known = tuple(store.present([one for one in (tip, base) if one is not None])) if wanted else ()
        launch = store.resolve(WORKTREE_REF) if wanted else None
        for ref, oid in refs.items():
            if oid in wanted:
                yield Other(ref, "", store, oid, known[0] if known else None, known, launch)


def _inside(session: SessionContext) -> Iterator[Other]:
    """The repositories inside; of a running session those that are saved, which are not home yet."""
    record, relay = session.record, session.relay
    mine = f"{NESTED}{record.id}/"
    if relay.git_dir.is_dir():
        heads, trees = relay.store.refs(GIVEN_HEADS), relay.store.refs(GIVEN_TREES)
        for ref, tip in relay.store.refs(NESTED).items():
            name = ref.removeprefix(NESTED)
            head = heads.get(f"{GIVEN_HEADS}{name}")
            launch, known = trees.get(f"{GIVEN_TREES}{name}"), (head,) if head is not None else ()
            yield Other(f"{mine}{name}", nested_path(name), relay.store, tip, head, known, launch)
        return
    env = session.env.for_git()
    for one in list_nested(facts_of(record), session=record.id, env=env):
        store = user_store(one.home or facts_of(record), env)
        # A submodule stands where it stood at launch, as far as we know.
        head = store.resolve("HEAD") if one.home is not None else None
        yield Other(one.ref, one.path, store, one.tip, head, (head,) if head is not None else ())


def _fork(store: Store, tip: Oid, near: Oid | None) -> Oid | None:
    """The commit at which `tip` leaves `near`, None when they have nothing in common. Raises GitError."""
    if near is None:
        return None
    found = store.git("merge-base", tip, near, check=False, timeout_s=600.0)
    return Oid.parse(found.text().split()[0]) if found.ok else None
