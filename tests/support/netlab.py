"""Machines that a guest must not reach, made of network namespaces beside the engine's own: root only.

The engine runs in a network namespace (tools/test-engine makes one, with a veth as uplink). A second one,
ours, is joined to it by a veth and holds addresses of every kind, private and public-looking; the engine's
namespace has a route to each, so that no packet to them ever leaves this machine. Listeners wait in both.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

NETNS_VARIABLE = "CODING_AGENTS_TEST_NETNS"
_LIFETIME_S = 600  # of a listener whose test run was killed
_TOOL_S = 20.0
# Greets every TCP connection, echoes every datagram; says "up" when it listens. Arguments: ports.
_LISTENER = """
import select, signal, socket, sys
signal.alarm(int(sys.argv[1]))
tcp, udp = [], []
for port in map(int, sys.argv[2:]):
    for kind, made in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
        one = socket.socket(socket.AF_INET6, kind)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # labs of other tests share the engine's machine
        if kind == socket.SOCK_DGRAM:
            one.setsockopt(socket.IPPROTO_IPV6, 49, 1)  # IPV6_RECVPKTINFO: to answer from the address asked
            one.setsockopt(socket.IPPROTO_IP, 8, 1)
        one.bind(("::", port))
        made.append(one)
for one in tcp:
    one.listen()
print("up", flush=True)
while True:
    for one in select.select(tcp + udp, [], [])[0]:
        try:
            if one in tcp:
                connection, _ = one.accept()
                connection.send(b"hello")
                connection.close()
            else:
                data, control, _, peer = one.recvmsg(64, 256)
                back = [c for c in control if c[:2] == (socket.IPPROTO_IPV6, 50)]
                one.sendmsg([data], back, 0, peer)
        except OSError:
            pass
"""
# RFC 1035: each query gets its own question back with one A record; AAAA has none. Arguments: own address, answer.
_NAME_SERVER = """
import signal, socket, sys
signal.alarm(int(sys.argv[1]))
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
one.bind((sys.argv[2], 53))
print("up", flush=True)
while True:
    query, peer = one.recvfrom(512)
    end = query.index(b"\\0", 12) + 5
    found = query[end - 4 : end - 2] == b"\\0\\1"
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\0\\0\\4" + socket.inet_aton(sys.argv[3])
    head = query[:2] + b"\\x81\\x80\\0\\1" + (b"\\0\\1" if found else b"\\0\\0") + bytes(4)
    one.sendto(head + query[12:end] + (answer if found else b""), peer)
"""


# Gives a megabyte to who sends "d", and takes what others send. Argument: port.
_PUMP = """
import signal, socket, sys, threading
signal.alarm(int(sys.argv[1]))
one = socket.create_server(("", int(sys.argv[2])))
print("up", flush=True)
def serve(connection):
    with connection:
        if connection.recv(1) == b"d":
            connection.sendall(bytes(1 << 20))
        while connection.recv(1 << 16):
            pass
        connection.sendall(b".")
while True:
    threading.Thread(target=serve, args=one.accept()[:1], daemon=True).start()
"""


class NoLabError(Exception):
    """Why no lab can be made here."""


@dataclass(frozen=True)
class Lab:
    """`netns` is the engine's namespace as a file, `name` that of ours, `port` where all listeners wait.

    `private` and `public` are IPv4 addresses of ours, `host` all IPv4 addresses of the engine's namespace.
    """

    netns: Path
    name: str
    port: int
    private: tuple[str, ...]
    public: tuple[str, ...]

    @property
    def host(self) -> tuple[str, ...]:
        listed = run("ip", "-o", "-4", "addr", "show", netns=self.netns)
        addresses = (line.split()[3].split("/")[0] for line in listed.splitlines())
        return tuple(one for one in addresses if not one.startswith("127."))


# One of each range that the guard refuses; clouds answer at the second and third with credentials.
PRIVATE = (
    "10.77.0.2",
    "169.254.169.254",
    "168.63.129.16",
    "100.64.7.2",
    "172.16.77.2",
    "192.168.77.2",
    "198.18.0.2",
    "192.0.2.77",
    "203.0.113.77",
)
# Public by every registry; the route to it ends in our namespace.
PUBLIC = ("11.77.0.2",)
RESOLVER = "10.77.0.53"
NAME_SERVER = "10.77.0.54"
NAME_PORTS = (53, 853)


@contextmanager
def lab(netns: Path, *, port: int) -> Iterator[Lab]:
    """A lab beside the engine's namespace; listeners (TCP, UDP) on `port`, 53 and 853 there, on `port` in the engine's.

    At NAME_SERVER a server of names answers instead.

    Several can stand side by side: each route has a metric of its own, and any lab answers alike.
    Raises NoLabError when this machine does not allow it.
    """
    name = f"cal{uuid.uuid4().hex[:8]}"
    here = Path("/run/netns") / name
    with ExitStack() as stack:
        run("ip", "netns", "add", name)
        stack.callback(run, "ip", "netns", "delete", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name, netns=netns)
        stack.callback(run, "ip", "link", "delete", name, netns=netns)
        _address(name, netns, here)
        stack.enter_context(listener(here, port, *NAME_PORTS))
        stack.enter_context(name_server(here))
        stack.enter_context(listener(netns, port))
        yield Lab(netns, name, port, PRIVATE, PUBLIC)


@contextmanager
def listener(netns: Path, *ports: int) -> Iterator[None]:
    """A process in `netns` that answers on the ports, on every address; several may share a port."""
    with _serving(netns, _LISTENER, *map(str, ports)):
        yield


@contextmanager
def name_server(netns: Path) -> Iterator[None]:
    """A process in `netns` that answers every question for a name at NAME_SERVER with the first public address."""
    with _serving(netns, _NAME_SERVER, NAME_SERVER, PUBLIC[0]):
        yield


@contextmanager
def pump(netns: Path, port: int) -> Iterator[None]:
    """A process in `netns` from which a megabyte can be had, and to which one can be sent, at `port`."""
    with _serving(netns, _PUMP, str(port)):
        yield


@contextmanager
def _serving(netns: Path, code: str, *arguments: str) -> Iterator[None]:
    argv = _inside(netns, (sys.executable, "-IS", "-c", code, str(_LIFETIME_S), *arguments))
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n", f"no listener in {netns}"
            yield
        finally:
            process.kill()


def engine_netns(environ: dict[str, str]) -> Path:
    """The engine's network namespace: named by the variable, else that of the process behind DOCKER_HOST.

    Podman has no daemon; its wrapper of tools/test-engine enters the same namespace. Raises NoLabError.
    """
    if os.geteuid() != 0:
        raise NoLabError("network namespaces need root")
    if named := environ.get(NETNS_VARIABLE):
        path = Path(named) if "/" in named else Path("/run/netns") / named
        if not path.exists():
            raise NoLabError(f"{NETNS_VARIABLE}={named} is not a network namespace")
    else:
        path = _behind_socket(environ.get("DOCKER_HOST", ""))
    if path.samefile("/proc/self/ns/net"):
        raise NoLabError("the engine runs in this machine's own network namespace, which stays as it is")
    return path


def find_lab(environ: dict[str, str], *, port: int) -> Iterator[Lab]:
    """A fixture's body: a lab, or a skip with the reason; in CI missing means failed."""
    try:
        netns = engine_netns(environ)
    except NoLabError as error:
        if environ.get("CI") == "true":
            pytest.fail(f"the attacks on the network guard are required: {error}")
        pytest.skip(str(error))
    with lab(netns, port=port) as made:
        yield made


def run(*argv: str, netns: Path | None = None, check: bool = True) -> str:
    """Run a tool, in a network namespace if one is given; its standard output."""
    done = subprocess.run(
        argv if netns is None else _inside(netns, argv),
        capture_output=True,
        text=True,
        timeout=_TOOL_S,
        check=False,
    )
    assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def _inside(netns: Path, argv: tuple[str, ...]) -> tuple[str, ...]:
    return ("nsenter", f"--net={netns}", *argv)


def _address(name: str, netns: Path, here: Path) -> None:
    number = int(name[-8:], 16)
    run(
        "ip",
        "address",
        "add",
        f"10.78.{number % 250 + 1}.{number // 250 % 250 + 1}/32",
        "dev",
        name,
        netns=netns,
    )
    run("ip", "link", "set", name, "up", netns=netns)
    run("ip", "link", "set", "lo", "up", netns=here)
    run("ip", "link", "set", "eth0", "up", netns=here)
    for address in (*PRIVATE, *PUBLIC, RESOLVER, NAME_SERVER):
        run("ip", "address", "add", f"{address}/32", "dev", "eth0", netns=here)
        route = ("ip", "route", "add", f"{address}/32", "dev", name, "metric", str(number % 60000 + 1))
        run(*route, netns=netns)
    run("ip", "route", "add", "default", "dev", "eth0", netns=here)


def _behind_socket(docker_host: str) -> Path:
    if not docker_host.startswith("unix://"):
        raise NoLabError(f"DOCKER_HOST={docker_host!r} is no socket on this machine; set {NETNS_VARIABLE}")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(docker_host.removeprefix("unix://"))
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except OSError as error:
        raise NoLabError(f"{docker_host}: {error}") from error
    return Path(f"/proc/{struct.unpack('iII', credentials)[0]}/ns/net")
