"""`audit`: check and search the record of what a session did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.options import examples, json_option
from coding_agents.cli.session_arg import complete_session
from coding_agents.errors import AuditError, UsageError

if TYPE_CHECKING:
    from coding_agents.model.audit import AuditRecord

_SESSION = click.option(
    "--session",
    required=True,
    metavar="NAME",
    shell_complete=complete_session,
    help="Session: its name or the first digits of its id.",
)
_JSON = json_option("Print JSON.")


@click.group()
def command() -> None:
    """Check and search the record of what a session did."""


@command.command()
@_SESSION
@_JSON
@click.pass_obj
def verify(app: AppContext, session: str, as_json: bool) -> None:
    """Check that no record was changed, moved, added or taken out."""
    from msgspec.structs import asdict

    from coding_agents.audit.verify import verify as verify_lines

    path = app.store.find_log(session)
    with log_lines(path) as lines:
        verdict = verify_lines(lines)
    if as_json:
        app.output.result_json({**asdict(verdict), "ok": verdict.ok})
    else:
        app.output.result(verdict.describe())
    if not verdict.ok:
        raise AuditError(f"{path} does not verify: {verdict.describe()}")


@command.command(
    epilog=examples(
        "audit query --session NAME --outcome denied", "audit query --session NAME --type push --json"
    )
)
@_SESSION
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only this type (repeatable).")
@click.option(
    "--source",
    "sources",
    multiple=True,
    type=click.Choice(["host", "guest", "proxy"]),
    help="Only what it tells (repeatable).",
)
@click.option(
    "--outcome",
    "outcomes",
    multiple=True,
    type=click.Choice(["allowed", "denied", "failed"]),
    help="Only this outcome (repeatable).",
)
@click.option("--rule", default="", metavar="RULE", help="Only decisions of this rule.")
@click.option("--subject", default="", metavar="GLOB", help="Only subjects that match.")
@click.option("--since", default="", metavar="TIME", help="From this time on: 2026-01-31T12:00:00, UTC.")
@click.option("--until", default="", metavar="TIME", help="Before this time, written in the same way.")
@_JSON
@click.pass_obj
def query(
    app: AppContext,
    session: str,
    types: tuple[str, ...],
    sources: tuple[str, ...],
    outcomes: tuple[str, ...],
    rule: str,
    subject: str,
    since: str,
    until: str,
    as_json: bool,
) -> None:
    """Print the records that match, one a line, in the order they were written."""
    from coding_agents.audit.query import Query, Reading
    from coding_agents.model.audit import RecordType, record_fields

    known = {kind.value: kind for kind in RecordType}
    unknown = [name for name in types if name not in known]
    if unknown:
        raise UsageError(f"unknown record type {unknown[0]!r}", hint=f"Types are {', '.join(known)}.")
    asked = Query(
        frozenset(known[name] for name in types),
        frozenset(sources),
        frozenset(outcomes),
        rule,
        subject,
        _time_ms(since) if since else 0,
        _time_ms(until) if until else None,
    )
    path = app.store.find_log(session)
    with log_lines(path) as lines:
        reading = Reading(lines)
        for record in reading.matching(asked):
            if as_json:
                app.output.result_json(record_fields(record))
            else:
                app.output.result(_line(record))
    if reading.damaged:
        raise AuditError(
            f"{path} holds {reading.damaged} damaged lines, which are not shown",
            hint=f"Run `coding-agents audit verify --session {session}`.",
        )


@contextmanager
def log_lines(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of an audit log, for the block. Raises AuditError when it is missing or cannot be read."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise AuditError(f"{path} is missing: the session has no audit log") from None
    except OSError as error:
        raise AuditError(f"cannot read {path}: {error}") from error
    with file:
        yield iter(file)


def _line(record: AuditRecord) -> str:
    parts = [time_text(record), record.source, record.type.value, record.outcome]
    parts += [part for part in (record.rule, record.subject) if part]
    if record.detail:
        parts.append(json.dumps(record.detail, sort_keys=True, ensure_ascii=True))
    return "  ".join(part.replace("\n", "\\n").replace("\t", "\\t") for part in parts)


def time_text(record: AuditRecord) -> str:
    """When a record was written, in UTC and to the millisecond."""
    when = datetime.fromtimestamp(record.time / 1000, UTC).isoformat(timespec="milliseconds")
    return when.removesuffix("+00:00") + "Z"


def _time_ms(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"not a time: {text!r}", hint="Write it like 2026-01-31T12:00:00.") from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return int(time.timestamp() * 1000)
