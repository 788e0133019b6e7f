"""What the attacks are aimed at: somebody who answers, on a host's addresses or in a network of its own."""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import socket
from contextlib import suppress

_LIFETIME_S = 600  # of one whose verification was killed
_IPV6 = socket.IPPROTO_IPV6


def serve(lifetime_s: int) -> None:
    """Greet every TCP connection and echo every datagram at one free port, after a line with the port as JSON."""
    signal.alarm(min(lifetime_s, _LIFETIME_S))
    for number in (
        signal.SIGTERM,
        signal.SIGALRM,
    ):  # the first process of a container is ended by no other means
        signal.signal(number, lambda _number, _frame: os._exit(0))
    family = socket.AF_INET6 if _has_ipv6() else socket.AF_INET
    tcp, udp, port = _open(family)
    print(json.dumps({"port": port}), flush=True)
    while True:
        for one in select.select([tcp, udp], [], [])[0]:
            with suppress(OSError):
                if one is tcp:
                    connection, _ = tcp.accept()
                    connection.send(b"hello")
                    connection.close()
                else:
                    _echo(udp)


def _open(family: int) -> tuple[socket.socket, socket.socket, int]:
    for _ in range(50):  # the port of the one may be taken for the other
        tcp, udp = socket.socket(family, socket.SOCK_STREAM), socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            for one in (tcp, udp):
                one.setsockopt(_IPV6, socket.IPV6_V6ONLY, 0)
            udp.setsockopt(_IPV6, 49, 1)  # IPV6_RECVPKTINFO: to answer from the address that was asked
        else:
            udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        anywhere = "::" if family == socket.AF_INET6 else ""
        tcp.bind((anywhere, 0))
        port = int(tcp.getsockname()[1])
        with suppress(OSError):
            udp.bind((anywhere, port))
            tcp.listen()
            return tcp, udp, port
        tcp.close()
        udp.close()
    raise OSError("no free port")


def _echo(udp: socket.socket) -> None:
    data, control, _, peer = udp.recvmsg(64, 256)
    back = [one for one in control if one[:2] in ((_IPV6, 50), (socket.IPPROTO_IP, 8))]
    udp.sendmsg([data], back, 0, peer)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::", 0))
    except OSError:
        return False
    return True


def serve_aside(lifetime_s: int) -> int:
    """The same in a process of its own that stays; its port."""
    readable, writable = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.dup2(writable, 1)
        for number in (0, 2):
            os.dup2(os.open("/dev/null", os.O_RDWR), number)
        os.closerange(3, 1024)  # the pipes of whoever waits for our parent
        serve(lifetime_s)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        return int(json.loads(pipe.readline())["port"])


def places() -> dict[str, list[str]]:
    """The addresses of this network namespace, IPv6 ones with their interface; its IPv4 routes as a.b.c.d/n DEVICE."""
    four = []
    with open("/proc/net/fib_trie") as file:
        lines = file.read().splitlines()
    for line, after in itertools.pairwise(lines):
        if "host LOCAL" in after:
            four.append(line.split("-- ")[-1].strip())
    six = []
    with suppress(FileNotFoundError), open("/proc/net/if_inet6") as file:
        for row in (line.split() for line in file):
            address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0]))
            six.append(f"{address}%{row[5]}")
    routes = []
    with open("/proc/net/route") as file:
        for row in (line.split() for line in file.read().splitlines()[1:]):
            bits = int(row[7], 16).bit_count()
            routes.append(f"{socket.inet_ntoa(bytes.fromhex(row[1])[::-1])}/{bits} {row[0]}")
    return {"ipv4": sorted(set(four)), "ipv6": six, "routes": routes}
