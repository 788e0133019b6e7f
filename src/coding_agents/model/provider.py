"""Whom an agent asks: the API of its model's provider, and the ways in which a user is known there.

Constants of the manifest. Nothing of a request from inside a container chooses where it goes or who it is from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

Api = Literal["anthropic", "openai", "gemini", "copilot"]
LoginKind = Literal["api-key", "oauth"]
LoginFormat = Literal["claude", "codex", "copilot", "gemini", "opencode"]
"""Whose layout a file of logins has."""

_HEADER = re.compile(r"[a-z][a-z0-9-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UPSTREAM = re.compile(r"https://([a-z0-9.-]+)(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._-]+)*")
_ENDPOINT = re.compile(r"https://[a-z0-9.-]+(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._-]+)+")
_PLAIN = re.compile(r"[\x21-\x7e]{1,200}")
_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


class ModelService(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The one service that the host's model broker reaches for an agent.

    `api` says how its requests are read and judged; `upstream` is `https://HOST[:PORT][/PREFIX]`.
    """

    api: Api
    upstream: str


class Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a token of an account is renewed (RFC 6749, 6): the provider's token endpoint, and as which client."""

    url: str
    client_id: str


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One kind of account, as the host shows it to the provider.

    The credential goes into `header`, after `scheme` and a space if there is one. `env` names the host's variables
    that may hold it; `file` is where the agent's own program keeps it on the host, below the home directory, in that
    program's `format`; `entry` is whose login is meant where such a file holds those of several providers.
    `upstream` and `api` take the place of the service's for such an account, and `endpoint` that of the manifest's;
    at `account_upstream` is asked what is about the account itself. `headers` go along with each request, and the
    account's id in `account_header`. `renewal` is for tokens that are coding-agents' own. `command` makes such
    a login in a container, where it writes `file`; `callback` is the loopback's port to which the browser answers, if
    it does.
    """

    kind: LoginKind
    header: str
    scheme: str = ""
    env: tuple[str, ...] = ()
    file: str = ""
    format: LoginFormat | None = None
    entry: str = ""
    upstream: str = ""
    api: Api | None = None
    account_upstream: str = ""
    endpoint: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    account_header: str = ""
    renewal: Renewal | None = None
    command: tuple[str, ...] = ()
    callback: int = 0


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
    if login.account_upstream:
        yield from _upstream_problems("login.account_upstream", login.account_upstream, hosts)
    if not login.upstream and (login.api is not None or login.account_upstream):
        yield "login.api and login.account_upstream are for a login.upstream"
    if login.account_header and not _HEADER.fullmatch(login.account_header):
        yield f"login.account_header {login.account_header!r} is not the lower-case name of a header"
    yield from _file_problems(login)
    yield from _renewal_problems(login)
    yield from _command_problems(login)


def _file_problems(login: Login) -> Iterator[str]:
    if bool(login.file) != (login.format is not None):
        yield "login.file and login.format go together: a file is read in the layout of one program"
    if login.entry and not login.file:
        yield "login.entry is for a login.file"


def _command_problems(login: Login) -> Iterator[str]:
    if login.command and (login.kind != "oauth" or not login.file):
        yield 'login.command is for kind = "oauth" with a login.file, which it is to write'
    if login.callback and not login.command:
        yield "login.callback is for a login.command"
    if login.callback and not 1024 <= login.callback < 65536:
        yield f"login.callback {login.callback} is not a port from 1024 to 65535"


def _renewal_problems(login: Login) -> Iterator[str]:
    if login.renewal is None:
        return
    if login.kind != "oauth":
        yield 'login.renewal is for kind = "oauth"'
    if not _ENDPOINT.fullmatch(login.renewal.url) or ".." in login.renewal.url:
        yield f"login.renewal.url {login.renewal.url!r} is not of the form https://HOST[:PORT]/PATH"
    if not _PLAIN.fullmatch(login.renewal.client_id):
        yield "login.renewal.client_id is not one word of printable ASCII"


def _upstream_problems(key: str, url: str, hosts: tuple[str, ...]) -> Iterator[str]:
    match = _UPSTREAM.fullmatch(url)
    if match is None or ".." in url:
        yield f"{key} {url!r} is not of the form https://HOST[:PORT][/PREFIX]"
    elif match[1] not in hosts:
        yield f"{key}: {match[1]} is not among model_hosts"
