"""With which credential a package index is asked: the secret that its entry names, or this host's own login there.

That is one for this very address in pip's or npm's configuration of the user, or for its host in ~/.netrc. A file with
a credential must be the user's alone; no message holds a word of one.
"""

from __future__ import annotations

import base64
import binascii
import configparser
import netrc
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.private import MAX_FILE, read_private
from coding_agents.credentials.secrets import secret_values
from coding_agents.errors import CredentialError
from coding_agents.model.masked import Masked
from coding_agents.model.registry import Registry

_PIPS_USER = "__token__"  # what a Python index takes beside a token
_NPM_KEYS = ("_authToken", "_auth", "username", "_password")


class RegistryCredential(Masked, frozen=True):
    """`source` is for people; `header` is the value of Authorization, `secrets` all that must not come back."""

    MASKED = frozenset({"header", "secrets"})

    source: str
    header: str
    secrets: tuple[str, ...]


def registry_credential(env: HostEnvironment, registry: Registry, url: str) -> RegistryCredential | None:
    """The credential for `url`, an address of `registry`; None where the host has none. Raises CredentialError.

    A secret that the entry names goes to all its places: they are the user's own words.
    """
    if registry.secret:
        value = secret_values(env, [registry.secret])[registry.secret]
        source = f"secret {registry.secret}"
        if registry.kind == "npm" and not registry.user:
            return bearer(source, value)
        return basic(source, registry.user or _PIPS_USER, value)
    found = _in_pip(env, url) if registry.kind == "pip" else _in_npmrc(env, url)
    return found or _in_netrc(env, url)


def bearer(source: str, token: str) -> RegistryCredential:
    _require_plain(source, token)
    return RegistryCredential(source, f"Bearer {token}", (token,))


def basic(source: str, user: str, password: str) -> RegistryCredential:
    _require_plain(source, user)
    if "\n" in password or "\r" in password:
        raise CredentialError(f"the password of {source} has more than one line", hint="Set it again.")
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    alone = base64.b64encode(password.encode()).decode().rstrip("=")
    return RegistryCredential(source, f"Basic {pair}", (password, pair.rstrip("="), alone))


def _in_pip(env: HostEnvironment, url: str) -> RegistryCredential | None:
    """A user and password in an address of pip's configuration with the same origin, and a path that `url` is below."""
    for source, text in _pip_addresses(env):
        try:
            parts = urlsplit(text)
            same = parts.username is not None and _origin(text) == _origin(url)
        except ValueError:
            continue
        if same and _below(urlsplit(url).path, parts.path):
            return basic(source, unquote(parts.username or ""), unquote(parts.password or ""))
    return None


def _pip_addresses(env: HostEnvironment) -> Iterator[tuple[str, str]]:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        yield from ((name, word) for word in env.environ.get(name, "").split())
    for path in (env.home / ".pip/pip.conf", env.config_home / "pip/pip.conf"):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(_text(path))
        except configparser.Error:
            continue  # pip says so; `allowlist` tells it, too
        words = [
            word
            for section in parser.sections()
            for option in ("index-url", "extra-index-url")
            for word in parser.get(section, option, fallback="").split()
        ]
        if any("@" in word for word in words):
            read_private(path, home=env.home, follow=True)
        yield from ((str(path), word) for word in words)


def _in_npmrc(env: HostEnvironment, url: str) -> RegistryCredential | None:
    """What npm would send to `url`: the entry for its nearest path (npmrc(5), "Auth related configuration")."""
    named = next((env.environ[name] for name in env.environ if name.lower() == "npm_config_userconfig"), "")
    path = Path(named) if named.startswith("/") else env.home / ".npmrc"
    found: dict[str, str] = {}
    for line in _text(path).splitlines():
        key, equals, value = line.partition("=")
        place, _, name = key.strip().rpartition(":")
        if equals and name in _NPM_KEYS and place.startswith("//"):
            plain = re.sub(
                r"\$\{([^}]+)\}", lambda match: env.environ.get(match[1], ""), value.strip().strip("\"'")
            )
            found[f"{place.rstrip('/')}:{name}"] = plain
    nearest = f"//{url.partition('://')[2]}".rstrip("/")
    while nearest.count("/") >= 2:
        one = {name: found.get(f"{nearest}:{name}", "") for name in _NPM_KEYS}
        if any(one.values()):
            read_private(path, home=env.home, follow=True)
            return _npm_login(str(path), one)
        nearest = nearest.rpartition("/")[0]
    return None


def _npm_login(source: str, one: dict[str, str]) -> RegistryCredential | None:
    if one["_authToken"]:
        return bearer(source, one["_authToken"])
    try:
        if one["_auth"]:
            user, _, password = base64.b64decode(one["_auth"], validate=True).decode().partition(":")
            return basic(source, user, password)
        if one["username"] and one["_password"]:
            return basic(source, one["username"], base64.b64decode(one["_password"], validate=True).decode())
    except (binascii.Error, UnicodeDecodeError):
        raise CredentialError(f"a login in {source} is not base64", hint="Log in again with npm.") from None
    return None


def _in_netrc(env: HostEnvironment, url: str) -> RegistryCredential | None:
    """The entry for the host, never the one for all others."""
    named = env.environ.get("NETRC", "")
    path = Path(named) if named.startswith("/") else env.home / ".netrc"
    host = urlsplit(url).hostname or ""
    if host not in _text(path):
        return None
    read_private(path, home=env.home, follow=True)
    try:
        found = netrc.netrc(str(path)).hosts.get(host)
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        raise CredentialError(f"{path} is not understood", hint="Correct it: see netrc(5).") from None
    return basic(str(path), found[0], found[2] or "") if found is not None else None


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(MAX_FILE).decode("utf-8", "replace")
    except OSError:
        return ""


def _require_plain(source: str, value: str) -> None:
    """Raises CredentialError for what could end a header."""
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise CredentialError(f"{source} holds what no request can carry", hint="Set it again.")


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)


def _below(path: str, base: str) -> bool:
    base = base.rstrip("/")
    return path.rstrip("/") == base or path.startswith(f"{base}/")
