"""The holder in a real network namespace: what it lets through, what it refuses, what it gives up.

Needs root, nft and ip, as the containers of tests/engine have them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from coding_agents_guest.privileges import remaining_privileges
from support.guest import guest_program

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None or shutil.which("ip") is None,
    reason="needs root, nft and iproute2",
)
PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"
# Addresses of the other side of the namespace's only link: a "router" that answers on all of them.
PUBLIC, PUBLIC_6 = "45.45.45.45", "2a11:1:1:1::1"
RESOLVER, SERVICE, PRIVATE, METADATA = "10.99.0.53", "10.99.0.7", "192.168.99.1", "169.254.169.254"
GATEWAY, GATEWAY_6 = "11.99.0.1", "2a00:99::1"
PRIVATE_6 = "fd99::1"
_TALK = """
import socket, sys
for item in sys.argv[1:]:
    kind, address, port = item.split(",")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        try:
            s.connect((address, int(port)))
            s.send(b"x")
            print(item, "open" if s.recv(1) == b"y" else "other")
        except ConnectionRefusedError:
            print(item, "refused")
        except OSError as error:
            print(item, type(error).__name__)
"""
_ANSWER = """
import selectors, socket
selector = selectors.DefaultSelector()
for port in (53, 80, 853):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(socket.AF_INET6, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Replies must come from the address that was asked.
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        s.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            s.listen()
        selector.register(s, selectors.EVENT_READ)
print("listening", flush=True)
while True:
    for key, _ in selector.select():
        s = key.fileobj
        if s.type == socket.SOCK_STREAM:
            connection = s.accept()[0]
            connection.settimeout(5)
            connection.recv(1)
            connection.send(b"y")
            connection.close()
        else:
            _, info, _, peer = s.recvmsg(16, 128)
            s.sendmsg([b"y"], info, 0, peer)
"""


@dataclass(frozen=True)
class Net:
    """Two network namespaces, `inside` behind `outside`."""

    inside: str
    outside: str

    def run(self, namespace: str, *argv: str) -> str:
        return subprocess.run(
            ("ip", "netns", "exec", namespace, *argv),
            check=True,
            capture_output=True,
            text=True,
            env={"PATH": PATH},
        ).stdout

    def talk(self, *items: str, namespace: str | None = None) -> dict[str, str]:
        """Try connections from inside; each item is `tcp|udp,ADDRESS,PORT`."""
        printed = self.run(namespace or self.inside, sys.executable, "-IS", "-c", _TALK, *items)
        return dict(line.split(" ", 1) for line in printed.splitlines())


@pytest.fixture
def net() -> Iterator[Net]:
    tag = f"ca{secrets.token_hex(3)}"
    net = Net(f"{tag}i", f"{tag}o")
    try:
        for namespace in (net.inside, net.outside):
            subprocess.run(("ip", "netns", "add", namespace), check=True, env={"PATH": PATH})
            net.run(namespace, "ip", "link", "set", "lo", "up")
            net.run(
                namespace,
                "sysctl",
                "-qw",
                "net.ipv6.conf.all.accept_dad=0",
                "net.ipv6.conf.default.accept_dad=0",
            )
        net.run(
            net.outside,
            "ip",
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            net.inside,
        )
        ends = ((net.inside, "11.99.0.2", "2a00:99::2"), (net.outside, GATEWAY, GATEWAY_6))
        for namespace, own, own_6 in ends:
            net.run(namespace, "ip", "link", "set", "eth0", "up")
            net.run(namespace, "ip", "address", "add", f"{own}/24", "dev", "eth0")
            net.run(namespace, "ip", "address", "add", f"{own_6}/64", "dev", "eth0", "nodad")
        net.run(net.inside, "ip", "route", "add", "default", "via", GATEWAY)
        net.run(net.inside, "ip", "-6", "route", "add", "default", "via", GATEWAY_6)
        for address in (PUBLIC, RESOLVER, SERVICE, PRIVATE, METADATA, PUBLIC_6, PRIVATE_6):
            net.run(net.outside, "ip", "address", "add", address, "dev", "lo")
        answering = subprocess.Popen(
            ("ip", "netns", "exec", net.outside, sys.executable, "-IS", "-c", _ANSWER),
            stdout=subprocess.PIPE,
            env={"PATH": PATH},
        )
        with answering:
            try:
                assert answering.stdout is not None
                assert answering.stdout.readline() == b"listening\n"
                yield net
            finally:
                answering.kill()
    finally:
        for namespace in (net.inside, net.outside):
            subprocess.run(("ip", "netns", "del", namespace), check=False, env={"PATH": PATH})


@contextmanager
def holder(net: Net, directory: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The holder in the inner namespace, ended after the block."""
    process = subprocess.Popen(
        (
            "ip",
            "netns",
            "exec",
            net.inside,
            sys.executable,
            "-IS",
            str(guest_program(directory)),
            "holder",
            *arguments,
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": PATH},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"ready\n", process.stderr.read()


def test_only_what_is_meant_to_be_open_is_open(net: Net, tmp_path: Path) -> None:
    everything = [
        f"{kind},{address},{port}"
        for kind in ("tcp", "udp")
        for port in (53, 80, 853)
        for address in (PUBLIC, PUBLIC_6, RESOLVER, SERVICE, PRIVATE, METADATA, GATEWAY, GATEWAY_6, PRIVATE_6)
    ]
    assert set(net.talk(*everything).values()) == {"open"}  # so that every refusal below is the guard's

    with holder(net, tmp_path, "--dns", RESOLVER, "--allow", f"{SERVICE}:80") as process:
        ready(process)
        result = net.talk(*everything)

    opened = {item for item, state in result.items() if state == "open"}
    assert opened == {
        *(f"{kind},{address},80" for kind in ("tcp", "udp") for address in (PUBLIC, PUBLIC_6)),
        *(f"{kind},{RESOLVER},53" for kind in ("tcp", "udp")),
        f"tcp,{SERVICE},80",
    }
    # Refused at once, not left to time out.
    assert {state for item, state in result.items() if item not in opened} <= {"refused", "PermissionError"}


def test_nothing_comes_in_but_loopback_works(net: Net, tmp_path: Path) -> None:
    with holder(net, tmp_path) as process:
        ready(process)
        listening = subprocess.Popen(
            ("ip", "netns", "exec", net.inside, sys.executable, "-IS", "-c", _ANSWER),
            stdout=subprocess.PIPE,
            env={"PATH": PATH},
        )
        with listening:
            try:
                assert listening.stdout is not None
                listening.stdout.readline()
                assert net.talk("tcp,127.0.0.1,80", "tcp,::1,80", "tcp,11.99.0.2,80") == {
                    "tcp,127.0.0.1,80": "open",
                    "tcp,::1,80": "open",
                    "tcp,11.99.0.2,80": "open",
                }
                assert net.talk("tcp,11.99.0.2,80", namespace=net.outside) == {
                    "tcp,11.99.0.2,80": "TimeoutError"
                }
            finally:
                listening.kill()


def test_it_keeps_no_privilege_and_ends_when_told(net: Net, tmp_path: Path) -> None:
    with holder(net, tmp_path) as process:
        ready(process)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert remaining_privileges(status, uid=65534, gid=65534) == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_a_second_start_replaces_the_rules(net: Net, tmp_path: Path) -> None:
    for arguments, state in ((("--allow", f"{SERVICE}:80"), "open"), ((), "refused")):
        with holder(net, tmp_path, *arguments) as process:
            ready(process)
        assert net.talk(f"tcp,{SERVICE},80") == {f"tcp,{SERVICE},80": state}


@pytest.mark.parametrize(
    "arguments",
    [("--dns", "resolver.example"), ("--allow", "10.0.0.1"), ("--allow", "10.0.0.0/8:80"), ("--other",)],
)
def test_malformed_arguments_never_become_ready(net: Net, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    with holder(net, tmp_path, *arguments) as process:
        output, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert output == b""
    assert errors != b""


def test_rules_that_the_kernel_does_not_take_end_it(net: Net, tmp_path: Path) -> None:
    """Without NET_ADMIN nft fails; nothing may be reported as ready."""
    weak = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-all")
    program = (sys.executable, "-IS", str(guest_program(tmp_path)), "holder")
    done = subprocess.run(
        ("ip", "netns", "exec", net.inside, *weak, *program),
        capture_output=True,
        env={"PATH": PATH},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"nft" in done.stderr
