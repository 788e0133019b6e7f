"""Kill an operation at each of its system calls that write, with strace, and read from its trace what was synced when.

An operation is a program of its own (`support.crash_operations`). A dry run under `strace -f` names every call that
writes, of Python and of each git. A step then runs it again and kills one process at the entry of one of these calls,
before the kernel carries it out: strace injects the signal at the Nth call of that kind in that process.

SIGKILL leaves the page cache alone, so no step can show what a power cut would lose. That is read from the dry run:
`durability_faults` follows each file from write to sync to rename to the sync of its directory.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
PYTHON = "python"
_THREAD = "thread"  # of Python: no step kills there, but what it syncs is synced
_TIMEOUT_S = 120
_CALLS = (
    "open", "openat", "creat", "write", "pwrite64", "writev", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat", "unlink", "unlinkat", "fsync", "fdatasync", "mkdir", "mkdirat", "rmdir", "ftruncate",
    "fallocate", "chmod", "fchmod", "fchmodat",
)  # fmt: skip
_ON_DESCRIPTORS = frozenset(
    ("write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate", "fallocate", "fchmod")
)
_OPENS = frozenset(("open", "openat", "creat"))
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")
_HERE = re.compile(r"AT_FDCWD<([^>]*)>")
_DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_RESULT = re.compile(r"= \d+<([^>]*)>$")


@dataclass(frozen=True)
class Call:
    """One system call of the dry run: the `nth` of this name in its process. `paths` are absolute."""

    process: str
    occurrence: int
    name: str
    nth: int
    paths: tuple[str, ...]
    text: str


@dataclass(frozen=True, order=True)
class Step:
    """Where to kill: `process` is PYTHON or a git command, its `occurrence` counted from 1."""

    process: str
    occurrence: int
    name: str
    nth: int
    all_die: bool = True

    def __str__(self) -> str:
        who = self.process if self.process == PYTHON else f"git {self.process} {self.occurrence}"
        return f"{who}: {self.name} {self.nth}" + ("" if self.all_die else ", Python lives")


def find_strace() -> str:
    """The program, or "" where it is missing or may not trace."""
    program = shutil.which("strace")
    if program is None:
        return ""
    probe = subprocess.run([program, "-qq", "-o", os.devnull, "true"], capture_output=True, check=False)
    return program if probe.returncode == 0 else ""


def trace(operation: str, root: Path, log: Path) -> list[Call]:
    """Run the operation to its end; every call of interest in order. Raises AssertionError when it fails."""
    command = [
        "strace", "-f", "-y", "-qq", "-s", "4096", "-o", str(log),
        "-e", f"trace={','.join(f'?{call}' for call in _CALLS)},execve", *_program(operation, root),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=_environ(os.environ["PATH"]), capture_output=True, timeout=_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return list(_read_trace(log.read_text("utf-8", "surrogateescape").splitlines(), os.fspath(root)))


def steps_of(calls: Iterable[Call]) -> list[Step]:
    """Every place to kill at, for each git both with all that runs and alone."""
    found = dict.fromkeys(
        Step(call.process, call.occurrence, call.name, call.nth)
        for call in calls
        if call.paths and call.process != _THREAD
    )
    alone = [
        Step(step.process, step.occurrence, step.name, step.nth, all_die=False)
        for step in found
        if step.process != PYTHON
    ]
    return [*found, *alone]


def run_step(operation: str, root: Path, step: Step, scratch: Path) -> bool:
    """Run the operation and kill it at `step`; whether something was killed. Returns when all of it has ended."""
    program, path = _program(operation, root), os.environ["PATH"]
    shutil.rmtree(scratch, ignore_errors=True)
    if step.process == PYTHON:
        program = [*_injecting(step), *program]
    else:
        path = f"{_wrapped_git(step, scratch)}{os.pathsep}{path}"
    done = subprocess.run(program, env=_environ(path), capture_output=True, timeout=_TIMEOUT_S, check=False)
    if step.process == PYTHON:
        killed = done.returncode in (-9, 137)
        assert killed or done.returncode == 0, done.stderr.decode()
    else:
        # An operation whose git was killed alone may help itself, or fail.
        killed = done.returncode != 0 or (scratch / "killed").exists()
    _wait_for_orphans(root)
    return killed


def durability_faults(calls: Iterable[Call], before: Iterable[Path]) -> list[str]:
    """What of `calls` a power cut could lose although the operation has told of success; `before` was there before."""
    files = _Files({os.fspath(path) for path in before})
    for call in calls:
        if call.paths:
            files.take(call)
    return [*files.faults, *files.at_the_end()]


@dataclass
class _Files:
    """What is not on the disk yet: contents by file, entries by directory."""

    known: set[str]
    dirty: set[str] = field(default_factory=set)
    unnamed: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def take(self, call: Call) -> None:
        if call.name in ("rename", "renameat", "renameat2", "link", "linkat") and len(call.paths) == 2:
            self._rename(*call.paths)
        elif call.name in ("fsync", "fdatasync"):
            self.dirty.discard(call.paths[0])
            if call.name == "fsync":
                self.unnamed = {path for path in self.unnamed if path.rpartition("/")[0] != call.paths[0]}
        elif call.name in ("unlink", "unlinkat", "rmdir"):
            for path in call.paths:
                self.dirty.discard(path)
                self.unnamed.discard(path)
        elif call.name in ("mkdir", "mkdirat"):
            self.unnamed.update(path for path in call.paths if "EEXIST" not in call.text)
        elif call.name in _OPENS:
            if "O_CREAT" in call.text and call.paths[0] not in self.known:
                self.dirty.add(call.paths[0])
                self.unnamed.add(call.paths[0])
        elif call.name in ("write", "pwrite64", "writev", "ftruncate"):
            self.dirty.add(call.paths[0])

    def _rename(self, source: str, target: str) -> None:
        if source in self.dirty and _of_record(target) and not _DRAFT.search(target):
            self.faults.append(f"{source} becomes {target} before it is synced")
        if _is_ref(target) and not _DRAFT.search(target):
            lost = [path for path in self.dirty if "/objects/" in path and _of_record(path)]
            self.faults += [f"the ref {target} moves before {path} is synced" for path in lost]
        for known in (self.dirty, self.unnamed):
            moved = {path for path in known if path == source or path.startswith(f"{source}/")}
            known -= moved
            known |= {target + path.removeprefix(source) for path in moved}
        self.unnamed.add(target)

    def at_the_end(self) -> Iterator[str]:
        yield from (f"{path} was never synced" for path in sorted(self.dirty) if _of_record(path))
        yield from (
            f"the directory of {path} was never synced" for path in sorted(self.unnamed) if _of_record(path)
        )


def _is_ref(path: str) -> bool:
    return "/refs/" in path or path.endswith("/packed-refs")


# What may be lost: locks, git's logs of refs, space that is kept, and notes that only spare work.
_SPARED = re.compile(
    r"\.lock$|/logs(/|$)|\.reserve$|\.keep$|/relay\.git/packs$|/tmp_|/branches$|\(deleted\)$|/(tmp_objdir|incoming)-"
)
# What gets its name, or is copied, when it is whole: only then must it be synced.
_DRAFT = re.compile(r"\.coding-agents-new/|\.git\.new/|/coding-agents-[a-z0-9_]{8}/")


def _of_record(path: str) -> bool:
    return not _SPARED.search(path)


def _read_trace(lines: Iterable[str], root: str) -> Iterator[Call]:
    counts: Counter[tuple[str, str]] = Counter()
    runs: Counter[str] = Counter()
    process: dict[str, tuple[str, int]] = {}
    here: dict[str, str] = {}
    pending: dict[str, str] = {}
    for line in lines:
        if resumed := re.match(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$", line):
            line = f"{pending.pop(resumed[1], '')}{resumed[2]}"
        elif line.endswith("<unfinished ...>"):
            pending[line.split(" ", 1)[0]] = line.removesuffix("<unfinished ...>")
            continue
        if not (match := _LINE.match(line)):
            continue
        pid, name, rest = match.groups()
        if name == "execve":
            if rest.endswith("= 0"):
                counts = Counter({key: n for key, n in counts.items() if key[0] != pid})
                process[pid] = _who(rest, runs, process)
            continue
        counts[pid, name] += 1
        if found := _HERE.search(rest):
            here[pid] = found[1]
        who = process.get(pid, (_THREAD, 0))  # which also stands for a child between fork and exec
        paths = tuple(_paths(name, rest, here.get(pid, "/"))) if "= -1 " not in rest else ()
        paths = tuple(path for path in paths if path.startswith(root))
        yield Call(*who, name, counts[pid, name], paths, rest)


def _who(rest: str, runs: Counter[str], process: dict[str, tuple[str, int]]) -> tuple[str, int]:
    words = _QUOTED.findall(rest.partition("[")[2].partition("]")[0])
    if not words or Path(words[0]).name != "git":
        return PYTHON, 1
    command = _command(words[1:])
    if rest.startswith(f'"{shutil.which("git")}"'):
        runs[command] += 1
        return command, runs[command]
    # git's own child is killed under the wrapper of its parent.
    parents = [who for who in process.values() if who[0] == "receive-pack"]
    return parents[-1] if parents else (command, 0)


def _command(words: list[str]) -> str:
    rest = iter(words)
    for word in rest:
        if word in ("-c", "-C"):
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return ""


def _paths(name: str, rest: str, here: str) -> Iterator[str]:
    if name in _ON_DESCRIPTORS:
        if found := _DESCRIPTOR.match(rest):
            yield found[1]
    elif name in _OPENS:
        if re.search(r"O_WRONLY|O_RDWR|O_CREAT", rest) and (found := _RESULT.search(rest)):
            yield found[1]
    else:
        # A directory descriptor before a path says where it begins; AT_FDCWD is one, too.
        for base, path in re.findall(r'(?:(?:\d+|AT_FDCWD)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"', rest):
            yield os.path.normpath(path if path.startswith("/") else f"{base or here}/{path}")


def _program(operation: str, root: Path) -> list[str]:
    return [sys.executable, "-m", "support.crash_operations", operation, str(root)]


def _environ(path: str) -> dict[str, str]:
    source = os.pathsep.join((str(TESTS.parent / "src"), str(TESTS)))
    return {
        "PATH": path,
        "PYTHONPATH": source,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "LC_ALL": "C.UTF-8",
    }


def _injecting(step: Step) -> list[str]:
    return [
        "strace", *(["-f"] if step.process != PYTHON else []), "-qq", "-o", os.devnull, "-e", f"trace={step.name}",
        f"--inject={step.name}:signal=KILL:when={step.nth}",
    ]  # fmt: skip


_WRAPPER = """#!/bin/sh
name= skip=
for word; do
    if [ -n "$skip" ]; then skip=; continue; fi
    case $word in
        -c | -C) skip=1 ;;
        -*) ;;
        *) name=$word; break ;;
    esac
done
if [ "$name" = {process} ]; then
    echo >> {scratch}/count
    if [ "$(wc -l < {scratch}/count)" = {occurrence} ]; then
        {strace} {git} "$@"
        status=$?
        if [ $status = 137 ]; then
            touch {scratch}/killed
            {then}
        fi
        exit $status
    fi
fi
exec {git} "$@"
"""


def _wrapped_git(step: Step, scratch: Path) -> Path:
    """A directory whose `git` kills the one that `step` means, and then who called it, or not."""
    (scratch / "bin").mkdir(parents=True)
    script = scratch / "bin" / "git"
    script.write_text(
        _WRAPPER.format(
            process=step.process,
            occurrence=step.occurrence,
            scratch=scratch,
            strace=" ".join(_injecting(step)),
            git=shutil.which("git"),
            then="kill -9 $PPID" if step.all_die else "kill -9 $$",
        )
    )
    script.chmod(0o755)
    return script.parent


def _wait_for_orphans(root: Path) -> None:
    """Until no process names `root` any more: a git whose caller was killed ends by itself."""
    deadline = time.monotonic() + 20
    sought = os.fsencode(root)
    while time.monotonic() < deadline:
        if not any(
            sought in _command_line(entry) for entry in Path("/proc").iterdir() if entry.name.isdecimal()
        ):
            return
        time.sleep(0.02)
    raise AssertionError("a process of the killed operation does not end")


def _command_line(process: Path) -> bytes:
    if process.name == str(os.getpid()):
        return b""
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
