"""Package indexes that the host asks on behalf of a session: how the user writes one, and how it is named inside.

An entry is `URL [files=URL]... [secret=NAME] [user=NAME]`: the index, further places of its files, and whose credential
goes with requests to it. Inside, each place is a first part of paths on one loopback port: `/pip1`, `/pip1-files1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import msgspec

Kind = Literal["pip", "npm"]
KINDS: tuple[Kind, ...] = get_args(Kind)

GIVEN_FILE = "registry.json"
"""In a session's directory: the entries that it was given. Without any there is none."""

_URL = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[1-9][0-9]{0,4})?((?:/[A-Za-z0-9._~@+-]+)*)/?")
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|\[::1\]")
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_USER = re.compile(r"[A-Za-z0-9_.@+-]{1,100}")
_MAX_FILES = 8
_NPM = {  # no requests that send something, and no address of ours in a lock file
    "npm_config_audit": "false", "npm_config_fund": "false", "npm_config_update_notifier": "false",
    "npm_config_omit_lockfile_registry_resolved": "true",
}  # fmt: skip


class Registry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One index: addresses without a slash at their ends, and the name of a secret, "" for the host's own login there.

    `user` makes the credential a user's password, else it is a bearer token with npm and the password of pip's.
    """

    kind: Kind
    index: str
    files: tuple[str, ...] = ()
    secret: str = ""
    user: str = ""

    @property
    def text(self) -> str:
        """The entry in its one spelling."""
        words = [self.index, *(f"files={url}" for url in self.files)]
        words += [
            f"{name}={value}" for name, value in (("secret", self.secret), ("user", self.user)) if value
        ]
        return " ".join(words)


def parse_registry(kind: Kind, text: str) -> Registry:
    """The entry that `text` spells. Raises ValueError, whose message repeats no word that may hold a password."""
    words = text.split() if text.isprintable() and len(text) <= 2000 else []
    if not words:
        raise ValueError("an index is written as https://HOST[:PORT]/PATH")
    files: list[str] = []
    named: dict[str, str] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or name not in ("files", "secret", "user") or (name != "files" and name in named):
            raise ValueError(
                "after the address of an index: files=URL, secret=NAME and user=NAME, nothing else"
            )
        if name == "files":
            files.append(_address(value))
        else:
            named[name] = value
    if "secret" in named and not _SECRET.fullmatch(named["secret"]):
        raise ValueError("secret=NAME is the name of a secret: keep it with `coding-agents secrets set NAME`")
    if "user" in named and (not _USER.fullmatch(named["user"]) or "secret" not in named):
        raise ValueError("user=NAME is the user of the secret in secret=NAME")
    if len(files) > _MAX_FILES:
        raise ValueError(f"an index has at most {_MAX_FILES} places of files")
    return Registry(kind=kind, index=_address(words[0]), files=tuple(files), **named)


def registries(pip: Iterable[str], npm: Iterable[str]) -> tuple[Registry, ...]:
    """The entries of the settings `registry.pip` and `registry.npm`, which are in their one spelling."""
    return (*(parse_registry("pip", text) for text in pip), *(parse_registry("npm", text) for text in npm))


def labelled(entries: Iterable[Registry]) -> Mapping[str, tuple[Registry, str]]:
    """The places of all entries by their names inside: which entry, and the address."""
    found: dict[str, tuple[Registry, str]] = {}
    numbers = dict.fromkeys(KINDS, 0)
    for entry in entries:
        numbers[entry.kind] += 1
        label = f"{entry.kind}{numbers[entry.kind]}"
        found[label] = (entry, entry.index)
        found |= {f"{label}-files{number}": (entry, url) for number, url in enumerate(entry.files, 1)}
    return found


def environment(entries: Iterable[Registry], port: int) -> dict[str, str]:
    """What leads pip and npm inside to these indexes, on `port` of loopback."""
    urls: dict[str, list[str]] = {kind: [] for kind in KINDS}
    found = {}
    for label, (entry, url) in labelled(entries).items():
        if url == entry.index:
            urls[entry.kind].append(f"http://127.0.0.1:{port}/{label}{path_of(url)}/")
        if entry.kind == "npm" and not path_of(entry.index):
            # Addresses of it in lock files lead here, too. npm puts a path of the registry before theirs.
            found["npm_config_replace_registry_host"] = entry.index.partition("://")[2].partition(":")[0]
    if pip := urls["pip"]:
        found |= {"PIP_INDEX_URL": pip[0], "PIP_EXTRA_INDEX_URL": " ".join(pip[1:])}
    if npm := urls["npm"]:
        found |= {"npm_config_registry": npm[0], "npm_config_maxsockets": "8", **_NPM}
    return {name: value for name, value in found.items() if value}


def path_of(url: str) -> str:
    """The path of an entry's address, "" for the root."""
    _, slash, path = url.partition("://")[2].partition("/")
    return slash + path


def _address(text: str) -> str:
    """An address in its one spelling, without a slash at its end. Raises ValueError."""
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise ValueError("an address holds no user and no password: keep them with secret=NAME and user=NAME")
    match = _URL.fullmatch(text)
    if match is None or any(part in (".", "..") for part in match[4].split("/")):
        raise ValueError("an index is written as https://HOST[:PORT]/PATH, in lower case up to the path")
    if match[1] == "http" and not _LOOPBACK.fullmatch(match[2]):
        raise ValueError("http would carry the credential in the clear: only this machine's own is http://")
    return text.rstrip("/")
