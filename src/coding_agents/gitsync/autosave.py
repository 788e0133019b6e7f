"""Automatic saves in the relay: the latest as the guest pushed it, and earlier ones by the time of the host."""

from __future__ import annotations

from collections.abc import Mapping

from coding_agents.gitsync.packs import Store, bring, user_store
from coding_agents.gitsync.relay_repo import Relay
from coding_agents.gitsync.thinning import AUTOSAVE, Keep, thin
from coding_agents.model.refs import Oid
from coding_agents.model.repo import RepoFacts
from coding_agents_guest.nestedref import LATEST


def latest_save(relay: Relay) -> Oid | None:
    """The latest automatic save that the relay has. Raises GitError."""
    return relay.store.resolve(LATEST)


def keep_save(store: Store, now_ms: int) -> None:
    """Give the latest save a ref of its own unless it has one, and remove those that `thin` names. Raises GitError."""
    refs = store.refs(f"{AUTOSAVE}/")
    tip = refs.pop(LATEST, None)
    if tip is None:
        return
    commands = []
    if tip not in refs.values():
        refs[f"{AUTOSAVE}/{now_ms}"] = tip
        commands.append(f"update {AUTOSAVE}/{now_ms} {tip}")
    # Also when the save has its ref: git may have been killed before it had removed the others.
    commands += [f"delete {ref} {refs[ref]}" for ref in thin(refs, now_ms) if ref != f"{AUTOSAVE}/{now_ms}"]
    if commands:
        store.update_refs(*commands)


def let_go(store: Store, now_ms: int, keep: Keep) -> bool:
    """Remove the dated saves that `keep` does not name; whether there were any. Raises GitError."""
    refs = store.refs(f"{AUTOSAVE}/")
    commands = [f"delete {ref} {refs[ref]}" for ref in thin(refs, now_ms, keep)]
    if commands:
        store.update_refs(*commands)
    return bool(commands)


def bring_save(
    repo: RepoFacts, relay: Relay, *, session: str, env: Mapping[str, str]
) -> tuple[str, Oid] | None:
    """Bring the latest save to a ref of `session` in `repo`; returns the ref and the commit. Raises GitError."""
    tip = latest_save(relay)
    if tip is None or tip == relay.base:
        return None
    user = user_store(repo, env)
    known = [oid for oid in (relay.base, relay.store.resolve(relay.branch.ref)) if oid is not None]
    bring(relay.store, user, tips=[tip], known=known, apart=[relay.branch.ref])
    ref = f"{AUTOSAVE}/{session}"
    user.update_refs(f"update {ref} {tip}")
    return ref, tip
