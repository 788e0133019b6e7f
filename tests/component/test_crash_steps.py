"""An operation that is killed at any system call leaves what the next verb understands, and the next try completes it.

What these tests cannot do is take the disk away: SIGKILL leaves the page cache alone. The order in which things are
synced is read from a trace instead (docs/reference/files.md, "What a crash leaves").
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coding_agents.app.prune import prune
from coding_agents.app.sessions import observe_all
from coding_agents.audit.log import open_log
from coding_agents.audit.verify import verify
from coding_agents.errors import CodingAgentsError
from coding_agents.gitsync import repack
from coding_agents.gitsync.packs import user_store
from coding_agents.store.leftovers import finish_removals
from support.crash_operations import OPERATIONS, Operation
from support.crash_scene import NOW_MS, Scene, build, observe
from support.crashing import Call, durability_faults, find_strace, run_step, steps_of, trace
from support.repos import SESSION

pytestmark = pytest.mark.skipif(
    not find_strace() and os.environ.get("CI") != "true", reason="needs strace, and leave to trace"
)
_SAMPLE = 2
_HOUR_S = 3600


@dataclass(frozen=True)
class Traced:
    """A run of an operation from its beginning to its end: what it called, what was there before, what is after."""

    calls: list[Call]
    there: list[Path]
    after: dict[str, str]


@dataclass
class Prepared:
    """A scene that is put back before each step."""

    top: Path
    before: dict[str, str] = field(default_factory=dict)
    traced: dict[str, Traced] = field(default_factory=dict)

    @property
    def live(self) -> Path:
        return self.top / "live"

    def reset(self) -> Scene:
        shutil.rmtree(self.live, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.top / "template"), str(self.live)], check=True)
        return Scene(self.live)

    def trace(self, name: str) -> Traced:
        if name not in self.traced:
            scene = self.reset()
            there = list(scene.root.rglob("*"))
            calls = trace(name, scene.root, self.top / "log")
            self.traced[name] = Traced(calls, there, observe(Scene(scene.root)))
        return self.traced[name]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    one = Prepared(tmp_path_factory.mktemp("crash"))
    one.live.mkdir()
    one.before.update(observe(build(one.live)))
    one.live.rename(one.top / "template")
    yield one
    shutil.rmtree(one.top)


@pytest.fixture(autouse=True)
def an_hour_passes_for_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `_age` cannot do: the kernel alone says when a file was renamed."""
    monkeypatch.setattr(repack, "ORPHAN_S", 0.0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_kill_at_some_calls(prepared: Prepared, name: str) -> None:
    _step_through(prepared, name, sample=_SAMPLE)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_kill_at_every_call(prepared: Prepared, name: str) -> None:
    _step_through(prepared, name, sample=None)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_told_as_done_is_on_the_disk(prepared: Prepared, name: str) -> None:
    traced = prepared.trace(name)
    assert any(call.name in ("fsync", "fdatasync") for call in traced.calls)
    assert durability_faults(traced.calls, traced.there) == []


def _step_through(prepared: Prepared, name: str, *, sample: int | None) -> None:
    traced = prepared.trace(name)
    steps = steps_of(traced.calls)
    assert len(steps) >= 5
    if sample is not None:
        # One where git moves a ref or lets go of a lock, if it does, and any others.
        critical = [
            step for step in steps if step.process == "update-ref" and step.name in ("rename", "unlink")
        ]
        choose = random.Random(name)
        steps = [*choose.sample(critical, min(1, len(critical))), *choose.sample(steps, sample)][:sample]
    problems = []
    killed = 0
    for step in steps:
        scene = prepared.reset()
        killed += run_step(name, scene.root, step, prepared.top / "scratch")
        try:
            _require_understood(scene, OPERATIONS[name], prepared.before, traced.after)
            _require_completed(scene, OPERATIONS[name], traced.after)
        except (AssertionError, CodingAgentsError, OSError, ValueError) as error:
            problems.append(f"{name}, killed at {step}: {error} {getattr(error, 'details', '')}")
    assert not problems, "\n".join(problems)
    # A call or two may move between runs; a step that no longer kills proves nothing.
    assert killed >= 0.8 * len(steps)


def _require_understood(
    scene: Scene, operation: Operation, before: dict[str, str], after: dict[str, str]
) -> None:
    """Each thing is as before or as after, whatever reads it does so without complaint, and git finds no damage."""
    seen = observe(scene)
    for what in {*before, *after, *seen}:
        value = seen.get(what)
        if what == "log":
            assert (value or "").startswith(before[what]), f"the log is now {value!r}"
        elif not what.startswith(operation.passing or ("\0",)):
            assert value in (before.get(what), after.get(what)), f"{what} is now {value!r}"
    observe_all(_host(scene), scene.store, ended=True)
    list(prune(_host(scene), scene.store, now_ms=NOW_MS, older_than_s=0, dry_run=True))
    _require_sound(scene)
    _require_log(scene)


def _require_completed(scene: Scene, operation: Operation, after: dict[str, str]) -> None:
    """The next run, an hour later, makes the same of it as one that was never killed, and leaves nothing behind."""
    _age(scene.root)
    operation.run(Scene(scene.root))
    if scene.relay_dir.exists():
        scene.relay.store.sweep()  # as the first push does that the next supervisor serves
        user_store(scene.facts, scene.env)  # as every verb that looks into the user's repository does
    scene = Scene(scene.root)
    for one in prune(_host(scene), scene.store, now_ms=NOW_MS, older_than_s=1 << 40, dry_run=False):
        assert not one.kept, one
    finish_removals(scene.store)
    seen = observe(scene)
    gone = {what for what in seen if what.startswith("unreadable ")}
    assert not gone
    # A launch that is tried again has a new id, and the log tells of both tries.
    differing = ("log", "record demo-new")
    assert {what: seen[what] for what in seen if what not in differing} == {
        what: after[what] for what in after if what not in differing
    }
    assert seen.keys() == after.keys()
    _require_sound(scene)
    left = [str(path) for path in scene.root.rglob("*") if _is_left_over(path)]
    assert left == []


def _require_sound(scene: Scene) -> None:
    for name, git_dir in scene.repositories().items():
        done = subprocess.run(
            ["git", "fsck", "--full", "--strict", "--no-dangling"], cwd=git_dir, env=scene.env,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        problems = [line for line in done.stderr.splitlines() if not line.startswith("notice:")]
        assert (done.returncode, problems) == (0, []), f"{name}: {done.stdout}{done.stderr}"


def _require_log(scene: Scene) -> None:
    """The log verifies; a last line that is torn is told so, and taken out by whoever writes next."""
    path = scene.store.directory(SESSION) / "audit.jsonl"
    if not path.exists():
        path = scene.store.kept_log(SESSION)
    if not path.exists():
        return
    with path.open("rb") as lines:
        verdict = verify(lines)
    if not verdict.ok:
        assert not path.read_bytes().endswith(b"\n"), verdict.describe()
        with open_log(path, session=SESSION, time_ms=NOW_MS):
            pass
        with path.open("rb") as lines:
            assert verify(lines).ok
    assert verdict.records >= 3


def _is_left_over(path: Path) -> bool:
    """Whether a later run should have taken `path` away: a lock of git's, or a temporary file."""
    if path.name.startswith("tmp_"):
        return True
    ours = {"sessions.lock", "record.lock", "supervisor.lock"}
    if path.suffix == ".pack":
        return not path.with_suffix(".idx").exists()
    if path.name.endswith(".lock"):
        return path.name not in ours and path.parent.name != "bases" and not path.name.startswith(".config")
    return path.name.endswith((".tmp", ".new", "-new")) or path.name.startswith(
        (".removed-", "coding-agents-q")
    )


def _age(root: Path) -> None:
    """An hour passes for what a killed process may have left."""
    then = time.time() - _HOUR_S
    for directory, names, files in os.walk(root):
        for name in (*files, *names):
            if name.endswith((".lock", ".tmp", ".new")) or name.startswith("tmp_"):
                os.utime(Path(directory, name), (then, then))
        if Path(directory).parent.name == "sessions":
            os.utime(directory, (then, then))


def _host(scene: Scene):  # type: ignore[no-untyped-def]
    from support.host import host_environment

    return host_environment(scene.root / "home")
