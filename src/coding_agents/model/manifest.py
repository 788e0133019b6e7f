"""What an agent is: how it is called, which pinned program its image holds, what it needs at its first start.

A manifest is a TOML file read into frozen values by a closed schema. It holds no secret: where an agent
insists on a key, `endpoint` has a dummy, and the real one is added outside the container.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from coding_agents.errors import ManifestError
from coding_agents.model.mcp import McpPlace, place_problems
from coding_agents.model.packages import Package, Pin, package_problems
from coding_agents.model.provider import Login, ModelService, login_problems, service_problems
from coding_agents.model.suggest import close_to

PROMPT = "{prompt}"
"""Stands for the user's task in `command.headless`."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOST = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]")
_GLOB = re.compile(r"[A-Za-z0-9._*/-]+")
_RESERVED = ("base", "npm", "proxy")  # images of ours that are not agents
_SECRET_PREFIXES = ("sk-", "ghp_", "gho_", "github_pat_", "glpat-", "xoxb-", "AKIA", "AIza")
_DUMMY = "replaced-by-coding-agents-on-the-host"  # some agents want a prefix before it


class AgentCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The agent's argv on a terminal, and for one task; exactly one word of the latter holds `{prompt}`.

    `resume` is the argv on a terminal that goes on with the last conversation. It is taken where a file below the
    home directory matches the glob `remembered`, which tells that there is one.
    """

    interactive: tuple[str, ...]
    headless: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    remembered: str = ""


class AgentManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One agent.

    `packages` are unpacked while its image is built, each into the directory of its key. `env` is set in every
    session; `endpoint` leads to the host's model broker. `first_run` seeds files of the home directory (path: text, or
    a table that is written as JSON), so that an unattended start meets no question; `instructions` is the file
    there in which the agent looks for its user's instructions. `model_hosts` are its provider's, `domains` what else
    it needs to reach. `model` is what the host's model broker serves it with, `login` the kinds of account that it
    may be served for, the first one that the user has being taken. `mcp` is how it is given MCP servers.
    """

    name: str
    title: str
    command: AgentCommand
    packages: Mapping[str, Package] = {}
    env: Mapping[str, str] = {}
    endpoint: Mapping[str, str] = {}
    first_run: Mapping[str, str | dict[str, Any]] = {}
    instructions: str = ""
    model_hosts: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    model: ModelService | None = None
    login: tuple[Login, ...] = ()
    mcp: McpPlace | None = None

    def pins(self) -> tuple[Pin, ...]:
        """What the image is built from: a row for each package and processor."""
        return tuple(pin for name in sorted(self.packages) for pin in self.packages[name].pins(name))

    def endpoint_of(self, login: Login | None) -> Mapping[str, str]:
        """The variables that lead to the host's model broker, for a session whose requests are by `login`."""
        return (login.endpoint if login is not None else {}) or self.endpoint

    def interactive_argv(self) -> tuple[str, ...]:
        return self.command.interactive

    def resume_argv(self, args: Sequence[str] = ()) -> tuple[str, ...]:
        """The argv of a later start, with `args`: on with the last conversation if there is one, else a new one."""
        new = with_args(self.command.interactive, args)
        if not self.command.resume:
            return new
        resume, anew = shlex.join(with_args(self.command.resume, args)), shlex.join(new)
        found = f'for file in "$HOME"/{self.command.remembered}; do [ ! -e "$file" ] || exec {resume}; done'
        return ("sh", "-c", f"{found}; exec {anew}")

    def headless_argv(self, prompt: str) -> tuple[str, ...]:
        """The argv that does one task and ends. Raises ManifestError if this agent has no such mode."""
        if not self.command.headless:
            raise ManifestError(
                f"agent {self.name!r} has no headless command",
                hint="Start it without --prompt, or add command.headless to its manifest.",
            )
        return tuple(word.replace(PROMPT, prompt) for word in self.command.headless)

    def seed_files(self) -> dict[str, bytes]:
        """Content of each first-run file by its path in the home directory."""
        return {path: _seed_bytes(content) for path, content in self.first_run.items()}


def with_args(argv: tuple[str, ...], args: Sequence[str]) -> tuple[str, ...]:
    """A command with more words behind its first one."""
    return (*argv[:1], *args, *argv[1:])


def parse_manifest(data: bytes, *, origin: str) -> AgentManifest:
    """A checked manifest from TOML. Raises ManifestError naming `origin`, the key and a close known key."""
    try:
        raw = tomllib.loads(data.decode("utf-8"))
        manifest = msgspec.convert(raw, AgentManifest)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ManifestError(f"{origin} is not valid TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ManifestError(f"{origin}: {_lowered(str(error))}", hint=_suggestion(str(error))) from error
    problem = next(_problems(manifest), None)
    if problem is not None:
        raise ManifestError(f"{origin}: {problem}")
    return manifest


def _problems(manifest: AgentManifest) -> Iterator[str]:
    yield from _identity_problems(manifest)
    yield from _command_problems(manifest.command)
    for name, package in manifest.packages.items():
        yield from package_problems(f"packages.{name}", name, package)
    for table, variables in (("env", manifest.env), ("endpoint", manifest.endpoint)):
        yield from _variable_problems(table, variables)
    seeded = (manifest.instructions,) if manifest.instructions else ()
    for key, paths in (("first_run", manifest.first_run), ("instructions", seeded)):
        yield from (
            f"{key}: {path!r} is not a path below the home directory" for path in paths if not _inside(path)
        )
    if manifest.instructions in manifest.first_run:
        yield f"instructions: first_run seeds {manifest.instructions!r}, too"
    for key, hosts in (("model_hosts", manifest.model_hosts), ("domains", manifest.domains)):
        yield from (f"{key}: {host!r} is not a host name" for host in hosts if not _HOST.fullmatch(host))
    yield from _provider_problems(manifest)
    if manifest.mcp is not None:
        yield from place_problems(manifest.mcp)
        yield from _variable_problems("mcp.env", manifest.mcp.env)


def _provider_problems(manifest: AgentManifest) -> Iterator[str]:
    if manifest.model is None:
        if manifest.login or manifest.endpoint:
            yield "login and endpoint need a [model] table: they are for its service"
        return
    yield from service_problems(manifest.model, manifest.model_hosts)
    for login in manifest.login:
        yield from login_problems(login, manifest.model_hosts)
        yield from _variable_problems("login.endpoint", login.endpoint)
        if login.file and not _inside(login.file):
            yield f"login.file {login.file!r} is not a path below the home directory"


def _identity_problems(manifest: AgentManifest) -> Iterator[str]:
    if not _NAME.fullmatch(manifest.name):
        yield f"name {manifest.name!r} is not lower-case letters, digits and '-' (at most 31)"
    if manifest.name in _RESERVED:
        yield f"name {manifest.name!r} is reserved"
    if not manifest.title.strip() or not manifest.title.isprintable():
        yield "title is empty or not printable"


def _command_problems(command: AgentCommand) -> Iterator[str]:
    if not command.interactive or not command.interactive[0]:
        yield "command.interactive is empty"
    if any(PROMPT in word for word in (*command.interactive, *command.resume)):
        yield f"command.interactive or command.resume holds {PROMPT}, which only command.headless may"
    if command.headless and sum(word.count(PROMPT) for word in command.headless) != 1:
        yield f"command.headless must hold {PROMPT} exactly once"
    if any("\0" in word for word in (*command.interactive, *command.headless, *command.resume)):
        yield "command holds a NUL character"
    if bool(command.resume) != bool(command.remembered):
        yield "command.resume and command.remembered need each other"
    if command.remembered and not (_inside(command.remembered) and _GLOB.fullmatch(command.remembered)):
        yield f"command.remembered {command.remembered!r} is not a plain glob below the home directory"


def _variable_problems(table: str, variables: Mapping[str, str]) -> Iterator[str]:
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name):
            yield f"{table}: {name!r} is not the name of an environment variable"
        if "\0" in value:
            yield f"{table}.{name} holds a NUL character"
        if value.startswith(_SECRET_PREFIXES) and not value.endswith(_DUMMY):
            yield f"{table}.{name} looks like a real credential, which a manifest must never hold"


def _inside(path: str) -> bool:
    parts = path.split("/")
    return bool(path) and all(part not in ("", ".", "..") for part in parts) and path.isprintable()


def _seed_bytes(content: str | dict[str, Any]) -> bytes:
    if isinstance(content, str):
        return content.encode("utf-8")
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


_KNOWN = {
    "": AgentManifest.__struct_fields__,
    "command": AgentCommand.__struct_fields__,
    "mcp": McpPlace.__struct_fields__,
    "model": ModelService.__struct_fields__,
}


def _suggestion(message: str) -> str:
    """A hint for an unknown key, from msgspec's message "… unknown field `X` - at `$.TABLE`"."""
    found = re.search(r"unknown field `([^`]*)`(?: - at `\$\.([^`]*)`)?", message)
    if found is None:
        return ""
    table = found[2] or ""
    known = Package.__struct_fields__ if table.startswith("packages[") else _KNOWN.get(table, ())
    close = close_to(found[1], known)
    return f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]
