"""The table of a run, and docs/performance.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.rows import Row

_HEAD = ("what", "measured", "baseline", "ratio", "budget", "verdict")


@dataclass(frozen=True)
class Setting:
    """Where and when a run was made."""

    date: str
    load: float
    engine: str
    data_root: str
    directory: Path

    @property
    def lines(self) -> tuple[str, ...]:
        """The setting in words."""
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        return (
            f"Date: {self.date}",
            f"Machine: {os.cpu_count()} CPUs, {memory:.0f} GB of memory, Linux {platform.release()}, "
            f"Python {platform.python_version()}; load average at the start {self.load:.1f}",
            f"Engine: {self.engine}, its data on {filesystem(Path(self.data_root))}",
            f"The repositories and the users' homes: on {filesystem(self.directory)}",
        )


def filesystem(path: Path) -> str:
    """Kind and place of the file system that holds `path`, from /proc/mounts."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [fields for fields in mounts if path.resolve().is_relative_to(fields[1])]
    if not holding:
        return "an unknown file system"
    device, mount, kind, *_ = max(holding, key=lambda fields: len(fields[1]))
    journal = Path("/sys/fs/ext4") / Path(device).name / "journal_task"
    has_none = kind == "ext4" and journal.is_file() and journal.read_text().strip() == "<none>"
    return f"{kind}{' without a journal' if has_none else ''} ({mount})"


def table(rows: Sequence[Row]) -> list[str]:
    """A Markdown table whose columns stand under one another."""
    cells = [_HEAD, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def document(setting: Setting, rows: Sequence[Row]) -> str:
    """docs/performance.md."""
    over = [row.what for row in rows if row.load > 1]
    verdict = "All rows are within their budget." if not over else f"Over budget: {'; '.join(over)}."
    return "\n".join(
        (
            "# Performance",
            "",
            "Written by `./dev bench`; do not edit. `./dev bench --full` adds a repository of 100,000 files.",
            "",
            *(f"- {line}" for line in setting.lines),
            "",
            *table(rows),
            "",
            verdict,
            "",
            "## How to read it",
            "",
            "- A measured value and its baseline are medians of one run, taken in turn: a busy machine slows both. So",
            "  compare ratios between machines, and milliseconds only on one.",
            "- *Launch* goes from the start of our process to the first byte that the session's command writes. It",
            "  includes the copy, the walls and their measurement before the gate opens; the baseline has none of it.",
            "- *Private copy* is what the files add to the first launch of a repository: a first launch with them minus",
            "  one without. `cp -a` copies the same tree, its `.git` included, within the users' file system, from and",
            "  into the page cache; nothing is removed between the measurements. On ext4 without a journal (some virtual",
            "  machines) whatever makes files within minutes of many deletions, of anybody on the disk, takes up to ten",
            "  times as long, `cp -a` as well: give `TMPDIR` a file system that has one.",
            "- *PSS* counts shared pages by share. The steady child is the engine's own client that holds the channel.",
            "- *Fetch from* and *push to origin* are the host's, too: it looks at origin, which is a repository of this machine",
            "  here, takes what comes into a quarantine, looks at it for findings and pushes it on.",
            "- *Layers alone* is what an agent's image adds to the base, which all agents share.",
            "- The command fails only when a row takes more than twice its budget.",
            "",
        )
    )


def _cells(row: Row) -> tuple[str, ...]:
    baseline = "" if row.baseline is None else f"{_number(row.baseline)} {row.unit} ({row.against})"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}×"
    return (row.what, f"{_number(row.value)} {row.unit}", baseline, ratio, row.budget, row.verdict)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"
