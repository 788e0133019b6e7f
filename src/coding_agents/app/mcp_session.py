"""What a session gets of its repository's MCP servers: the trusted ones, as its agent's CLI runs them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from coding_agents.app.mcp import COPIES, Workbench, workbench
from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import McpError
from coding_agents.mcp.apart import ApartServer
from coding_agents.mcp.find import Placed
from coding_agents.mcp.formats import LIMITS, OVERRIDING, convert, hooks, requirements
from coding_agents.mcp.locked import Lock
from coding_agents.mcp.seam import NotStarted, Run
from coding_agents.mcp.trust import TrustRecord
from coding_agents.model.mcp import McpFormat, McpPlace, McpServer
from coding_agents.model.repo import RepoFacts
from coding_agents.model.runtimes import is_gvisor

Copies = dict[str, tuple[bytes, bool]]


class SessionServers(msgspec.Struct, frozen=True):
    """The trusted servers as the CLI of one agent runs them, and those that it does not get.

    `started` has the digest of what a person trusted by name, `locks` are the packages that these servers run.
    `listing` is the list in the CLI's own format, `limits` what forbids it others (empty where the list does), `seed`
    the list in the format of the seed; `copies` have content and executable bit by path in the configuration volume.
    `apart` are servers that the host runs for the agent, and `left` those that stay unstarted, each with its file.
    """

    started: Mapping[str, str] = {}
    listing: bytes = b""
    limits: bytes = b""
    seed: bytes = b""
    copies: Mapping[str, tuple[bytes, bool]] = {}
    apart: Mapping[str, ApartServer] = {}
    locks: tuple[Lock, ...] = ()
    left: tuple[tuple[str, NotStarted], ...] = ()

    def volume(self, place: McpPlace | None) -> Copies:
        """The files of the configuration volume of an agent with this `place`; without any it has no volume."""
        if place is None or not (self.started or place.always):
            return {}
        limits = {LIMITS[place.format]: (self.limits, False)} if self.limits else {}
        rooted = {path: (content, False) for path, content in hooks(place.format).items()}
        return {place.file: (self.listing, False), **limits, **rooted, **self.copies}

    def seeds(self) -> dict[str, bytes]:
        """The files of the agent's home that the seed has, by path."""
        places = [f".config/{name}/mcp/config.json" for name in ("copilot", "codex", "claude")]
        return {place: self.seed for place in places} if self.started else {}


def session_servers(
    env: HostEnvironment,
    repo: RepoFacts,
    place: McpPlace | None,
    packages: Collection[str] | None = None,
    *,
    runtime: str = "",
) -> SessionServers:
    """What a session on `repo` gets, whose agent is given its servers as `place` says.

    `packages` are the digests of those that are in its image, None for a session whose image is still to be chosen.
    With gVisor as `runtime` no program gets a secret: its /proc shows everybody the environment of all processes.
    Raises GitError, McpError for a copy that is not what was trusted.
    """
    if place is None:
        return SessionServers()
    if repo.work_tree is None or not repo.work_tree.is_dir():
        return SessionServers(listing=convert((), place.format), limits=requirements((), place.format))
    with workbench(env, repo) as bench:
        return _for_agent(bench, place.format, packages, programs_apart=not is_gvisor(runtime))


def _for_agent(
    bench: Workbench, format: McpFormat, packages: Collection[str] | None, *, programs_apart: bool
) -> SessionServers:
    runs: list[Run] = []
    apart: dict[str, ApartServer] = {}
    started: dict[str, str] = {}
    copies: Copies = {}
    locks: dict[str, Lock] = {}
    left: list[tuple[str, NotStarted]] = []
    for placed in _candidates(bench):
        try:
            run, record = _run(bench, placed, format)
            _require_in_image(record, packages)
            if run.apart is not None and run.apart.command and not programs_apart:
                raise _LeftError("in gVisor (runtime runsc) the agent could read its secret")
            files = _copies(bench, record)
        except _LeftError as error:
            left.append((placed.file, NotStarted(placed.server.name, str(error))))
        except McpError as error:
            left.append((placed.file, NotStarted(placed.server.name, error.message)))
        else:
            runs.append(run)
            started[run.listed.name] = record.digest
            copies |= files
            if record.packages is not None:
                locks[record.packages.digest] = record.packages
            if run.apart is not None:
                apart[run.listed.name] = _apart(bench, run.apart, record)
    listed = [run.listed for run in runs]
    return SessionServers(
        started=started,
        listing=convert(listed, format),
        limits=requirements(listed, format),
        seed=convert(listed, "generic"),
        copies=copies,
        apart=apart,
        locks=tuple(locks.values()),
        left=tuple(left),
    )


def _apart(bench: Workbench, server: McpServer, record: TrustRecord) -> ApartServer:
    needs = bench.settled(server).needs
    directory = f"{COPIES}/{server.name}" if record.files else ""
    return ApartServer(digest=record.digest, server=server, needs=needs, directory=directory)


class _LeftError(Exception):
    """A server is not started; the message says why."""


def _require_in_image(record: TrustRecord, packages: Collection[str] | None) -> None:
    if packages is not None and record.packages is not None and record.packages.digest not in packages:
        raise _LeftError("its packages are not in the image of this session: they are in that of a new one")


def _candidates(bench: Workbench) -> list[Placed]:
    """The servers that a session may get, one for each name: the one that is trusted, or else the workspace's own."""
    chosen: dict[str, Placed] = {}
    for placed in bench.found.all_servers():
        record = bench.store.load(placed.server.name)
        if placed.server.name not in chosen or (record is not None and record.file == placed.file):
            chosen[placed.server.name] = placed
    return list(chosen.values())


def _run(bench: Workbench, placed: Placed, format: McpFormat) -> tuple[Run, TrustRecord]:
    """A server as it is run, and the trust in it. Raises _LeftError without any, McpError."""
    name, settled = placed.server.name, bench.settled(placed.server)
    record = bench.store.load(name)
    state = bench.state(placed, settled, record)
    if record is None or state != "trusted":
        why = "has changed since it was trusted" if state == "changed" else "is not trusted"
        raise _LeftError(f"{why}: look at it with `coding-agents mcp trust {name}`")
    overriding = OVERRIDING.get(format)
    if overriding and any(one.file == overriding and one.name == name for one in bench.found.supplied):
        raise _LeftError(f"{overriding} has this name, too, and {format} would put that in its place")
    got = bench.run(settled, record, format)
    if isinstance(got, NotStarted):
        raise _LeftError(got.reason)
    return got, record


def _copies(bench: Workbench, record: TrustRecord) -> Copies:
    content, name = bench.store.content(record), record.server.name
    return {f"servers/{name}/{file.path}": (content[file.path], file.executable) for file in record.files}
