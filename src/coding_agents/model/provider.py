"""Whom an agent asks: the API of its model's provider, and the ways in which a user is known there.

Constants of the manifest. Nothing of a request from inside a container chooses where it goes or who it is from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

Api = Literal["anthropic", "openai", "gemini"]
LoginKind = Literal["api-key", "oauth"]

_HEADER = re.compile(r"[a-z][a-z0-9-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UPSTREAM = re.compile(r"https://([a-z0-9.-]+)(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._-]+)*")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


class ModelService(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The one service that the host's model broker reaches for an agent.

    `api` says how its requests are read and judged; `upstream` is `https://HOST[:PORT][/PREFIX]`.
    """

    api: Api
    upstream: str


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One kind of account, as the host shows it to the provider.

    The credential goes into `header`, after `scheme` and a space if there is one. `env` names the host's variables
    that may hold it; `file` is where the agent's own program keeps it on the host, below the home directory.
    `upstream` takes the place of the service's for such an account; `headers` go along with each request.
    """

    kind: LoginKind
    header: str
    scheme: str = ""
    env: tuple[str, ...] = ()
    file: str = ""
    upstream: str = ""
    headers: Mapping[str, str] = {}


def service_problems(service: ModelService, hosts: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with `[model]`; `hosts` are the manifest's `model_hosts`."""
    yield from _upstream_problems("model.upstream", service.upstream, hosts)


def login_problems(login: Login, hosts: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with one `[[login]]`."""
    if not _HEADER.fullmatch(login.header):
        yield f"login.header {login.header!r} is not the lower-case name of a header"
    if login.scheme and not login.scheme.isalpha():
        yield f"login.scheme {login.scheme!r} is not one word"
    yield from (
        f"login.env: {name!r} is not the name of an environment variable"
        for name in login.env
        if not _VARIABLE.fullmatch(name)
    )
    for name, value in login.headers.items():
        if not _HEADER.fullmatch(name) or not _VALUE.fullmatch(value):
            yield f"login.headers: {name!r} is not a header with printable text"
    if login.upstream:
        yield from _upstream_problems("login.upstream", login.upstream, hosts)


def _upstream_problems(key: str, url: str, hosts: tuple[str, ...]) -> Iterator[str]:
    match = _UPSTREAM.fullmatch(url)
    if match is None or ".." in url:
        yield f"{key} {url!r} is not of the form https://HOST[:PORT][/PREFIX]"
    elif match[1] not in hosts:
        yield f"{key}: {match[1]} is not among model_hosts"
