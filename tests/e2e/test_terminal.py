"""Attached to a hostile guest: what reaches the terminal outside, through tmux and without it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.product import Product, wait_for
from support.ptys import Terminal, on_terminal, shell_agent
from support.vt import ModelTerminal

pytestmark = pytest.mark.engine

HOSTILE = r"""
printf '\033]52;c;aGFja2Vk\007\033]52;c;?\033\\'
printf '\033[c\033[>c\033[=c\033[5n\033[6n\033[>q\033[?25$p\033[14t\033[21t\033Z\005'
printf '\033]10;?\033\\\033]4;1;?\007\033]1337;ReportCellSize\007\033]777;notify;a;b\007\033]9;note\007'
printf '\033P$qm\033\\\033P+q544e\033\\\033Pq#0~\033\\\033_Gi=1,a=q;AAAA\033\\\033^x\033\\\033Xx\033\\'
printf '\033Ptmux;\033\033]52;c;aGFja2Vk\007\033\\'
printf '\033[>1u\033[>4;2m\033[?1034h\033[2h\033[3J\033[8;10;10t\302\2336n\2339n'
printf '\033]0;ti\342\200\256tle\007\033]8;;file:///etc/passwd\007link\033]8;;\007\n'
"""
"""Everything that a terminal must not hear, in printf's words."""


@pytest.fixture
def shell(product: Product, repo: Path) -> Iterator[str]:
    """A session whose agent is a shell, that a person can attach to."""
    shell_agent(product)
    launched = product.run("launch", str(repo), "--agent", "shell", "--network-proxy", "restricted", "-d")
    name = launched.out.strip()
    product.exec(name, f"cat > /tmp/hostile <<'EOF'\n{HOSTILE}\nEOF")
    yield name
    # A shell heeds no SIGTERM: the stop alone would wait for 10 s.
    product.exec(name, "tmux kill-server", status=None)
    product.run("stop", name)


@contextmanager
def attached(product: Product, name: str) -> Iterator[Terminal]:
    with on_terminal(product, "connect", name) as shown:
        shown.sees("$")
        yield shown


def _leaves(shown: Terminal) -> None:
    """Ctrl-b d; afterwards the terminal has to be as it was."""
    shown.leaves_tmux()
    assert shown.ends() == 0


def _judge(shown: Terminal) -> ModelTerminal:
    model = ModelTerminal().reads(shown.raw)
    assert model.offences == []
    assert model.left == {}
    return model


@pytest.mark.alike
def test_through_tmux_nothing_hostile_arrives_and_the_session_goes_on(product: Product, shell: str) -> None:
    with on_terminal(product, "connect", shell) as shown:
        before = shown.modes
        shown.sees("$")
        shown.types("sh /tmp/hostile; echo do''ne\r")
        shown.sees("done")
        _leaves(shown)
        assert shown.modes[:4] == before[:4]
    assert "?1049h" in shown.seen, "tmux draws on the other screen"
    _judge(shown)
    assert product.state(shell) == "running"


@pytest.mark.alike
def test_a_guest_that_writes_past_its_tmux_is_filtered_as_well(product: Product, shell: str) -> None:
    """The agent has the uid of the tmux client and writes to that one's terminal directly."""
    with attached(product, shell) as shown:
        found = "tmux list-clients -F '#{client_tty}' | head -n 1"
        product.exec(shell, f'tty=$({found}); sh /tmp/hostile > "$tty"; echo past-tmux > "$tty"')
        shown.sees("past-tmux")
        _leaves(shown)
    assert _judge(shown).titles == ["title"]


def test_exec_on_a_terminal_is_filtered(product: Product, shell: str) -> None:
    with on_terminal(product, "exec", shell, "--", "sh", "-c", "sh /tmp/hostile; exit 5") as shown:
        assert shown.ends() == 5
    model = _judge(shown)
    assert model.titles == ["title"]
    assert "link" in model.printed
    assert model.links == []


@pytest.mark.alike
def test_programs_inside_are_told_of_a_terminal_that_they_know(product: Product, shell: str) -> None:
    for ours, told in (
        ("screen-256color", "screen-256color"),
        ("xterm-kitty", "xterm-256color"),
        ("a;b", "xterm-256color"),
    ):
        with on_terminal(product, "exec", shell, "--", "sh", "-c", 'echo "<$TERM>"', term=ours) as shown:
            shown.sees(f"<{told}>")
            assert shown.ends() == 0


def test_the_size_arrives_follows_and_ctrl_c_reaches_the_program(product: Product, shell: str) -> None:
    """The program writes what it notices into files: tmux draws differences, in pieces."""
    program = (
        "note() { stty size > /tmp/size; }; trap note WINCH; trap 'touch /tmp/interrupted; exit' INT;"
        "note; while :; do sleep 0.1; done"
    )
    with attached(product, shell) as shown:
        shown.types(f'bash -c "{program}"\r')
        wait_for(
            lambda: _inside(product, shell, "cat /tmp/size") == "23 80", "the size without tmux's own line"
        )
        shown.resize(40, 120)
        wait_for(lambda: _inside(product, shell, "cat /tmp/size") == "39 120", "the new size")
        shown.types("\x03")
        wait_for(lambda: _inside(product, shell, "ls /tmp/interrupted"), "the end by Ctrl-C")
        _leaves(shown)
    _judge(shown)
    with on_terminal(product, "exec", shell, "--", "bash", "-c", program) as shown:
        wait_for(lambda: _inside(product, shell, "cat /tmp/size") == "24 80", "the size")
        shown.resize(33, 99)
        wait_for(lambda: _inside(product, shell, "cat /tmp/size") == "33 99", "the new size")
        shown.types("\x03")
        assert shown.ends() == 0, "the status of its trap"


def _inside(product: Product, name: str, script: str) -> str:
    return product.exec(name, script, status=None).out.strip()


@pytest.mark.alike
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_connect_that_is_ended_leaves_terminal_and_session_as_they_were(
    product: Product, shell: str, number: int
) -> None:
    with on_terminal(product, "connect", shell) as shown:
        before = shown.modes
        shown.sees("$")
        shown.signals(number)
        assert shown.ends() == 143
        assert shown.modes[:4] == before[:4]
    _judge(shown)
    assert product.state(shell) == "running"
    gone = 'test -z "$(tmux list-clients)"'
    wait_for(lambda: product.exec(shell, gone, status=None).status == 0, "the end of the viewer inside")
    with attached(product, shell) as shown:  # which does not only read
        shown.types("echo typ''ed\r")
        shown.sees("typed")
        _leaves(shown)
