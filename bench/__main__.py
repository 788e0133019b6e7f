"""`python -m bench`: measure, print the table, write docs/performance.md; status 1 when a budget is far exceeded."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench import agents, brokers, commands, egress, images, launches, model, returns, sessions
from bench.report import Setting, document, table
from bench.rows import GROSS, Row, worst
from bench.user import new_user
from coding_agents.engine.find import find_engine

_DOCUMENT = Path(__file__).parents[1] / "docs/performance.md"
_FEW_FILES, _FILES, _MANY_FILES = 200, 10_000, 100_000


def main() -> int:
    options = _options()
    info = find_engine(options.engine, os.environ).info
    with tempfile.TemporaryDirectory(prefix="coding-agents-bench-", dir=options.directory) as scratch:
        setting = Setting(
            date=datetime.now(UTC).date().isoformat(),
            load=os.getloadavg()[0],
            engine=f"{info.title} {info.version}{' (rootless)' if info.rootless else ''}",
            data_root=info.data_root,
            directory=Path(scratch),
        )
        print(*setting.lines, sep="\n", file=sys.stderr)
        rows = []
        for row in _measure(info.name, Path(scratch), full=options.full):
            rows.append(row)
            print(f"  {row.what}: {row.value:.1f} {row.unit}, {row.verdict}", file=sys.stderr, flush=True)
        print(*table(rows), sep="\n")
        if options.write:
            _DOCUMENT.write_text(document(setting, rows), encoding="utf-8")
    return 1 if worst(rows) > GROSS else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--engine", choices=("docker", "podman"), default="docker")
    parser.add_argument(
        "--full",
        action="store_true",
        help=f"also copy {_MANY_FILES:,} files, 1 GB, and bring their work back",
    )
    parser.add_argument(
        "--no-write", dest="write", action="store_false", help=f"leave {_DOCUMENT.name} as it is"
    )
    parser.add_argument(
        "--directory", type=Path, help="where repositories and homes are made (default: TMPDIR)"
    )
    return parser.parse_args()


def _measure(engine: str, scratch: Path, *, full: bool) -> Iterator[Row]:
    with new_user(engine, os.environ, scratch) as user:
        yield from commands.measure(user)
        commands.forget_sessions(user.home)
        yield from launches.measure_warm(user)
        yield from launches.measure_rules(user)
        yield from launches.measure_guard(user)
        yield from launches.measure_gvisor(user)
        for files in (_FILES, *((_MANY_FILES,) if full else ())):
            yield from launches.measure_copy(user, os.environ, scratch, files=files)
        yield from sessions.measure(user)
        yield from agents.measure(user)
        yield from model.measure(user)
        yield from egress.measure(user)
        yield from brokers.measure(user)
        for files in (_FEW_FILES, _FILES, *((_MANY_FILES,) if full else ())):
            yield from returns.measure(user, files=files)
        yield from images.measure(user)


if __name__ == "__main__":
    sys.exit(main())
