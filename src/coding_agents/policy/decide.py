"""Decisions: pure, total, default deny. The enforcer gathers, asks here, records, and only then acts."""

from __future__ import annotations

import msgspec

from coding_agents.model.refs import RefUpdate
from coding_agents.policy.matrix import Operation, Policy, Tier
from coding_agents_guest.lfspointer import LFS, is_lfs_name
from coding_agents_guest.nestedref import NESTED, is_nested_name

UNLISTED = "unlisted"
"""The rule id of a refusal that no row of the matrix gave."""


class Allow(msgspec.Struct, frozen=True):
    """The operation may go on; it is recorded when `tier` says so."""

    rule: str
    tier: Tier
    reason: str


class Deny(msgspec.Struct, frozen=True):
    """The operation is refused; `reason` is shown to whoever asked."""

    rule: str
    tier: Tier
    reason: str


Decision = Allow | Deny


class PushRequest(msgspec.Struct, frozen=True):
    """A push: the refs it wants to change, and the refs that this pusher owns.

    `salvage` tells a salvage container (which owns the salvage refs, and all below `own_prefix`) from the
    session's agent (which owns the session's branch, `autosave_ref`, and `to_sign_ref` where it has commits signed).
    Both own the refs of repositories inside and of large files, under names that our guest's program could have made:
    of any others a guest could make as many, as long and as deep ones as git takes. Whether an update is a
    fast-forward is known only after its objects arrived,
    so it is a question of its own (`decide(policy, Operation.PUSH_REWRITE)`).
    """

    updates: tuple[RefUpdate, ...]
    own_refs: frozenset[str]
    salvage: bool
    own_prefix: str = ""
    autosave_ref: str = ""
    to_sign_ref: str = ""


def decide(policy: Policy, operation: Operation) -> Decision:
    """What the matrix says about `operation`."""
    rule = policy.rules.get(operation)
    if rule is None:
        return Deny(UNLISTED, Tier.ASK, f"no rule allows {operation.value}")
    if rule.allow:
        return Allow(rule.rule_id, rule.tier, rule.reason)
    return Deny(rule.rule_id, rule.tier, rule.reason)


def decide_listed(policy: Policy, operation: Operation, *, listed: bool) -> Decision:
    """The same for what a person decides beforehand, by a setting of their own that names it (`listed`).

    What the matrix has no row for stays refused, whatever a setting names.
    """
    decision = decide(policy, operation)
    if listed and isinstance(decision, Deny) and decision.tier is Tier.ASK and decision.rule != UNLISTED:
        return Allow(decision.rule, decision.tier, "the user's settings name it")
    return decision


def decide_push(policy: Policy, request: PushRequest) -> tuple[Decision, ...]:
    """One decision for each update, in order. A push is carried out only when every one is Allow."""
    return tuple(decide(policy, _operation(update, request)) for update in request.updates)


def _operation(update: RefUpdate, request: PushRequest) -> Operation:
    below = bool(request.own_prefix) and update.ref.startswith(request.own_prefix)
    nested = update.ref.startswith(NESTED) and is_nested_name(update.ref.removeprefix(NESTED))
    large = update.ref.startswith(LFS) and is_lfs_name(update.ref.removeprefix(LFS))
    autosave = bool(request.autosave_ref) and update.ref == request.autosave_ref
    to_sign = bool(request.to_sign_ref) and update.ref == request.to_sign_ref
    if update.ref not in request.own_refs and not (below or nested or large or autosave or to_sign):
        return Operation.PUSH_OTHER_REF
    if update.new is None:
        return Operation.PUSH_DELETE
    if nested:
        return Operation.PUSH_NESTED
    if large:
        return Operation.PUSH_LFS
    if to_sign:
        return Operation.PUSH_TO_SIGN
    if autosave:
        return Operation.PUSH_AUTOSAVE
    return Operation.PUSH_SALVAGE if request.salvage else Operation.PUSH_SESSION_BRANCH
