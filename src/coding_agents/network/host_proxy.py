"""The host's own proxy, where the internet is reached through one alone: sessions of mode `squid` use it, too."""

from __future__ import annotations

import base64
import ipaddress
import socket
from collections.abc import Callable, Mapping
from urllib.parse import unquote, urlsplit

from coding_agents.errors import ConfigError
from coding_agents_guest.egress.orders import HostProxy

_NAMES = ("HTTPS_PROXY", "https_proxy", "http_proxy", "ALL_PROXY", "all_proxy")


def find_host_proxy(
    environ: Mapping[str, str], resolve: Callable[[str], str] | None = None
) -> HostProxy | None:
    """The proxy that `environ` names, as curl(1) reads it, resolved once; None for none.

    Raises ConfigError for one that a session's own proxy could not use.
    """
    name = next((name for name in _NAMES if environ.get(name)), "")
    if not name:
        return None
    useless = ConfigError(
        f"{name} names no proxy that sessions of mode squid could use",  # it may hold a password
        hint=f"Set {name} to http://HOST:PORT, or launch with --network-proxy allow-all.",
    )
    try:
        parts = urlsplit(environ[name] if "://" in environ[name] else f"http://{environ[name]}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        raise useless from None
    if not host or parts.scheme != "http":
        raise useless
    try:
        address = ipaddress.ip_address((resolve or _resolve)(host))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the host's proxy {host} ({name}) has no address", hint="Check its name."
        ) from error
    if address.is_loopback:
        raise ConfigError(
            f"the host's proxy {host}:{port} ({name}) listens on loopback, which no container can reach",
            hint=f"Let it listen on an address of this host, and name that in {name}; or unset {name}.",
        )
    pattern = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    direct = tuple(one.strip().lstrip(".").lower() for one in pattern.split(",") if one.strip())
    return HostProxy(str(address), port, _authorization(parts.username, parts.password), direct)


def _authorization(user: str | None, password: str | None) -> str:
    if user is None:
        return ""
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _resolve(host: str) -> str:
    return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
