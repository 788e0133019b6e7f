"""MCP servers of a repository: what is there and in which state, trusting one, and what a session gets."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec

from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import McpError
from coding_agents.mcp.find import Found, Placed, find_servers
from coding_agents.mcp.formats import convert
from coding_agents.mcp.pin import Pinned, files_named, pin
from coding_agents.mcp.references import Resolve, Settled, settle
from coding_agents.mcp.seam import NotStarted, as_run
from coding_agents.mcp.trust import TrustRecord, TrustStore, changes, state_of
from coding_agents.model.mcp import McpFormat, McpPlace, McpServer, is_server_name
from coding_agents.model.repo import RepoFacts
from coding_agents.sandbox.guest import CONFIG_DIRECTORY
from coding_agents.store.files import read_record
from coding_agents.workspace.deny import load_deny_list
from coding_agents.workspace.source import Source, paths_of
from coding_agents.workspace.tree import Tree

COPIES = f"{CONFIG_DIRECTORY}/servers"
"""Where the copies of trusted servers' files are in a container."""

Status = Literal["trusted", "untrusted", "changed", "needs secret", "disabled", "invalid", "seen"]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a repository names. `what` is server, hooks, plugin or unreadable; `detail` lines say why."""

    file: str
    what: str
    name: str
    state: Status
    runs: str = ""
    detail: tuple[str, ...] = ()


class Trusting(msgspec.Struct, frozen=True):
    """A server as it is now, to be shown and trusted; `changes` are lines on what differs from what was trusted."""

    placed: Placed
    pinned: Pinned
    needs: tuple[str, ...]
    changes: tuple[str, ...]


class SessionServers(msgspec.Struct, frozen=True):
    """The trusted servers as the CLI of one agent runs them, and those that it does not get.

    `listing` is the list in the CLI's own format, `seed` the same in that of the seed, `copies` have content and
    executable bit by path in the configuration volume. `left` are servers that stay unstarted, each with its file.
    """

    started: tuple[str, ...] = ()
    listing: bytes = b""
    seed: bytes = b""
    copies: Mapping[str, tuple[bytes, bool]] = {}
    left: tuple[tuple[str, NotStarted], ...] = ()

    def volume(self, place: McpPlace | None) -> dict[str, tuple[bytes, bool]]:
        """The files of the configuration volume of an agent with this `place`; without any it has no volume."""
        if place is None or not (self.started or place.always):
            return {}
        return {place.file: (self.listing, False), **self.copies}

    def seeds(self) -> dict[str, bytes]:
        """The files of the agent's home that the seed has, by path."""
        places = [f".config/{name}/mcp/config.json" for name in ("copilot", "codex", "claude")]
        return {place: self.seed for place in places} if self.started else {}


class Workbench:
    """The servers of one repository with the user's trust in them. Made by `workbench`."""

    def __init__(self, env: HostEnvironment, repo: RepoFacts, tree: Tree) -> None:
        self._repo = repo
        self._tree = tree
        self._source = Source(repo, env.for_git())
        self._resolve = secrets_of(env)
        self._store = TrustStore(env.data_dir, repo.repo_id)
        self.found: Found = find_servers(tree)

    def survey(self) -> list[Seen]:
        """Everything that is there, each with its state."""
        seen = [self._seen(placed) for placed in self.found.servers]
        seen += [
            Seen(file=one.file, what="server", name=one.key, state="invalid", detail=(one.describe(),))
            for one in self.found.findings
        ]
        for one in self.found.supplied:
            if one.server is not None:
                seen.append(self._seen(Placed(one.file, one.server)))
            else:
                state: Status = "seen" if one.kind in ("hooks", "plugin") else "invalid"
                detail = (one.problem,) if one.problem else ()
                seen.append(Seen(file=one.file, what=one.kind, name=one.name, state=state, detail=detail))
        return seen

    def look_at(self, name: str, file: str) -> Trusting:
        """The server `name` (of `file`, when several files name it) as it would be trusted. Raises McpError."""
        named = [placed for placed in self.found.named(name) if not file or placed.file == file]
        if not named:
            where = f" in {file}" if file else ""
            problems = [one.describe() for one in self.found.findings if one.key.split(".")[1:2] == [name]]
            problems += [
                f"{one.file}: {one.problem}"
                for one in self.found.supplied
                if one.name == name and one.problem
            ]
            raise McpError(f"there is no server {name!r} to trust{where}", details="\n".join(problems))
        if len({placed.file for placed in named}) > 1:
            raise McpError(
                f"several files name a server {name!r}: {', '.join(placed.file for placed in named)}",
                hint="Choose one with --file.",
            )
        settled = self._settled(named[0].server)
        pinned = self._pin(settled)
        record = self._store.load(name)
        lines = changes(record, named[0].server, pinned.files) if record is not None else []
        return Trusting(named[0], pinned, settled.needs, tuple(lines))

    def trust(self, one: Trusting) -> TrustRecord:
        """Trust what was shown. Raises StoreError."""
        path = str(self._repo.work_tree)
        now_ms = time.time_ns() // 1_000_000
        return self._store.save(path, one.placed.file, one.placed.server, one.pinned, now_ms=now_ms)

    def remove(self, name: str) -> bool:
        """Trust the server `name` no more; whether it was trusted. Raises StoreError."""
        return is_server_name(name) and self._store.remove(name)

    def for_agent(self, format: McpFormat) -> SessionServers:
        """The trusted servers as the CLI of `format` runs them, with their copies; and all others with the reason."""
        runs: list[McpServer] = []
        copies: dict[str, tuple[bytes, bool]] = {}
        left: list[tuple[str, NotStarted]] = []
        for placed in self._candidates():
            record = self._store.load(placed.server.name)
            got = self._run(placed, record, format)
            if isinstance(got, NotStarted):
                left.append((placed.file, got))
            elif record is not None:
                content = self._store.content(record)
                place = f"servers/{placed.server.name}"
                for file in record.files:
                    copies[f"{place}/{file.path}"] = content[file.path], file.executable
                runs.append(got)
        names = tuple(run.name for run in runs)
        return SessionServers(names, convert(runs, format), convert(runs, "generic"), copies, tuple(left))

    def conversion(self, format: McpFormat) -> tuple[bytes, list[NotStarted]]:
        """The list of all servers of the workspace as it would be once they are trusted, and what cannot be in it."""
        runs, left = [], []
        for placed in self.found.servers:
            settled = self._settled(placed.server)
            try:
                named = files_named(settled.server, self._tree)
            except McpError as error:
                left.append(NotStarted(placed.server.name, error.message))
                continue
            got = as_run(settled, named, copied_to=COPIES, format=format)
            if isinstance(got, NotStarted):
                left.append(got)
            else:
                runs.append(got)
        return convert(runs, format), left

    def _candidates(self) -> list[Placed]:
        """The servers that a session may get, one for each name: the workspace's own win over supplied ones."""
        chosen: dict[str, Placed] = {}
        supplied = [Placed(one.file, one.server) for one in self.found.supplied if one.server is not None]
        for placed in (*self.found.servers, *supplied):
            name = placed.server.name
            record = self._store.load(name)
            if name not in chosen or (record is not None and record.file == placed.file):
                chosen[name] = placed
        return list(chosen.values())

    def _run(self, placed: Placed, record: TrustRecord | None, format: McpFormat) -> McpServer | NotStarted:
        name, settled = placed.server.name, self._settled(placed.server)
        try:
            state = self._state(placed, settled, record)
            if state != "trusted":
                why = "has changed since it was trusted" if state == "changed" else "is not trusted"
                return NotStarted(name, f"{why}: look at it with `coding-agents mcp trust {name}`")
            named = files_named(settled.server, self._tree)
        except McpError as error:
            return NotStarted(name, error.message)
        return as_run(settled, named, copied_to=COPIES, format=format)

    def _seen(self, placed: Placed) -> Seen:
        server, settled = placed.server, self._settled(placed.server)
        record = self._store.load(server.name)
        detail: list[str] = []
        state: Status
        try:
            state = self._state(placed, settled, record)
            if state == "changed" and record is not None:
                detail += changes(record, server, self._pin(settled).files)
        except McpError as error:
            state, detail = "invalid", [error.message]
        if state == "trusted" and not server.enabled:
            state = "disabled"
        elif state == "trusted" and settled.needs:
            state = "needs secret"
        if settled.needs:
            detail.append(f"needs the secrets {', '.join(settled.needs)}: it is not started")
        if settled.missing:
            detail.append(f"not set: {', '.join(settled.missing)}")
        runs = server.url or " ".join((server.command, *server.args))
        return Seen(
            file=placed.file, what="server", name=server.name, state=state, runs=runs, detail=tuple(detail)
        )

    def _state(self, placed: Placed, settled: Settled, record: TrustRecord | None) -> Status:
        if record is None or record.file != placed.file:
            return "untrusted"  # its files need not be read for that
        return state_of(record, placed.file, placed.server, self._pin(settled).files)

    def _pin(self, settled: Settled) -> Pinned:
        deny = load_deny_list()

        def denied(path: str) -> bool:
            return deny.matches(path) or deny.depends_on_content(path)

        return pin(settled.server, self._tree, self._files_below, denied)

    def _files_below(self, directories: Sequence[str]) -> Collection[str]:
        """What git shows of these places."""
        wanted = [f":(top,literal){path}" for path in directories]
        listed = self._source.git(
            ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *wanted]
        )
        return frozenset(paths_of(listed.stdout))

    def _settled(self, server: McpServer) -> Settled:
        return settle(server, self._resolve)


@contextmanager
def workbench(env: HostEnvironment, repo: RepoFacts) -> Iterator[Workbench]:
    """The servers of `repo`, whose work tree stays open for the block. Raises McpError without a work tree."""
    if repo.work_tree is None:
        raise McpError(
            f"{repo.name} has no work tree", hint="MCP servers are read from a work tree on this host."
        )
    with Tree(repo.work_tree) as tree:
        yield Workbench(env, repo, tree)


def session_servers(env: HostEnvironment, repo: RepoFacts, place: McpPlace | None) -> SessionServers:
    """What a session on `repo` gets, whose agent is given its servers as `place` says.

    Raises GitError, McpError for a copy that is not what was trusted.
    """
    if place is None:
        return SessionServers()
    if repo.work_tree is None or not repo.work_tree.is_dir():
        return SessionServers(listing=convert((), place.format))
    with workbench(env, repo) as bench:
        return bench.for_agent(place.format)


def secrets_of(env: HostEnvironment) -> Resolve:
    """Secrets by name from the user's `mcp-secrets.env`: lines `NAME=value`, `#` begins a comment."""
    values: dict[str, str] = {}
    try:
        text = read_record(env.config_dir / "mcp-secrets.env").decode("utf-8", "replace")
    except FileNotFoundError:
        text = ""
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#") and value:
            values[name.strip()] = value.strip().strip("\"'")
    return values.get
