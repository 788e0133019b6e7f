"""What may be asked of origin by a push at all: one branch, new or moved, and a merge request with it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coding_agents.errors import BranchError
from coding_agents.gitsync.pktline import PushCommands
from coding_agents.model.origin import OriginRules
from coding_agents.model.refs import Branch, Oid, RefUpdate
from coding_agents.policy.decide import Decision, Deny, decide
from coding_agents.policy.matrix import Operation, Policy

_HEADS = "refs/heads/"
_CREATE, _TARGET = "merge_request.create", "merge_request.target"
_OPTIONS = f"-o {_CREATE} and -o {_TARGET}=BRANCH are known"


class AskedPush(msgspec.Struct, frozen=True):
    """A push that a person may be asked about. `target` is the branch for a merge request, "" for the default one."""

    branch: str
    old: Oid | None
    new: Oid
    merge_request: bool
    target: str

    @property
    def ref(self) -> str:
        return f"{_HEADS}{self.branch}"


def judge_push(
    commands: PushCommands, rules: OriginRules, policy: Policy, *, default: str
) -> tuple[AskedPush | None, tuple[Decision, ...]]:
    """What the push asks for, or None; and the decision for each of its updates, the reason why not among them.

    `default` is origin's default branch.
    """
    updates = commands.updates
    if len(updates) != 1:
        reason = "push one branch at a time to origin: a person approves one"
        return None, (_other(policy, reason),) * len(updates)
    (update,) = updates
    asked = _asked(update, commands.options)
    if isinstance(asked, str):
        return None, (_other(policy, asked),)
    if rules.is_protected(asked.branch, default):
        decision = decide(policy, Operation.ORIGIN_PROTECTED)
        return None, (Deny(decision.rule, decision.tier, f"{asked.branch} is {decision.reason}"),)
    return asked, (decide(policy, Operation.ORIGIN_PUSH),)


def _asked(update: RefUpdate, options: Sequence[str]) -> AskedPush | str:
    """The push that `update` is, or why it cannot be one."""
    if update.ref.startswith("refs/tags/"):
        return "tags are not pushed to origin from a session: make the tag on the host"
    if not update.ref.startswith(_HEADS):
        return "only branches are pushed to origin from a session"
    if update.new is None:
        return "branches of origin are not deleted from a session: delete it on the host"
    branch = update.ref.removeprefix(_HEADS)
    if (problem := _no_branch(branch)) is not None:
        return problem
    create, target = False, ""
    for option in options:
        key, _, value = option.partition("=")
        if option == _CREATE:
            create = True
        elif key == _TARGET and value and _no_branch(value) is None:
            target = value
        else:
            return f"the push option {option[:60]!r} is refused; {_OPTIONS}"
    if target and not create:
        return f"-o {_TARGET} means nothing without -o {_CREATE}"
    return AskedPush(branch, update.old, update.new, create, target)


def _no_branch(name: str) -> str | None:
    """Why `name` is not taken for a branch, None when it is."""
    try:
        Branch.parse(name, agent="x")  # what is parsed is the name itself, and it below this
    except BranchError as error:
        return error.message
    return None


def _other(policy: Policy, reason: str) -> Deny:
    decision = decide(policy, Operation.ORIGIN_OTHER)
    return Deny(decision.rule, decision.tier, reason)
