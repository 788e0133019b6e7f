"""The host's reading of a holder's rules: options it asks for, and refusal of anything unreadable."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from coding_agents.errors import EngineError, UsageError
from coding_agents.network.guard import READ_BACK, holder_options, parse_private, verify_guard
from coding_agents.proc.runner import Outcome


def test_options() -> None:
    assert holder_options(dns=["192.0.2.1"], allow=["10.1.2.3:443"]) == (
        "--dns", "192.0.2.1", "--allow", "10.1.2.3:443",
    )  # fmt: skip
    assert holder_options(dns=[], allow=[]) == ("--dns", "8.8.8.8", "--dns", "8.8.4.4")


@pytest.mark.parametrize(
    ("text", "spelled"), [(" 10.1.2.3:443 ", "10.1.2.3:443"), ("[FD00::1]:8443", "[fd00::1]:8443")]
)
def test_private_endpoints(text: str, spelled: str) -> None:
    assert parse_private(text) == spelled


@pytest.mark.parametrize(
    "text",
    ["", "10.1.2.3", "10.1.2.3:0", "10.1.2.3:65536", "example.org:443", "10.0.0.0/8:443", "fd00::1:443",
     "127.0.0.1:80", "169.254.169.254:80", "224.0.0.1:53", "[fe80::1%eth0]:80", "[::1]:80"],
)  # fmt: skip
def test_endpoints_that_are_never_opened(text: str) -> None:
    with pytest.raises(UsageError):
        parse_private(text)


def _answers(status: int, stdout: bytes) -> object:
    def run(argv: Sequence[str]) -> Outcome:
        assert tuple(argv) == READ_BACK
        return Outcome(tuple(argv), status, stdout, b"", 0.0)

    return run


@pytest.mark.parametrize(("status", "stdout"), [(1, b""), (0, b""), (0, b"no"), (0, b"[]"), (0, b"7")])
def test_unreadable_rules_stop_the_launch(status: int, stdout: bytes) -> None:
    with pytest.raises(EngineError):
        verify_guard(_answers(status, stdout), dns=[], allow=[])  # type: ignore[arg-type]


def test_no_rules_are_a_problem() -> None:
    empty = json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}]}).encode()
    assert verify_guard(_answers(0, empty), dns=[], allow=[])  # type: ignore[arg-type]
