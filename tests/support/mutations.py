"""The mutation table: guards of the product, each taken away in a private copy, and the tests that must notice.

A row is data (`tests/mutations/*.toml`): an edit of a source file by its exact text, and the tests that go red with it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests/mutations"
# A guard that is gone shows in a failed assertion, or in `pytest.raises` and `pytest.fail`: no program breaks.
ASSERTIONS = ("AssertionError", "Failed")
_HUNG = "from pytest-timeout"  # a test that waits for ever has failed at nothing
_LEFT_OUT = (".git", ".venv", ".*_cache", ".hypothesis", "*.egg-info", "node_modules")
_LIMIT_S = 280
_KEYS = {"id", "guarantee", "guard", "file", "old", "new", "also", "tests", "engine", "raises", "says"}


@dataclass(frozen=True)
class Edit:
    """One text of one file that is replaced; it must be there exactly once."""

    file: str
    old: str
    new: str

    def problem(self, root: Path = ROOT) -> str:
        """Why it cannot be made, or an empty string."""
        path = root / self.file
        if not path.is_file():
            return f"{self.file} does not exist"
        count = path.read_text("utf-8").count(self.old)
        return "" if count == 1 else f"{self.file} has this text {count} times, not once: {self.old!r}"


@dataclass(frozen=True)
class Row:
    """One guard. `raises` are the kinds of failure that count, `says` a text that it must have."""

    id: str
    guarantee: str
    guard: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    engine: bool = False
    raises: tuple[str, ...] = ASSERTIONS
    says: str = ""


@dataclass(frozen=True)
class Outcome:
    """One phase of one test that did not pass."""

    test: str
    phase: str
    error: str
    text: str


def rows(directory: Path = TABLE) -> list[Row]:
    """The whole table, file by file in their order."""
    return [
        _row(one)
        for path in sorted(directory.glob("*.toml"))
        for one in tomllib.loads(path.read_text("utf-8"))["row"]
    ]


def _row(one: dict[str, object]) -> Row:
    if strange := set(one) - _KEYS:
        raise ValueError(f"{one.get('id')}: unknown keys {sorted(strange)}")
    raw = [one, *one.get("also", [])]  # type: ignore[misc]
    return Row(
        id=str(one["id"]),
        guarantee=str(one["guarantee"]),
        guard=str(one["guard"]),
        edits=tuple(Edit(str(e["file"]), str(e["old"]), str(e["new"])) for e in raw),  # type: ignore[index]
        tests=tuple(map(str, one["tests"])),  # type: ignore[call-overload]
        engine=bool(one.get("engine", False)),
        raises=tuple(one.get("raises", ASSERTIONS)),  # type: ignore[arg-type]
        says=str(one.get("says", "")),
    )


@dataclass(frozen=True)
class Copy:
    """A checkout of our own, in which guards can be taken away."""

    root: Path

    @classmethod
    def make(cls, directory: Path) -> Copy:
        """With compiled files: they hold the time of their source, which is copied, too."""
        shutil.copytree(ROOT, directory, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
        return cls(directory)

    @contextmanager
    def without(self, edits: Sequence[Edit], number: int) -> Iterator[None]:
        """The guard is gone in this block. `number` makes a time of change that no compiled file has seen."""
        before: dict[Path, tuple[bytes, os.stat_result]] = {}
        try:
            for edit in edits:
                assert not edit.problem(self.root), edit.problem(self.root)
                path = self.root / edit.file
                before.setdefault(path, (path.read_bytes(), path.stat()))
                path.write_text(path.read_text("utf-8").replace(edit.old, edit.new), "utf-8")
                os.utime(path, (number + 1, number + 1))
            yield
        finally:
            for path, (content, was) in before.items():
                path.write_bytes(content)
                os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))

    def run(self, tests: Sequence[str], scratch: Path, *, engine: str = "none") -> tuple[list[Outcome], str]:
        """Run these tests in the copy; what did not pass, and all that was printed. Raises AssertionError when the
        run itself went wrong, as with a module that cannot be imported."""
        report = scratch / "report.jsonl"
        report.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "support.mutation_report",
                "--hypothesis-profile=mutations",
                f"--basetemp={scratch / 'r'}", f"--engine={engine}", "--require-engine", "--tb=short",
                f"--timeout={_LIMIT_S}", *(["-x"] if len(tests) == 1 else []), *tests]  # fmt: skip
        done = subprocess.run(
            argv, cwd=self.root, env=self._env(report), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_LIMIT_S * 6, check=False, errors="replace",
        )  # fmt: skip
        said = done.stdout[-6000:] + done.stderr[-2000:]
        assert done.returncode in (0, 1), f"pytest ended with {done.returncode}\n{said}"
        lines = report.read_text("utf-8").splitlines() if report.exists() else []
        return [Outcome(**json.loads(line)) for line in lines], said

    def _env(self, report: Path) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        return {
            **kept,
            "PYTHONPATH": f"{self.root / 'src'}:{self.root / 'tests'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MUTATION_REPORT": str(report),
        }


def complaint(row: Row, found: Sequence[Outcome]) -> str:
    """Why this row does not show what it says: a named test that stayed green, or is red for another reason."""
    for test in row.tests:
        mine = [one for one in found if one.test == test or one.test.startswith(f"{test}[")]
        if not mine:
            return f"{test} stays green without {row.guard}: nothing would notice"
        good = [
            one
            for one in mine
            if one.phase == "call"
            and set(one.error.split("+")) <= set(row.raises)
            and row.says in one.text
            and _HUNG not in one.text
        ]
        if not good:
            reasons = [f"{one.phase}: {one.error}\n{one.text[-1500:]}" for one in mine]
            return f"{test} is red, but not by {'/'.join(row.raises)} {row.says!r}:\n" + "\n".join(reasons)
    return ""
