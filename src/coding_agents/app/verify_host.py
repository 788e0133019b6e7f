"""What the host sees of an attacked session: its records, its rules, its engine's account, its own repository."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from coding_agents.app.launch_plan import proxy_uid
from coding_agents.app.verify_place import Place, read_refs
from coding_agents.audit.verify import verify
from coding_agents.config.load import load_settings
from coding_agents.engine.cli import CliEngine
from coding_agents.errors import CodingAgentsError
from coding_agents.model.audit import RecordType, decode_record
from coding_agents.model.limits import NO_RATE
from coding_agents.network.dns import read_resolvers
from coding_agents.network.guard import READ_BACK, READ_BACK_USER, accepted, guard_rate, verify_guard
from coding_agents.proc.runner import Outcome
from coding_agents.sandbox.guest import guest_argv
from coding_agents.sandbox.plan import plan_session
from coding_agents.sandbox.protections import LAYERS, Evidence, Need, judge
from coding_agents.sandbox.spec import AGENT_USER, Network
from coding_agents.supervisor.context import SessionContext, plan_input_of
from coding_agents.terminal.escape import StreamEscaper, escape, is_visible
from coding_agents.terminal.filter import TerminalFilter
from coding_agents.verify import model
from coding_agents.verify.checks_network import RULES
from coding_agents.verify.model import Found

_WIDENING: Final = {
    "network.private": '[network]\nprivate = ["10.0.0.1:443"]\n',
    "sandbox.allow_ptrace": "[sandbox]\nallow_ptrace = true\n",
    "model.upstream": '[model]\nupstream = "http://127.0.0.1:9"\n',
    "workspace.include": '[workspace]\ninclude = [".env"]\n',
}
# Facts without which a wall cannot have been measured.
_MEASURED_BY: Final = {
    "user": "process", "capabilities": "process", "no-new-privileges": "process", "seccomp": "seccomp",
    "read-only-root": "mounts", "mounts": "mounts", "host-paths": "other_mounts", "network": "interfaces",
}  # fmt: skip


def looked(look: Callable[[], Any]) -> Found:
    """What a look gives, and how long it took; a failure of ours is no evidence."""
    began = time.monotonic()
    try:
        value = look()
        return Found(value, ms=round((time.monotonic() - began) * 1000))
    except CodingAgentsError as error:
        return Found(error=error.message)
    except (OSError, ValueError, LookupError) as error:
        return Found(error=f"{type(error).__name__}: {error}"[:300])


def session_evidence(engine: CliEngine, session: SessionContext, place: Place) -> model.Evidence:
    """What can be looked at while the session runs, after the attacks."""
    record = session.reload()
    lines = session.audit_path.read_bytes().splitlines(keepends=True)
    return {
        "host alive": looked(lambda: _alive(engine, session)),
        "host enforced": looked(lambda: _not_enforced(record.enforced)),
        "host published": looked(lambda: _published(engine, record.container_id)),
        "host engine record": looked(lambda: _secrets_in(engine, session, place.scene.secret)),
        "host mounts": looked(lambda: _foreign_mounts(engine, session)),
        "host audit chain": looked(lambda: verify(lines).ok),
        "host audit edits": looked(lambda: _edits(lines)),
        "host audit forged": looked(lambda: _forged(lines)),
        "host audit refusals": looked(lambda: _counted(lines, RecordType.PUSH_REFUSED)),
        "host audit models": looked(lambda: _counted(lines, RecordType.MODEL_REFUSED)),
        "host weakened": looked(lambda: _weakened(engine, session)),
        "host widening": looked(lambda: _widening(place)),
        "host relay refs": looked(lambda: _foreign_refs(session, place)),
    }


def guard_evidence(engine: CliEngine, session: SessionContext) -> dict[str, Found]:
    """What the kernel's rules of a session's network say, of packets that are never sent."""
    record = session.record
    resolvers = read_resolvers()

    def read_back(argv: Sequence[str]) -> Outcome:
        return engine.exec(record.holder_id, argv, user=READ_BACK_USER)

    def problems() -> list[str]:
        if b"No such file" in read_back(READ_BACK).stderr:
            return ["there are no rules"]
        subnets = engine.network_subnets(f"{record.name}-net")
        rate = guard_rate(int(record.limits.get("bandwidth", NO_RATE)))
        uid = proxy_uid(Network(record.network))
        return verify_guard(
            read_back, dns=resolvers, allow=record.private, subnets=subnets, rate=rate, uid=uid
        )

    found = {"rules": looked(problems)}
    for name, (_what, packets) in RULES.items():
        wanted = [tuple(one.split()) for one in packets.split(", ")]
        asked = [(ipaddress.ip_address(address), protocol, int(port)) for address, protocol, port in wanted]
        found[f"rules {name}"] = looked(
            lambda asked=asked: [  # type: ignore[misc]
                f"{protocol} to {address} port {port}"
                for (address, protocol, port), passes in zip(asked, accepted(read_back, asked), strict=True)
                if passes
            ]
        )
    return found


def _alive(engine: CliEngine, session: SessionContext) -> bool:
    state = engine.inspect(session.record.container_id)
    return state is not None and state.running and session.reload().phase == "running"


def _not_enforced(enforced: Mapping[str, str]) -> list[str]:
    required = [layer.name for layer in LAYERS if layer.need is Need.REQUIRED]
    return [
        f"{name} is {enforced.get(name, 'unknown')}"
        for name in required
        if _is_off(enforced.get(name, "unknown"))
    ]


def _is_off(value: str) -> bool:
    return value in ("off", "absent", "unknown")


def _published(engine: CliEngine, container: str) -> list[str]:
    document = engine.inspect_one("container", container) or {}
    bound = (document.get("HostConfig") or {}).get("PortBindings") or {}
    return sorted(map(str, bound))


def _secrets_in(engine: CliEngine, session: SessionContext, secret: str) -> list[str]:
    record = session.record
    kinds = [("container", record.container_id), ("container", record.holder_id)]
    kinds += [("volume", one) for one in (record.volumes.workspace, record.volumes.home, record.guest_volume)]
    kinds += [("image", record.image_id)]
    documents = {f"{kind} {name}": engine.inspect_one(kind, name) for kind, name in kinds if name}
    if not any(record.id in json.dumps(document) for document in documents.values()):
        raise ValueError("the engine's account does not name the session")
    return [name for name, document in documents.items() if secret in json.dumps(document)]


def _foreign_mounts(engine: CliEngine, session: SessionContext) -> list[str]:
    """Mounts that are no volume of this session's, nor its guest's program, nor a file system in memory."""
    record, state = session.record, engine.inspect(session.record.container_id)
    if state is None:
        raise LookupError("the container is gone")
    ours = {record.volumes.workspace, record.volumes.home, record.volumes.config, record.guest_volume} - {""}
    return [
        f"{one.path} ({one.kind} {one.name})"
        for one in state.config.mounts
        if one.kind != "tmpfs" and not (one.kind == "volume" and one.name in ours)
    ]


def _edits(lines: list[bytes]) -> dict[str, bool]:
    """Whether each kind of damage to a copy of the log is noticed."""
    if len(lines) < 4:
        raise ValueError("the log is too short")
    middle = len(lines) // 2
    edited = lines[middle].replace(b'"outcome":"allowed"', b'"outcome":"denied"', 1)
    edited = edited if edited != lines[middle] else lines[middle].replace(b'"seq":', b'"seq":1', 1)
    damaged = {
        "edited": [*lines[:middle], edited, *lines[middle + 1 :]],
        "dropped": [*lines[:middle], *lines[middle + 1 :]],
        "swapped": [*lines[: middle - 1], lines[middle], lines[middle - 1], *lines[middle + 1 :]],
        "beheaded": lines[1:],
        "cut in a line": [*lines[:-1], lines[-1][:-20]],
    }
    return {name: not verify(one).ok for name, one in damaged.items()}


def _forged(lines: list[bytes]) -> list[str]:
    """Records that the attack made up: of a session that ended, though nobody ended it."""
    records = [decode_record(line) for line in lines]
    made_up = [one for one in records if one.type is RecordType.SESSION_REMOVED]
    return [f"{one.type.value} at seq {one.seq}" for one in made_up]


def _counted(lines: list[bytes], kind: RecordType) -> int:
    return sum(decode_record(line).type is kind for line in lines)


def _weakened(engine: CliEngine, session: SessionContext) -> dict[str, bool]:
    """Whether a start would be refused whose facts are this one's, less those that prove one wall."""
    record = session.record
    printed = engine.exec(record.container_id, guest_argv(record.guest_digest, "probe"), user=AGENT_USER)
    facts = json.loads(printed.stdout)
    spec = plan_session(plan_input_of(record, base_image=record.image_id)).sandbox
    whole = judge(Evidence(facts=facts, spec=spec, guard=[])).violations
    if whole:
        raise ValueError(f"the whole facts do not hold: {', '.join(whole)}"[:200])
    less = {
        wall: {name: value for name, value in facts.items() if name != fact}
        for wall, fact in _MEASURED_BY.items()
    }
    verdicts = {
        wall: judge(Evidence(facts=some, spec=spec, guard=[])).violations for wall, some in less.items()
    }
    return {wall: any(one.startswith(f"{wall} is ") for one in found) for wall, found in verdicts.items()}


def _widening(place: Place) -> dict[str, bool]:
    """Whether each setting of a repository that would widen is refused."""
    project = place.env.home / "widening"
    project.mkdir(exist_ok=True)
    found = {}
    for key, text in _WIDENING.items():
        (project / ".coding-agents.toml").write_text(text, "utf-8")
        try:
            load_settings(place.env, project=project)
        except CodingAgentsError as error:
            found[key] = error.code == "untrusted-setting"
        else:
            found[key] = False
    return found


def _foreign_refs(session: SessionContext, place: Place) -> list[str]:
    """Refs of the quarantine that no session may write."""
    refs = read_refs(place.env, session.directory / "relay.git")
    ours = (f"refs/heads/{session.record.branch}", "refs/heads/main")
    return [name for name in refs if name not in ours and not name.startswith("refs/coding-agents/")
            and not name.startswith("refs/autosave/")]  # fmt: skip


def keeps(session: SessionContext, place: Place, oid: str) -> bool:
    """Whether a ref of the quarantine still leads to the commit."""
    return oid in read_refs(place.env, session.directory / "relay.git").values()


# --- what is shown -------------------------------------------------------------------------------------------


def shown_evidence(subject: str, names: list[str], output: bytes) -> model.Evidence:
    """What our own verbs make of hostile texts: of a commit's subject, of file names, and of a program's output."""
    escaper, screen = StreamEscaper(colours=False), TerminalFilter()
    piped = (escaper.feed(output) + escaper.finish()).decode("utf-8", "replace")
    drawn = screen.feed(output) + screen.finish()
    return {
        "host shown subject": _dangerous(subject, escape(subject, keep="\n\t")),
        "host shown names": _dangerous("".join(names), escape("\n".join(names), keep="\n\t")),
        "host shown output": _dangerous(output.decode("utf-8", "replace"), piped),
        "host screen clipboard": _passed(output, drawn, (b"\x1b]52;",)),
        "host screen queries": _passed(output, drawn, (b"\x1b[c", b"\x1b[21t", b"\x1bP")),
        "host screen notices": _passed(output, drawn, (b"\x1b]9;", b"\x1b]777;")),
    }


def _dangerous(before: str, after: str) -> Found:
    """The characters left that are not visible, if there were any in the first place."""
    if not list(_invisible(before)):
        return Found(error="the attack did not get as far as being shown")
    return Found(sorted({f"U+{ord(char):04X}" for char in _invisible(after)}))


def _invisible(text: str) -> Iterator[str]:
    return (char for char in text if char not in "\n\t\r " and not is_visible(char))


def _passed(before: bytes, after: bytes, sequences: tuple[bytes, ...]) -> Found:
    if not all(one in before for one in sequences):
        return Found(error="the attack did not get as far as being shown")
    return Found([repr(one) for one in sequences if one in after])
