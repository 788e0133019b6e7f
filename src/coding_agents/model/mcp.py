"""What an MCP server is to us, and where an agent's CLI looks for its servers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import msgspec

McpFormat = Literal["claude", "codex", "copilot", "gemini", "opencode", "generic"]
"""Whose spelling a list of servers is written in; `generic` is that of the seed's `mcp/config.json`."""

FORMATS: tuple[McpFormat, ...] = get_args(McpFormat)

FILE = "{file}"
"""Stands for the path of the list in a manifest's `mcp.args` and `mcp.env`."""

SERVERS = "{servers}"
"""Stands in `mcp.args` for the names of the servers that a session gets, with commas between them."""

GIVEN_FILE = "mcp.json"
"""In a session's directory: the servers with a secret that it was given. Without any there is none."""

_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9-]*(\.[a-z0-9]+)+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class McpServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One server: a program that speaks over its standard streams (`command`), or an address (`url`).

    Values of `args`, `env`, `url` and `headers` may hold references `${NAME}` and `${NAME:-default}` to secrets;
    `bearer_token_env_var` is the name of a secret that is sent as a bearer token.
    """

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    url: str = ""
    headers: Mapping[str, str] = {}
    bearer_token_env_var: str = ""
    enabled: bool = True


class McpPlace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an agent's CLI is given its servers.

    `file` is the name of the list in the read-only configuration volume. `args` go right behind the first word of the
    agent's command and `env` into its environment, `{file}` in them being the file's path; both only while there is
    such a file. `always` makes one also where no server is trusted. Words of `args` with `{servers}` are there in every
    session: the names, and where there are none a word that nobody can have given to a server.
    """

    file: str
    format: McpFormat
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    always: bool = False

    def as_given(
        self, file: str, servers: Sequence[str], *, nobody: str
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """The words and variables of a session with `servers` whose list is at the path `file` ("" without one).

        `nobody` is the word for no servers, which a repository must not be able to foresee.
        """
        names = ",".join(servers) if file and servers else nobody
        args = [
            word.replace(SERVERS, names).replace(FILE, file) for word in self.args if file or SERVERS in word
        ]
        return tuple(args), {name: value.replace(FILE, file) for name, value in self.env.items() if file}


def is_server_name(text: str) -> bool:
    """Whether `text` may name a server: it becomes a key of JSON and TOML, a prefix of tools and a file name.

    `__` separates server and tool in the names that models see, so it would let one server pass for another.
    """
    return _SERVER_NAME.fullmatch(text) is not None and "__" not in text


def is_variable(text: str) -> bool:
    """Whether `text` is the name of an environment variable."""
    return _VARIABLE.fullmatch(text) is not None


def place_problems(place: McpPlace) -> list[str]:
    """What is wrong with a manifest's `[mcp]` table."""
    problems = []
    if not _FILE_NAME.fullmatch(place.file):
        problems.append(f"mcp.file {place.file!r} is not the name of a file in lower case with a suffix")
    if any("\0" in word for word in place.args):
        problems.append("mcp.args holds a NUL character")
    if any(FILE in word and SERVERS in word for word in place.args):
        problems.append(
            f"a word of mcp.args holds both {FILE} and {SERVERS}, which are not always both there"
        )
    return problems
