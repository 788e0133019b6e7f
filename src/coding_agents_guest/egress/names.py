"""From a name to a connection: resolved once, each answer judged, and connected to exactly what was judged."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from coding_agents_guest.egress.orders import HostProxy, Orders
from coding_agents_guest.egress.rules import TUNNEL, Request
from coding_agents_guest.guard import Address

_RESOLVE_S, _CONNECT_S = 10.0, 10.0
_TRIES = 4  # addresses of one name
_MAX_ANSWER = 16 * 1024
_AT_ONCE = 16  # resolving; getaddrinfo(3) blocks a thread each


class OutError(Exception):
    """A host that is not reached; `reason` is a word of `rules.REASONS`."""

    def __init__(self, reason: str, address: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.address = address


IsOpen = Callable[[Address, int], bool]
"""Whether an address may be connected to at a port."""


class Connector:
    """Connects to names. `is_open` judges addresses by the same rules that the kernel keeps for this namespace."""

    def __init__(self, is_open: IsOpen) -> None:
        self._is_open = is_open
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="resolve")

    async def connect(self, request: Request, orders: Orders) -> tuple[socket.socket, str]:
        """A connected, non-blocking socket, and the address that it leads to. Raises OutError.

        By the host's proxy, where it serves the name: then nobody here resolves it, or sees its address. A plain
        request is to be told to the proxy itself.
        """
        host, by = request.host.lower(), orders.host_proxy
        known = [ipaddress.ip_address(address) for name, address in orders.names if name == host]
        if by is not None and by.serves(host) and not known:
            connected = await _connected(ipaddress.ip_address(by.address), by.port)
            if connected is None:
                raise OutError("unreachable", by.address)
            if request.scheme == TUNNEL:
                await _tunnelled(connected, f"{host}:{request.port}", by)
            return connected, f"by {by.address}"
        found = known or await self._resolve(host, request.port)
        for address in found:
            if not self._is_open(
                address, request.port
            ):  # one that is shut condemns the name, whatever else it says
                raise OutError("address", str(address))
        for address in found[:_TRIES]:
            if (connected := await _connected(address, request.port)) is not None:
                return connected, str(address)
        raise OutError("unreachable", str(found[0]))

    async def _resolve(self, host: str, port: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        look = loop.run_in_executor(self._threads, _look_up, f"{host}.", port)
        try:
            found = await asyncio.wait_for(look, _RESOLVE_S)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise OutError("unresolved") from error
        if not found:
            raise OutError("unresolved")
        return found


def _look_up(host: str, port: int) -> list[Address]:
    """The addresses of a full name, which gets no search domain behind it: it ends in a dot."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


async def _connected(address: Address, port: int) -> socket.socket | None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError:
        return None
    try:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(one, (str(address), port)), _CONNECT_S)
    except (OSError, TimeoutError):
        one.close()
        return None
    except BaseException:
        one.close()
        raise
    return one


async def _tunnelled(proxy: socket.socket, place: str, by: HostProxy) -> None:
    """Have the host's proxy open a tunnel. Raises OutError, and then the socket is closed."""
    loop = asyncio.get_running_loop()
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    lines += [f"Proxy-Authorization: {by.authorization}"] if by.authorization else []
    answer = b""
    try:
        async with asyncio.timeout(_CONNECT_S):
            await loop.sock_sendall(proxy, "\r\n".join((*lines, "", "")).encode("latin-1"))
            while not answer.endswith(b"\r\n\r\n") and len(answer) < _MAX_ANSWER:
                piece = await loop.sock_recv(proxy, 1)  # nothing that comes after belongs to us
                if not piece:
                    break
                answer += piece
        if not (answer.startswith(b"HTTP/1.") and answer.split()[1:2] == [b"200"]):
            raise OutError("host-proxy", by.address)
    except (OSError, TimeoutError) as error:
        proxy.close()
        raise OutError("unreachable", by.address) from error
    except BaseException:
        proxy.close()
        raise
