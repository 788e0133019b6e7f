"""MCP servers of a repository: what is there, in which state, and trusting one."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec.structs import replace

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.secrets import names_set
from coding_agents.errors import McpError
from coding_agents.mcp.find import Found, Placed, find_servers
from coding_agents.mcp.formats import convert
from coding_agents.mcp.locked import RUNNERS, UNPINNED, Lock
from coding_agents.mcp.pin import Pinned, files_named, pin
from coding_agents.mcp.references import Resolve, Settled, settle
from coding_agents.mcp.seam import NotStarted, Packaged, Run, as_run, without_runner
from coding_agents.mcp.trust import State, TrustRecord, TrustStore, changes, state_of
from coding_agents.model.mcp import McpFormat, McpServer, is_server_name
from coding_agents.model.repo import RepoFacts
from coding_agents.sandbox.guest import CONFIG_DIRECTORY
from coding_agents.workspace.deny import load_deny_list
from coding_agents.workspace.source import Source, paths_of
from coding_agents.workspace.tree import Tree

if TYPE_CHECKING:  # a launch without such servers must not pay for it
    from coding_agents.mcp.runners import Runner

COPIES = f"{CONFIG_DIRECTORY}/servers"
"""Where the copies of trusted servers' files are in a container."""

Status = Literal[
    "trusted", "untrusted", "changed", "needs secret", "not started", "disabled", "invalid", "seen"
]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a repository names. `what` is server, hooks, plugin or unreadable; `detail` lines say why."""

    file: str
    what: str
    name: str
    state: Status
    runs: str = ""
    detail: tuple[str, ...] = ()


class Trusting(msgspec.Struct, frozen=True):
    """A server as it is now, to be shown and trusted; `changes` are lines on what differs from what was trusted.

    `needs` are the names of its secrets, `unstarted` why it is not started with them ("": it is). `runner` is what it
    asks of a package index, and `packages` what that is: both None for a server that asks none.
    """

    placed: Placed
    pinned: Pinned
    needs: tuple[str, ...]
    changes: tuple[str, ...]
    unstarted: str = ""
    runner: Runner | None = None
    packages: Lock | None = None


class Workbench:
    """The servers of one repository with the user's trust in them. Made by `workbench`."""

    def __init__(self, env: HostEnvironment, repo: RepoFacts, tree: Tree) -> None:
        self._repo = repo
        self.tree = tree
        self._source = Source(repo, env.for_git())
        self._resolve = secrets_of(env)
        self.store = TrustStore(env.data_dir, repo.repo_id)
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
        settled = self.settled(named[0].server)
        runner = _runner(named[0].server)
        looked = Trusting(
            named[0],
            self.pinned(settled),
            settled.needs,
            (),
            self.unstarted(settled) if settled.needs else "",
            runner,
        )
        return replace(looked, changes=self._changes(looked))

    def with_packages(self, one: Trusting, packages: Lock) -> Trusting:
        """`one` with its packages, which are then trusted, too."""
        one = replace(one, packages=packages)
        return replace(one, changes=self._changes(one))

    def _changes(self, one: Trusting) -> tuple[str, ...]:
        record = self.store.load(one.placed.server.name)
        return (
            ()
            if record is None
            else tuple(changes(record, one.placed.server, one.pinned.files, one.packages))
        )

    def trust(self, one: Trusting) -> TrustRecord:
        """Trust what was shown. Raises McpError for packages that nobody has pinned, StoreError."""
        server = one.placed.server
        if one.runner is not None and one.packages is None:
            raise McpError(f"the packages of server {server.name!r} are not pinned")
        path = str(self._repo.work_tree)
        now_ms = time.time_ns() // 1_000_000
        return self.store.save(path, one.placed.file, server, one.pinned, one.packages, now_ms=now_ms)

    def remove(self, name: str) -> bool:
        """Trust the server `name` no more; whether it was trusted. Raises StoreError."""
        return is_server_name(name) and self.store.remove(name)

    def conversion(self, format: McpFormat) -> tuple[bytes, list[NotStarted]]:
        """The list of all servers of the workspace as it would be once they are trusted, and what cannot be in it."""
        runs, left = [], []
        for placed in self.found.servers:
            settled = self.settled(placed.server)
            try:
                got = self.run(settled, self.store.load(placed.server.name), format)
            except McpError as error:
                left.append(NotStarted(placed.server.name, error.message))
                continue
            if isinstance(got, NotStarted):
                left.append(got)
            else:
                runs.append(got.listed)
        return convert(runs, format), left

    def state(self, placed: Placed, settled: Settled, record: TrustRecord | None) -> State:
        """Whether exactly what is there now is trusted. Raises McpError for files and packages that cannot be run."""
        if record is None:
            return "untrusted"  # its files need not be read for that
        packaged = _runner(placed.server) is not None
        return state_of(record, placed.file, placed.server, self.pinned(settled).files, packaged=packaged)

    def pinned(self, settled: Settled) -> Pinned:
        """The files that a server runs from the repository, as they are now. Raises McpError."""
        deny = load_deny_list()

        def denied(path: str) -> bool:
            return deny.matches(path) or deny.depends_on_content(path)

        return pin(self._own_words(settled), self.tree, self._files_below, denied)

    def settled(self, server: McpServer) -> Settled:
        """`server` with the defaults of secrets that are not set."""
        return settle(server, self._resolve)

    def unstarted(self, settled: Settled) -> str:
        """Why a server is not started, whoever trusted it; "" when it can be. Raises McpError."""
        got = self.run(settled, None, "generic")
        return got.reason if isinstance(got, NotStarted) else ""

    def run(self, settled: Settled, record: TrustRecord | None, format: McpFormat) -> Run | NotStarted:
        """What the CLI of `format` runs for a server; `record` pins its packages, UNPINNED without. Raises McpError."""
        packaged = _packaged(settled.server, record.packages if record is not None else None)
        named = files_named(self._own_words(settled), self.tree)
        return as_run(settled, named, copied_to=COPIES, format=format, packaged=packaged)

    def _own_words(self, settled: Settled) -> McpServer:
        """The server without the words that name packages: no files, whatever the repository calls its own."""
        packaged = _packaged(settled.server, None)
        return settled.server if packaged is None else without_runner(settled.server, packaged)

    def _seen(self, placed: Placed) -> Seen:
        server, settled = placed.server, self.settled(placed.server)
        record = self.store.load(server.name)
        detail: list[str] = []
        state: Status
        try:
            state = self.state(placed, settled, record)
            if state == "changed" and record is not None:
                detail += changes(record, server, self.pinned(settled).files)
            self._own_words(settled)
        except McpError as error:
            state, detail = "invalid", [error.message]
        if state == "trusted" and not server.enabled:
            state = "disabled"
        elif settled.needs and state != "invalid":
            reason = self.unstarted(settled)
            if state == "trusted" and reason:
                state = "needs secret" if settled.missing else "not started"
            detail.append(reason or f"is given the secrets {', '.join(settled.needs)}, as a user of its own")
        if state == "trusted" and record is not None and record.packages is not None:
            detail.append(f"runs {record.packages.describe()}")
        runs = server.url or " ".join((server.command, *server.args))
        return Seen(
            file=placed.file, what="server", name=server.name, state=state, runs=runs, detail=tuple(detail)
        )

    def _files_below(self, directories: Sequence[str]) -> Collection[str]:
        """What git shows of these places."""
        wanted = [f":(top,literal){path}" for path in directories]
        listed = self._source.git(
            ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *wanted]
        )
        return frozenset(paths_of(listed.stdout))


@contextmanager
def workbench(env: HostEnvironment, repo: RepoFacts) -> Iterator[Workbench]:
    """The servers of `repo`, whose work tree stays open for the block. Raises McpError without a work tree."""
    if repo.work_tree is None:
        raise McpError(
            f"{repo.name} has no work tree", hint="MCP servers are read from a work tree on this host."
        )
    with Tree(repo.work_tree) as tree:
        yield Workbench(env, repo, tree)


def _runner(server: McpServer) -> Runner | None:
    """What `server` runs of a package index. Raises McpError for words that are not understood."""
    if server.command not in RUNNERS:
        return None
    from coding_agents.mcp.runners import runner_of

    return runner_of(server.command, server.args)


def _packaged(server: McpServer, lock: Lock | None) -> Packaged | None:
    runner = _runner(server)
    return None if runner is None else Packaged(lock.run if lock is not None else UNPINNED, runner.skip)


def trusted_packages(env: HostEnvironment) -> frozenset[str]:
    """The digests of all packages that servers of this user's repositories are trusted with."""
    names = sorted((env.data_dir / "mcp").glob("*/*.json"))
    records = (TrustStore(env.data_dir, path.parent.name).load(path.stem) for path in names)
    return frozenset(one.packages.digest for one in records if one is not None and one.packages is not None)


def secrets_of(env: HostEnvironment) -> Resolve:
    """Which secrets are set, by name. Raises CredentialError, when asked, for a file of them that cannot be read.

    A value is needed when a server starts, and by the supervisor: so none is read, and no program is asked for one.
    """

    @cache
    def names() -> frozenset[str]:
        return names_set(env)

    return lambda name: "" if name in names() else None
