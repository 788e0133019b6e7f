"""The workspace's own servers: the `[mcp_servers.NAME]` tables of a TOML file. Pure.

`config.toml` is also the file of other programs: only these tables are ours, and a file without one is no business
of ours, whatever is in it.
"""

from __future__ import annotations

import re
import tomllib

import msgspec

from coding_agents.mcp.schema import MAX_SERVERS, Problem, check_server, shown
from coding_agents.model.mcp import McpServer

PLACES = (".coding-agents/mcp.toml", "config.toml")
"""Where they may stand, below the root of the repository; the first one is ours alone."""

MAX_FILE = 256 * 1024
"""Bytes of a file that is read."""

TABLE = "mcp_servers"
_HEADER = re.compile(rf"\s*\[\s*{TABLE}\s*(?:\.\s*(?P<name>[^\]]*?)\s*)?\]")
_ANY_HEADER = re.compile(r"\s*\[")
_BARE = re.compile(
    r"""\s*(?:"(?P<basic>[^"]*)"|'(?P<literal>[^']*)'|(?P<bare>[A-Za-z0-9_-]+))\s*(?:[.=]|$)"""
)


class Finding(msgspec.Struct, frozen=True):
    """What is wrong in a file of the repository: where, and what. `line` is 0 where no line can be named."""

    file: str
    line: int
    key: str
    text: str

    def describe(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class Parsed(msgspec.Struct, frozen=True):
    """The servers of one file, and what is wrong with others in it."""

    servers: tuple[McpServer, ...] = ()
    findings: tuple[Finding, ...] = ()


def parse_workspace_file(data: bytes, *, file: str) -> Parsed:
    """The servers in the TOML `data` of the file at the path `file`. Never raises."""
    try:
        text = data.decode("utf-8")
        tables = tomllib.loads(text).get(TABLE, {})
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        if file != PLACES[0] and TABLE.encode() not in data:
            return Parsed()
        found = re.search(r"at line (\d+)", str(error))
        reason = str(error) or "it is nested too deeply"
        return Parsed(
            findings=(Finding(file, int(found[1]) if found else 0, "", f"is not valid TOML: {reason}"),)
        )
    if not isinstance(tables, dict):
        return Parsed(findings=(Finding(file, 0, TABLE, "is not a table of servers"),))
    if len(tables) > MAX_SERVERS:
        problem = f"holds {len(tables)} servers, more than {MAX_SERVERS}: none of them is taken"
        return Parsed(findings=(Finding(file, 0, TABLE, problem),))
    return _checked(tables, text, file)


def _checked(tables: dict[str, object], text: str, file: str) -> Parsed:
    lines = _Lines(text)
    servers: list[McpServer] = []
    findings: list[Finding] = []
    taken: set[str] = set()
    for name, table in tables.items():
        server, problems = check_server(name, table)
        if server is not None and name.casefold() in taken:
            server, problems = None, [Problem("", "differs from another server's name in case alone")]
        taken.add(name.casefold())
        table_key = f"{TABLE}.{shown(name)}"
        findings += [
            Finding(
                file, lines.of(name, one.key), f"{table_key}.{one.key}" if one.key else table_key, one.text
            )
            for one in problems
        ]
        if server is not None:
            servers.append(server)
    return Parsed(tuple(servers), tuple(findings))


class _Lines:
    """Where keys stand. A guess made of lines, for messages only: tomllib does not tell."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")

    def of(self, server: str, key: str) -> int:
        """The line (from 1) of `key` of the server, of its table when it is not found, else 0."""
        wanted = key.partition(".")
        table = inside = ""
        found = 0
        for number, line in enumerate(self._lines, 1):
            if _ANY_HEADER.match(line):
                header = _HEADER.match(line)
                parts = _words(header["name"] or "") if header else []
                inside = parts[0] if parts else ""
                table = ".".join(parts[1:])
                if inside == server and table in ("", wanted[0]):
                    found = number
                continue
            if inside == server and _key_of(line) == (
                wanted[2] if table and table == wanted[0] else wanted[0]
            ):
                return number
        return found


def _words(dotted: str) -> list[str]:
    words = []
    while match := _BARE.match(dotted):
        words.append(match["basic"] or match["literal"] or match["bare"] or "")
        dotted = dotted[match.end() :]
    return words


def _key_of(line: str) -> str:
    match = _BARE.match(line)
    return (match["basic"] or match["literal"] or match["bare"] or "") if match else ""
