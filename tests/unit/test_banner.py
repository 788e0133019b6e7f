"""The banner of a launch: at most 8 lines, whatever a repository and an engine bring."""

from __future__ import annotations

import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.cli.banner import banner
from coding_agents.cli.output import Output
from coding_agents.model.release import Given
from coding_agents.sandbox.protections import LAYER_NAMES as LAYERS
from coding_agents.workspace.copyset import CopyPlan
from support.sessions import REPO, session_record

_VALUES = ("on", "off", "absent", "unknown", "4")
_PATHS = st.lists(st.text(min_size=1, max_size=400), max_size=8).map(tuple)


def _shown(lines: list[str]) -> list[str]:
    out = io.StringIO()
    for line in lines:
        Output(io.StringIO(), out).say(line)
    return out.getvalue().splitlines()


@given(
    enforced=st.dictionaries(st.sampled_from(LAYERS), st.sampled_from(_VALUES)),
    network=st.sampled_from(("allow-all", "restricted")),
    left_out=_PATHS,
    secrets=_PATHS,
    links=_PATHS,
    nested=_PATHS,
    reason=st.text(max_size=400),
)
def test_never_more_than_8_lines(
    enforced: dict[str, str],
    network: str,
    left_out: tuple[str, ...],
    secrets: tuple[str, ...],
    links: tuple[str, ...],
    nested: tuple[str, ...],
    reason: str,
) -> None:
    record = session_record(
        enforced=enforced, network=network, private=("10.0.0.1:1",) * 9, repo=_url_repo(), branch="demo/x"
    )
    copy = CopyPlan(
        False, (), (), (), left_out, secrets, links, nested, reasons=dict.fromkeys(nested, reason)
    )
    lines = _shown(list(banner(record, copy)))
    assert len(lines) <= 8
    assert max(map(len, lines)) < 1300
    lacking = next(line for line in lines if line.startswith("absent "))
    assert all(
        (name in lacking) == (value in ("off", "absent", "unknown")) for name, value in _plain(enforced)
    )


def test_the_worst_case_names_everything_once() -> None:
    many = tuple(f"d/{number}.pem" for number in range(12))
    copy = CopyPlan(False, (), (), (), many, ("k\n.pem", "b"), ("x" * 300 + "/link",), ("sub",))
    enforced = {"user": "on", "seccomp": "on", "cpus": "4", "network": "none", "apparmor": "absent", "disk": "absent",
                "swap": "unknown", "mounts": "off"}  # fmt: skip
    record = session_record(enforced=enforced, repo=_url_repo(), branch="demo/x")
    assert _shown(list(banner(record, copy))) == [
        "session  demo-shop-0123 on branch demo/x (docker)",
        "enforced user, seccomp",
        "network  restricted: none",
        "limits   cpus 4, swap unknown",
        "absent   apparmor, disk; off: mounts; unknown: swap",
        "left out 12 that look like secrets: d/0.pem, d/1.pem, d/2.pem and 9 more",
        "note     2 copied although tracked and like a secret: k\\x0a.pem, b; "
        f"1 links that leave the tree: …{'x' * 42}/link; 1 nested repositories, left empty: sub",
        "work     comes back to /data/shop.git; fetch it with: git fetch /data/shop.git demo/x",
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("on", "enforced user, apparmor"),
        ("engine's docker-default", "enforced user; apparmor: engine's docker-default profile"),
        ("absent", "enforced user"),
    ],
)
def test_whose_apparmor_profile_is_in_force(value: str, told: str) -> None:
    lines = list(banner(session_record(enforced={"user": "on", "apparmor": value})))
    assert told in lines
    assert ("absent   apparmor" in lines) is (value == "absent")


def test_a_submodule_that_stays_empty_is_named_with_the_reason() -> None:
    copy = CopyPlan(
        False, (), nested=("a", "b", "c", "lib\x1b[2J"), reasons={"lib\x1b[2J": "its .git is\nelsewhere"}
    )
    note = next(line for line in banner(session_record(enforced={}), copy) if line.startswith("note "))
    assert note == (
        "note     4 nested repositories, left empty: lib\\x1b[2J (its .git is\\x0aelsewhere), a, b and 1 more"
    )


def test_an_ordinary_launch_and_a_start_say_five_lines() -> None:
    record = session_record(enforced={"user": "on"})
    assert len(list(banner(record, CopyPlan(False, ("a",))))) == 5
    assert list(banner(record))[-1] == "absent   nothing"


def test_what_the_agent_has_of_its_users_credentials_is_one_more_line() -> None:
    some = Given(
        release=tuple(f"https://git.example/{name}" for name in "abcd"),
        ssh_agent=("SHA256:x git.example", "SHA256:y git.example"),
        files=("gh", "gitconfig"),
    )
    record = session_record(enforced={"user": "on"})
    lines = list(banner(record, given=some))
    assert lines[-1] == (
        "given    your credential for https://git.example/a, https://git.example/b, https://git.example/c and 1 more, "
        "which the agent can read and take away; your gh, gitconfig, which the agent can read and take away; "
        "logins with your ssh-agent at git.example, as often as it likes"
    )
    assert lines[:-1] == list(banner(record))


def _url_repo() -> object:
    return msgspec.structs.replace(REPO, kind="url", common_dir="/data/shop.git")


def _plain(enforced: dict[str, str]) -> list[tuple[str, str]]:
    """Without names that are part of another one."""
    return [(name, value) for name, value in enforced.items() if sum(name in other for other in LAYERS) == 1]
