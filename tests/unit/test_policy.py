"""Decisions: the shipped matrix, default deny, and that taking a rule away never opens anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import ConfigError
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.refs import Oid, RefUpdate
from coding_agents.policy.decide import UNLISTED, Allow, Deny, PushRequest, decide, decide_listed, decide_push
from coding_agents.policy.matrix import Operation, Policy, Tier, parse_matrix
from coding_agents_guest.lfspointer import LFS
from coding_agents_guest.nestedref import NESTED

A, B = Oid("a" * 40), Oid("b" * 40)
OWN = "refs/heads/demo/x"
SHIPPED = load_policy()

REFS = st.sampled_from([OWN, f"{OWN}/y", "refs/heads/demo/X", "refs/heads/main", "refs/tags/v1", "HEAD", ""])
UPDATES = st.builds(
    RefUpdate, st.sampled_from([None, A]), st.sampled_from([None, B]), REFS | st.text(max_size=20)
)
REQUESTS = st.builds(
    PushRequest, st.lists(UPDATES, max_size=5).map(tuple), st.just(frozenset({OWN})), st.booleans()
)
POLICIES = st.sets(st.sampled_from(list(Operation))).map(
    lambda kept: Policy({op: rule for op, rule in SHIPPED.rules.items() if op in kept})
)

ROW = '[[rule]]\nid = "r"\noperation = "push.delete"\ntier = 3\neffect = "refuse"\nreason = "no"\n'


def test_every_operation_has_a_row() -> None:
    assert set(SHIPPED.rules) == set(Operation)


@pytest.mark.parametrize(
    ("operation", "allowed", "tier"),
    [
        (Operation.PUSH_SESSION_BRANCH, True, Tier.SILENT),
        (Operation.PUSH_AUTOSAVE, True, Tier.SILENT),
        (Operation.PUSH_NESTED, True, Tier.SILENT),
        (Operation.PUSH_REWRITE, True, Tier.RECORDED),
        (Operation.PUSH_OTHER_REF, False, Tier.ASK),
        (Operation.PUSH_DELETE, False, Tier.ASK),
        (Operation.PUSH_SALVAGE, True, Tier.RECORDED),
        (Operation.FETCH_RELAY, True, Tier.SILENT),
    ],
)
def test_the_shipped_matrix(operation: Operation, allowed: bool, tier: Tier) -> None:
    decision = decide(SHIPPED, operation)
    assert isinstance(decision, Allow if allowed else Deny)
    assert decision.tier is tier
    assert decision.rule == SHIPPED.rules[operation].rule_id


LISTED = (Operation.CREDENTIAL_RELEASE, Operation.SSH_AGENT_SIGN, Operation.AUTH_FILE)


@given(POLICIES, st.sampled_from(list(Operation)), st.booleans())
def test_a_setting_answers_for_a_person_only_where_the_matrix_has_a_question(
    policy: Policy, operation: Operation, listed: bool
) -> None:
    plain, decision = decide(policy, operation), decide_listed(policy, operation, listed=listed)
    if isinstance(decision, Allow) and isinstance(plain, Deny):
        assert listed
        assert operation in policy.rules
        assert policy.rules[operation].tier is Tier.ASK
    else:
        assert decision == plain


@pytest.mark.parametrize("operation", LISTED)
def test_what_a_setting_names_is_of_tier_3(operation: Operation) -> None:
    assert isinstance(decide(SHIPPED, operation), Deny)
    decision = decide_listed(SHIPPED, operation, listed=True)
    assert isinstance(decision, Allow)
    assert decision.tier is Tier.ASK


@given(REQUESTS)
def test_only_the_own_ref_is_ever_allowed(request: PushRequest) -> None:
    decisions = decide_push(SHIPPED, request)
    assert len(decisions) == len(request.updates)
    for update, decision in zip(request.updates, decisions, strict=True):
        assert isinstance(decision, Allow) == (update.ref == OWN and update.new is not None)


@given(POLICIES, REQUESTS)
def test_taking_rules_away_never_opens_anything(policy: Policy, request: PushRequest) -> None:
    for less, full in zip(decide_push(policy, request), decide_push(SHIPPED, request), strict=True):
        assert isinstance(less, Deny) or less == full


def test_no_row_means_no() -> None:
    decision = decide(Policy({}), Operation.FETCH_RELAY)
    assert isinstance(decision, Deny)
    assert decision.rule == UNLISTED


def test_a_salvage_push_has_a_rule_of_its_own() -> None:
    request = PushRequest((RefUpdate(None, A, OWN),), frozenset({OWN}), salvage=True)
    assert decide_push(SHIPPED, request)[0].rule == "git-push-salvage"


@pytest.mark.parametrize(
    "text",
    [
        "", "x = 1", "rule = 1", "[[rule]]", "not toml", "rule = []\nother = 1",
        ROW + ROW,
        ROW.replace("push.delete", "push.everything"),
        ROW.replace("tier = 3", "tier = 4"),
        ROW.replace("tier = 3", 'tier = "3"'),
        ROW.replace("tier = 3", "tier = true"),
        ROW.replace('"refuse"', '"perhaps"'),
        ROW.replace('"refuse"', '"allow"'),
        ROW.replace('"no"', '""'),
        ROW + "extra = 1\n",
        ROW + ROW.replace("push.delete", "push.rewrite"),
    ],
)  # fmt: skip
def test_a_damaged_matrix_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_matrix(text)


def test_an_undamaged_row_is_read() -> None:
    assert parse_matrix(ROW).rules[Operation.PUSH_DELETE].reason == "no"


@pytest.mark.parametrize("salvage", [False, True])
@pytest.mark.parametrize(
    ("ref", "allowed"),
    [
        (f"{NESTED}a", True),
        (f"{NESTED}libs/a%20b%2F%2Egit", True),
        (f"{NESTED}a/{'b' * 200}", True),
        (f"{NESTED}{'a/' * 63}a", True),
        (f"{NESTED}{'a/' * 64}a", False),
        (f"{NESTED}{'a/' * 2000}a", False),
        (f"{NESTED}{'b' * 250}", False),
        (f"{NESTED}{'/'.join(['b' * 200] * 5)}", False),
        (f"{NESTED}x\udcff", False),
        (f"{NESTED}\u00e4", False),
        (f"{NESTED}a\n", False),
        (f"{NESTED}a b", False),
        (f"{NESTED}a%2f", False),
        (f"{NESTED}a%", False),
        (f"{NESTED}a//b", False),
        (f"{NESTED}../heads", False),
        (f"{NESTED}.a", False),
        (f"{NESTED}a.lock", False),
        (f"{NESTED}a.lock/b", False),
        (NESTED, False),
        (NESTED.rstrip("/"), False),
        ("refs/coding-agents/base", False),
        (f"{LFS}{'a' * 40}", True),
        (f"{LFS}{'0' * 64}", True),
        (f"{LFS}{'a' * 41}", False),
        (f"{LFS}{'A' * 40}", False),
        (f"{LFS}{'a' * 40}/b", False),
        (f"{LFS}{'a' * 40}\n", False),
        (f"{LFS}\udcff", False),
        (LFS, False),
    ],
)
def test_of_refs_of_the_guests_own_only_names_that_its_program_makes(
    ref: str, allowed: bool, salvage: bool
) -> None:
    for new in (Oid("1" * 40), None):
        request = PushRequest((RefUpdate(None, new, ref),), frozenset(), salvage)
        (decision,) = decide_push(SHIPPED, request)
        assert isinstance(decision, Allow) == (allowed and new is not None)
