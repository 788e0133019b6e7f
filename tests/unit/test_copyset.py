"""Which paths go in: properties of the pure decision."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coding_agents.errors import WorkspaceError
from coding_agents.workspace.copyset import Kind, Listing, decide_copy, leaves, require_copyable
from coding_agents.workspace.deny import load_deny_list

DENY = load_deny_list()
NOTHING: frozenset[str] = frozenset()
PATHS = st.sampled_from(["a", "b/c", ".env", "b/.env", "id_rsa", "node_modules/x", "link", ".npmrc", "s.key"])
SETS = st.frozensets(PATHS)


@st.composite
def listings(draw: st.DrawFn) -> Listing:
    """A consistent listing: tracked and untracked do not overlap, ignored paths are neither."""
    tracked = draw(SETS)
    untracked = draw(SETS) - tracked
    ignored = draw(SETS) - tracked - untracked
    present = draw(SETS) | untracked | ignored
    kinds = {path: draw(st.sampled_from([*Kind])) for path in sorted(present)}
    return Listing(
        tracked=tracked,
        untracked=untracked,
        nested=NOTHING,
        asked=draw(SETS) & (untracked | ignored),
        asked_by_repo=draw(SETS) & ignored,
        kinds=kinds,
        links={
            path: draw(st.sampled_from(["/etc", "a", "../x"]))
            for path, kind in kinds.items()
            if kind is Kind.LINK
        },
        credentials=draw(SETS) & frozenset({".npmrc"}),
        strays=NOTHING,
    )


def secret(listing: Listing, path: str) -> bool:
    return DENY.matches(path) or path in listing.credentials


@given(listings())
def test_every_path_has_its_place(listing: Listing) -> None:
    plan = decide_copy(listing, DENY)
    paths = set(plan.paths)
    assert list(plan.paths) == sorted(paths)
    assert paths <= listing.tracked | listing.untracked | listing.asked | listing.asked_by_repo
    assert all(listing.kinds[path] in (Kind.FILE, Kind.LINK) for path in paths)
    shown = (listing.tracked | listing.untracked) & set(listing.kinds)
    missing = shown - paths - set(plan.left_out) - set(plan.special)
    assert all(listing.kinds[path] is Kind.DIRECTORY for path in missing)


@given(listings())
def test_no_untracked_secret_goes_in_unless_the_user_asked(listing: Listing) -> None:
    plan = decide_copy(listing, DENY)
    for path in set(plan.paths) - listing.tracked - listing.asked:
        assert not secret(listing, path)
    for path in plan.left_out:
        assert path in listing.untracked
        assert secret(listing, path)
        assert path not in plan.paths
    assert not any(secret(listing, path) for path in plan.untracked)


@given(listings())
def test_tracked_secrets_and_leaving_links_are_named(listing: Listing) -> None:
    plan = decide_copy(listing, DENY)
    assert set(plan.tracked_secrets) == {p for p in listing.tracked & set(plan.paths) if secret(listing, p)}
    assert set(plan.flagged_symlinks) == {
        path for path, target in listing.links.items() if path in plan.paths and leaves(path, target)
    }


@given(listings(), SETS)
def test_the_repository_cannot_bring_in_a_secret(listing: Listing, more: frozenset[str]) -> None:
    greedy = replace(listing, asked_by_repo=more - listing.tracked - listing.untracked, asked=NOTHING)
    plan = decide_copy(greedy, DENY)
    assert not [path for path in plan.included if secret(listing, path)]


def test_special_files_are_an_error_that_names_five() -> None:
    kinds = {f"s{number}": Kind.SPECIAL for number in range(7)} | {"a": Kind.UNREADABLE}
    listing = Listing(
        frozenset(kinds), NOTHING, NOTHING, NOTHING, NOTHING, kinds, {}, NOTHING, frozenset({"t"})
    )
    plan = decide_copy(listing, DENY)
    with pytest.raises(WorkspaceError) as raised:
        require_copyable(plan, kinds)
    assert str(raised.value) == (
        "cannot copy 'a' (not readable), 's0' (socket, FIFO or device), 's1' (socket, FIFO or device), "
        "'s2' (socket, FIFO or device), 's3' (socket, FIFO or device) and 4 more"
    )
    assert "'t'" in raised.value.details


@pytest.mark.parametrize(
    ("path", "target", "out"),
    [
        ("a", "b", False), ("a", "/etc/passwd", True), ("a", "..", True), ("a/b", "..", False),
        ("a/b", "../..", True), ("a/b", "../c", False), ("a", "b/../../c", True), ("a", "..b", False),
        ("a/b/c", "../../../x", True), ("a", "", False),
    ],
)  # fmt: skip
def test_links_that_leave_the_tree(path: str, target: str, out: bool) -> None:
    assert leaves(path, target) is out
