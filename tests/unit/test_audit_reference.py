"""docs/reference/audit.md against the code that it describes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from coding_agents.audit.budget import RATE_PER_S, REFUSALS_AT_ONCE, REFUSALS_PER_S, TOTAL_BYTES
from coding_agents.audit.log import RESERVE_BYTES
from coding_agents.gitsync.relay_limits import RelayLimits
from coding_agents.model.audit import GENESIS, AuditEvent, AuditRecord, RecordType, encode_record, make_record

_PAGE = (Path(__file__).parents[2] / "docs/reference/audit.md").read_text(encoding="utf-8")


def _first_cells(heading: str) -> list[str]:
    section = _PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([a-z-]+)`", row)]


def test_every_key_and_type_is_listed_and_nothing_else() -> None:
    assert sorted(_first_cells("A record")) == sorted(AuditRecord.__struct_fields__)
    assert sorted(_first_cells("Types")) == sorted(RecordType)


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"{RATE_PER_S} records a second" in _PAGE
    assert f"{REFUSALS_AT_ONCE} at once, then {REFUSALS_PER_S} a\nsecond" in _PAGE
    assert f"{TOTAL_BYTES >> 20} MiB in all" in _PAGE
    limits = RelayLimits()
    assert f"{limits.burst} may follow each other" in _PAGE
    assert limits.every_s == 1.0
    assert f"waits longer than {limits.patience_s:.0f} seconds" in _PAGE
    assert f"reserve of {RESERVE_BYTES >> 20} MiB" in _PAGE


def test_the_printed_verifier_works(tmp_path: Path) -> None:
    script = _PAGE.split("```python\n")[1].split("```")[0]
    path = tmp_path / "audit.jsonl"
    first = make_record(
        AuditEvent(RecordType.PUSH, subject="ümläut\n\u2028"),
        seq=1,
        prev=GENESIS,
        time_ms=1,
        session="0" * 12,
    )
    second = make_record(AuditEvent(RecordType.SAVED), seq=2, prev=first.hash, time_ms=2, session="0" * 12)
    good = encode_record(first) + encode_record(second)

    def verifies(data: bytes) -> bool:
        path.write_bytes(data)
        return (
            subprocess.run([sys.executable, "-IS", "-c", script, path], stderr=subprocess.DEVNULL).returncode
            == 0
        )

    assert verifies(good)
    assert not verifies(good.replace(b'"push"', b'"exec"'))
