"""Attacks on the network: knocking at addresses, and getting round the rules of the namespace."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from coding_agents.attacks.answers import answer_of, run_program

OPEN, REFUSED, SILENT = "open", "refused", "silent"


def knock(targets: list[list[object]], timeout_s: float) -> dict[str, list[object]]:
    """Try each [protocol, address, port]; gives "protocol address port" to [open|refused|silent, seconds, detail].

    Protocols are tcp, udp (a datagram and its echo) and icmp (an echo request; the port does not matter).
    """
    found: dict[str, list[object]] = {}
    for protocol, address, port in targets:
        began = time.monotonic()
        try:
            _KNOCKS[str(protocol)](str(address), int(str(port)), timeout_s)
            answer, detail = OPEN, ""
        except TimeoutError:
            answer, detail = SILENT, ""
        except OSError as error:
            answer, detail = REFUSED, errno.errorcode.get(error.errno or 0, str(error))
        found[f"{protocol} {address} {port}"] = [answer, time.monotonic() - began, detail]
    return found


def knock_side_by_side(targets: list[list[object]], timeout_s: float) -> dict[str, list[object]]:
    """`knock` at all of them at once."""
    with ThreadPoolExecutor(max(1, len(targets))) as pool:
        answers = pool.map(lambda one: knock([one], timeout_s), targets)
        return {name: answer for found in answers for name, answer in found.items()}


def resolve(name: str) -> list[str]:
    """The IPv4 addresses of `name`, by the way that every program takes."""
    found = socket.getaddrinfo(name, 80, family=socket.AF_INET, type=socket.SOCK_STREAM)
    return sorted({str(address[4][0]) for address in found})


def interfaces() -> dict[str, list[str]]:
    """Names of the interfaces, and the lines of the routing tables."""
    with open("/proc/net/route") as file:
        routes = file.read().splitlines()[1:]
    with suppress(FileNotFoundError), open("/proc/net/ipv6_route") as file:
        routes += [line for line in file.read().splitlines() if line.split()[-1] != "lo"]
    return {"interfaces": [name for _, name in socket.if_nameindex()], "routes": routes}


def pump(address: str, port: int, way: str) -> float:
    """Seconds that it takes to get a megabyte from there ("d") or to send one ("u")."""
    with socket.create_connection((address, port), timeout=30) as connection:
        began = time.monotonic()
        connection.sendall(b"d" if way == "d" else b"u" + bytes(1 << 20))
        left = 1 << 20 if way == "d" else 1
        if way == "u":
            connection.shutdown(socket.SHUT_WR)
        while left > 0:
            left -= len(connection.recv(1 << 16))
        return time.monotonic() - began


def flood(address: str, port: int, most_bytes: int, size: int, seconds: float) -> dict[str, float]:
    """Send datagrams there as fast as the kernel takes them; how many bytes were tried, and in what time.

    Whether they got anywhere is not for the sender to say: what is refused counts as tried.
    """
    began, tried, data = time.monotonic(), 0, bytes(size)
    with socket.socket(_family(address), socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.connect(_resolved(address, port))
        while tried < most_bytes and time.monotonic() - began < seconds:
            with suppress(OSError):
                one.send(data)
            tried += size
    return {"bytes": tried, "seconds": time.monotonic() - began}


def change_the_network() -> dict[str, str]:
    """The answers to whatever could get round the rules of the network namespace."""
    programs = {
        "flush": ("nft", "flush", "ruleset"),
        "list": ("nft", "list", "ruleset"),
        "table": ("nft", "delete", "table", "inet", "coding_agents_guard"),
        "iptables": ("iptables", "-F"),
        "route": ("ip", "route", "add", "10.0.0.0/8", "dev", "lo"),
        "rule": ("ip", "rule", "add", "from", "all", "table", "7"),
        "address": ("ip", "address", "add", "10.9.9.9/32", "dev", "lo"),
        "link": ("ip", "link", "add", "hostile0", "type", "dummy"),
        "down": ("ip", "link", "set", "lo", "down"),
    }

    def set_mark() -> None:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, 36, 1)

    tries: dict[str, Callable[[], object]] = {
        "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close(),
        "raw icmp": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
        "raw tcp": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255).close(),
        "raw ipv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58).close(),
        "mark": set_mark,
        "forward": lambda: os.close(os.open("/proc/sys/net/ipv4/ip_forward", os.O_WRONLY)),
    }
    return {name: run_program(argv) for name, argv in programs.items()} | {
        name: answer_of(one) for name, one in tries.items()
    }


def _knock_tcp(address: str, port: int, timeout_s: float) -> None:
    with socket.socket(_family(address)) as one:
        one.settimeout(timeout_s)
        one.connect(_resolved(address, port))
        if one.recv(5) != b"hello":
            raise ConnectionError("somebody else")


def _knock_udp(address: str, port: int, timeout_s: float) -> None:
    with socket.socket(_family(address), socket.SOCK_DGRAM) as one:
        one.settimeout(timeout_s)
        one.connect(_resolved(address, port))
        one.send(b"hello")
        one.recv(5)


def _knock_icmp(address: str, _port: int, timeout_s: float) -> None:
    six = ":" in address
    with socket.socket(_family(address), socket.SOCK_DGRAM, 58 if six else 1) as one:
        one.settimeout(timeout_s)
        one.setsockopt(
            41 if six else 0, 25 if six else 11, 1
        )  # IPV6_RECVERR, IP_RECVERR: tell what came back
        one.connect(_resolved(address, 0))
        one.send(struct.pack("!BBHHH", 128 if six else 8, 0, 0, 0, 1))
        one.recv(64)


_KNOCKS = {"tcp": _knock_tcp, "udp": _knock_udp, "icmp": _knock_icmp}


def _resolved(address: str, port: int) -> tuple[object, ...]:
    """The address as the kernel wants it, with the number of the interface after its `%`."""
    return socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0][4]


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
