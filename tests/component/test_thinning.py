"""A relay that grows full gives back what it let go, and nothing else; whoever uses it meanwhile does not notice."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coding_agents.errors import GitError
from coding_agents.gitsync import relay_thinning, repack, thinning
from coding_agents.gitsync.autosave import keep_save, let_go
from coding_agents.gitsync.old_tips import keep_old
from coding_agents.gitsync.relay_limits import Pressure, RelayLimits
from coding_agents.gitsync.relay_repo import ARCHIVE, GIVEN, Identity
from coding_agents.gitsync.relay_thinning import Thinned
from coding_agents.gitsync.relay_usage import DRAFT, RelayUsage
from coding_agents.gitsync.repack import Repack
from coding_agents.gitsync.thinning import AUTOSAVE, FEWER
from coding_agents.model.refs import Oid, RefUpdate
from coding_agents.proc.limits import ProcessLimits
from coding_agents_guest.lfspointer import LFS
from coding_agents_guest.nestedref import LATEST, NESTED, NESTED_MESSAGE
from support.gitlog import GitLog
from support.relay_scene import FETCH, Scene, eventually, make_scene
from support.relay_server import RelayServer, serving
from support.repos import BRANCH, commit, head, sh

MIB = 1 << 20
HOUR = 3_600_000
LIMITS = RelayLimits(disk_bytes=10 * MIB)
KERNEL = ProcessLimits(60, 4 << 30, 1 << 30, 1024)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path)


@pytest.fixture
def at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long thinning has just taken."""
    monkeypatch.setattr(thinning, "_SPARED", 0)


@pytest.fixture
def server(scene: Scene) -> Iterator[RelayServer]:
    with serving(scene.relay, scene.tmp / "run", limits=LIMITS) as running:
        yield running


def thin(server: RelayServer, now_ms: int) -> Thinned | None:
    return server.thin(now_ms).result(60)


def at_work(scene: Scene, server: RelayServer) -> dict[str, str]:
    """The guest's clone on the session's branch; the environment of its git."""
    env = server.guest_env(scene.env)
    sh(scene.guest, "fetch", "-q", "local", env=env)
    sh(scene.guest, "checkout", "-qB", BRANCH.short, f"local/{BRANCH.short}", env=env)
    return env


def push_save(
    scene: Scene, env: dict[str, str], *, size: int = MIB, ref: str = LATEST, remote: str = "local"
) -> Oid:
    """Save a file that changes wholly from save to save; the agent's own branch stays."""
    (scene.guest / "big").write_bytes(os.urandom(size))
    sh(scene.guest, "add", "big", env=env)
    sh(scene.guest, "commit", "-qm", "a save", env=env)
    saved = head(scene.guest, env=env)
    sh(scene.guest, "push", "-q", remote, f"+HEAD:{ref}", env=env)
    sh(scene.guest, "reset", "-q", "--hard", "HEAD^", env=env)
    return saved


def named(scene: Scene) -> dict[str, str]:
    """Everything that the relay's refs name, down to each object's type and size."""
    listed = sh(scene.relay.git_dir, "rev-list", "--objects", "--no-object-names", "--all", env=scene.env)
    asked = "%(objectname) %(objecttype) %(objectsize)"
    answers = scene.relay.store.git("cat-file", f"--batch-check={asked}", stdin=f"{listed}\n".encode()).text()
    found = dict(line.split(" ", 1) for line in answers.splitlines())
    assert "missing" not in found.values()
    return found


def require_sound(scene: Scene) -> None:
    """git finds no damage, in the logs of refs neither, and each object can be read."""
    done = subprocess.run(
        ["git", "fsck", "--full", "--strict", "--no-dangling"],
        cwd=scene.relay.git_dir, env=scene.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    problems = [line for line in done.stderr.splitlines() if not line.startswith("notice:")]
    assert (done.returncode, problems) == (0, []), done.stdout
    sh(scene.relay.git_dir, "cat-file", "--batch-check", "--batch-all-objects", env=scene.env)
    assert not (scene.relay.git_dir / DRAFT).exists()
    packs = list((scene.relay.git_dir / "objects/pack").iterdir())
    assert [path for path in packs if path.name.startswith("tmp_")] == []


def repacked(
    scene: Scene, alone: Callable[[], object] = nullcontext, limits: ProcessLimits = KERNEL
) -> RelayUsage:
    usage = RelayUsage(scene.relay)
    usage.measure(scene.relay.store.refs())
    one = Repack(scene.relay, usage, limits=limits, timeout_s=60)
    asyncio.run(one.run(alone))  # type: ignore[arg-type]
    return usage


def disk(scene: Scene) -> int:
    packs = scene.relay.git_dir / "objects/pack"
    return sum(path.lstat().st_size for path in packs.iterdir())


# --- what it is for ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_any_time")
def test_a_relay_that_saves_have_filled_goes_on_taking_them(scene: Scene, server: RelayServer) -> None:
    """Three times as much as the budget allows; without thinning there is no room from the eighth save on."""
    env = at_work(scene, server)
    thinned = 0
    for number in range(30):
        now_ms = HOUR + number * 60_000
        saved = push_save(scene, env)
        keep_save(scene.relay.store, now_ms)
        if disk(scene) >= 0.8 * LIMITS.disk_bytes:
            done = thin(server, now_ms)
            assert done is not None
            assert done.pressure is Pressure.NONE
            thinned += 1
        assert scene.relay.store.resolve(LATEST) == saved
    assert 3 <= thinned <= 5
    require_sound(scene)


@pytest.mark.usefixtures("at_any_time")
def test_the_last_of_each_hour_stays_as_long_as_there_is_room(scene: Scene, server: RelayServer) -> None:
    env = at_work(scene, server)
    for number in range(9):
        push_save(scene, env)
        keep_save(scene.relay.store, HOUR + number * HOUR // 4)
    assert thin(server, 4 * HOUR) is not None
    kept = {ref for ref in scene.relay.store.refs(f"{AUTOSAVE}/") if ref != LATEST}
    assert kept == {f"{AUTOSAVE}/{at}" for at in (HOUR + 3 * HOUR // 4, 2 * HOUR + 3 * HOUR // 4, 3 * HOUR)}
    # Nine hours of saves do not fit: the newest alone is left.
    for number in range(5):
        push_save(scene, env)
        keep_save(scene.relay.store, (5 + number) * HOUR)
    done = thin(server, 10 * HOUR)
    assert done is not None
    assert done.pressure is Pressure.NONE
    kept = {ref for ref in scene.relay.store.refs(f"{AUTOSAVE}/") if ref != LATEST}
    assert kept == {f"{AUTOSAVE}/{9 * HOUR}"}
    require_sound(scene)


def test_what_the_agent_committed_itself_is_not_let_go_and_not_copied_again_and_again(
    scene: Scene, server: RelayServer
) -> None:
    env = at_work(scene, server)
    for _ in range(9):
        (scene.guest / "big").write_bytes(os.urandom(MIB))
        sh(scene.guest, "add", "big", env=env)
        sh(scene.guest, "commit", "-qm", "work", env=env)
        sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=env)
    before = named(scene)
    done = thin(server, HOUR)
    assert done is not None
    assert done.pressure is Pressure.THIN
    assert named(scene) == before
    assert thin(server, HOUR) is None


# --- nothing that a ref names is lost -----------------------------------------------------------------------


def everything(scene: Scene, server: RelayServer) -> dict[str, str]:
    """A relay with work of every kind in it."""
    env = at_work(scene, server)
    commit(scene.guest, "work", "first\n", env=env)
    sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=env)
    sh(scene.guest, "reset", "-q", "--hard", scene.base, env=env)
    commit(scene.guest, "work", "rewritten\n", env=env)
    sh(scene.guest, "push", "-qf", "local", f"HEAD:{BRANCH.ref}", env=env)  # the first is archived
    push_save(scene, env, ref=f"{NESTED}inner")
    push_save(scene, env, ref=f"{NESTED}inner")
    tree = sh(scene.guest, "rev-parse", "HEAD^{tree}", env=env).strip()
    sh(scene.guest, "push", "-q", "local", f"{tree}:{LFS}{tree}", env=env)
    server.identity = Identity.SALVAGE
    push_save(scene, env, ref="refs/coding-agents/salvage/worktree")
    push_save(scene, env, ref="refs/coding-agents/salvage/heads/other")
    server.identity = Identity.AGENT
    relay = str(scene.relay.git_dir)
    push_save(scene, scene.env, ref=f"{GIVEN}/head/sub", remote=relay)
    sh(scene.guest, "push", "-q", relay, f"{tree}:{GIVEN}/tree/sub", env=scene.env)
    for number in range(3):
        push_save(scene, env)
        keep_save(scene.relay.store, HOUR + number)
    eventually(lambda: f"{ARCHIVE}/1" in scene.relay.store.refs())
    return env


def test_what_any_ref_names_is_there_afterwards_and_what_none_names_is_gone(
    scene: Scene, server: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(scene, server)
    refs = scene.relay.store.refs()
    gone = [refs[f"{AUTOSAVE}/{HOUR}"], refs[f"{AUTOSAVE}/{HOUR + 1}"]]
    let_go(scene.relay.store, HOUR + 3, FEWER[-1])
    before, refs = named(scene), scene.relay.store.refs()
    usage = repacked(scene)
    assert named(scene) == before
    assert scene.relay.store.refs() == refs
    assert scene.relay.store.present(gone) == []
    require_sound(scene)
    # What the packs measure is known without reading them, and right.
    with monkeypatch.context() as patched:
        patched.delattr(RelayUsage, "_scan")
        noted = usage.measure(refs)
        assert RelayUsage(scene.relay).measure(refs) == noted
    (scene.relay.git_dir / "packs").unlink()
    assert RelayUsage(scene.relay).measure(refs).unpacked_bytes == noted.unpacked_bytes


@pytest.mark.parametrize("base", ["known", "unborn"])
def test_nothing_is_copied_that_the_base_store_has(scene: Scene, server: RelayServer, base: str) -> None:
    """Neither the base's history nor what was given to a session beside ours, and a push has brought as well."""
    env = at_work(scene, server)
    push_save(scene, env)
    commit(scene.guest, "sibling", "another session's base\n", env=env)
    sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=env)
    if base == "unborn":
        scene.relay = replace(scene.relay, base=None)
    repacked(scene)
    require_sound(scene)
    (index,) = (scene.relay.git_dir / "objects/pack").glob("*.idx")
    ours = {line.split()[1] for line in sh_in(scene, "show-index", index.read_bytes()).splitlines()}
    given = sh(scene.base_store.git_dir, "rev-list", "--objects", "--no-object-names", "--all", env=scene.env)
    assert ours
    assert ours.isdisjoint(given.splitlines())


def sh_in(scene: Scene, verb: str, data: bytes) -> str:
    done = subprocess.run(
        ["git", verb], input=data, env=scene.env, cwd=scene.tmp, capture_output=True, check=True
    )
    return done.stdout.decode()


def test_what_the_agent_committed_below_a_save_inside_stays(scene: Scene, server: RelayServer) -> None:
    """In a repository inside it works on elsewhere; a supervisor that dies before it has archived that left a ref."""
    env, ref = at_work(scene, server), f"{NESTED}inner"
    below = commit(scene.guest, "work", "committed\n", env=env)
    commit(scene.guest, "save", "not committed\n", env=env)
    sh(scene.guest, "commit", "-q", "--amend", "-m", NESTED_MESSAGE, env=env)
    save = head(scene.guest, env=env)
    sh(scene.guest, "push", "-qf", "local", f"HEAD:{ref}", env=env)
    keep_old(scene.relay.store, [RefUpdate(save, scene.base, ref)], scene.relay.store.refs())
    scene.relay.store.update_refs(f"update {ref} {scene.base} {save}")
    for _ in range(2):
        repacked(scene)
        assert scene.relay.store.present([below, save]) == [below]
        require_sound(scene)


def test_what_the_log_of_a_branch_names_stays(scene: Scene, server: RelayServer) -> None:
    at_work(scene, server)
    old = commit(scene.guest, "work", "first\n", env=scene.env)
    sh(scene.guest, "push", "-q", str(scene.relay.git_dir), f"HEAD:{BRANCH.ref}", env=scene.env)
    scene.relay.store.update_refs(f"update {BRANCH.ref} {scene.base} {old}")
    for _ in range(2):
        repacked(scene)
        assert scene.relay.store.present([old]) == [old]
        require_sound(scene)


@pytest.mark.parametrize("base", ["shallow", "unborn"])
def test_histories_without_a_beginning_and_without_a_base(
    scene: Scene, server: RelayServer, base: str
) -> None:
    push_save(scene, at_work(scene, server))
    if base == "shallow":
        (scene.relay.git_dir / "shallow").write_text(f"{scene.base}\n")
    else:
        scene.relay = replace(scene.relay, base=None)
    before = named(scene)
    repacked(scene)
    assert named(scene) == before
    require_sound(scene)


# --- who reads and writes meanwhile ---------------------------------------------------------------------------


def test_a_push_that_builds_on_what_was_let_go_while_the_rest_was_copied(
    scene: Scene, server: RelayServer
) -> None:
    """git takes an object for present that no ref names any more: it must not vanish under the push."""
    env = at_work(scene, server)
    old = push_save(scene, env)
    push_save(scene, env)

    @asynccontextmanager
    async def alone() -> AsyncIterator[None]:
        # Nothing is sent: all of it is in the relay's packs.
        scene.relay.store.update_refs(f"update {BRANCH.ref} {old}")
        yield

    repacked(scene, alone)
    require_sound(scene)
    assert scene.relay.store.resolve(BRANCH.ref) == old
    assert "missing" not in named(scene).values()


def test_a_git_that_reads_while_the_packs_change_reads_on(scene: Scene, server: RelayServer) -> None:
    """`review` and `pull` are processes of their own, which no lock of the supervisor holds."""
    env = at_work(scene, server)
    saves = [push_save(scene, env) for _ in range(3)]
    for number, save in enumerate(saves):
        scene.relay.store.update_refs(f"create refs/coding-agents/autosave/{HOUR + number} {save}")
    here = {"cwd": scene.relay.git_dir, "env": scene.env, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    packing = subprocess.Popen(["git", "pack-objects", "--revs", "--stdout", "-q"], **here)  # type: ignore[call-overload]
    asking = subprocess.Popen(["git", "cat-file", "--batch"], **here)  # type: ignore[call-overload]
    with packing, asking:
        packing.stdin.write("".join(f"{save}\n" for save in saves).encode())
        packing.stdin.close()
        first = packing.stdout.read(100_000)  # more than a pipe holds is left
        asking.stdin.write(f"{saves[0]}:big\n".encode())
        asking.stdin.flush()
        asking.stdout.read(int(asking.stdout.readline().split()[2]) + 1)
        before = set((scene.relay.git_dir / "objects/pack").glob("*.pack"))
        repacked(scene)
        assert before.isdisjoint((scene.relay.git_dir / "objects/pack").glob("*.pack"))
        rest = packing.stdout.read()
        assert packing.wait() == 0
        for save in saves:
            asking.stdin.write(f"{save}:big\n".encode())
            asking.stdin.flush()
            kind, size = asking.stdout.readline().split()[1:]
            assert (kind, int(size), len(asking.stdout.read(int(size) + 1))) == (b"blob", MIB, MIB + 1)
        asking.stdin.close()
    sh(scene.tmp, "init", "-q", "--bare", "copy.git", env=scene.env)
    subprocess.run(
        ["git", "index-pack", "--stdin", "--strict"],
        cwd=scene.tmp / "copy.git", env=scene.env, input=first + rest, check=True, capture_output=True,
    )  # fmt: skip


def test_who_is_being_served_is_waited_for_but_not_for_long(
    scene: Scene, server: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_thinning, "_PATIENCE_S", 1.0)
    env = at_work(scene, server)
    for _ in range(9):
        push_save(scene, env)
    before = disk(scene)
    with server.connect() as link:
        link.sendall(b"%04x%s" % (len(FETCH) + 4, FETCH))
        assert link.recv(4)
        with pytest.raises(GitError, match="busy"):
            thin(server, HOUR)
        assert disk(scene) == before
        require_sound(scene)
    assert thin(server, HOUR) is None  # not again at once: each time it copies all there is


def test_who_comes_while_the_packs_change_is_served_afterwards(
    scene: Scene, server: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = at_work(scene, server)
    for _ in range(9):
        push_save(scene, env)
    switch = Repack._switch
    at = []

    def slowly(self: Repack, before: set[str]) -> None:
        at.append(time.monotonic())
        time.sleep(1)
        switch(self, before)
        at.append(time.monotonic())

    monkeypatch.setattr(Repack, "_switch", slowly)
    under_way = server.thin(HOUR)
    eventually(lambda: len(at) == 1)
    new = commit(scene.guest, "work", "done\n", env=env)
    sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=env)
    assert len(at) == 2
    assert time.monotonic() - at[1] < 5
    assert under_way.result(60) is not None
    assert scene.relay.store.resolve(BRANCH.ref) == new
    require_sound(scene)


def test_pushes_go_on_while_all_is_copied_and_what_is_copied_does_not_count(
    scene: Scene, server: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = at_work(scene, server)
    for _ in range(9):
        push_save(scene, env)
    # The last draft still stands there, and a git that is writing: with them the budget would be used up.
    draft = scene.relay.git_dir / DRAFT / "pack"
    draft.mkdir(parents=True)
    (draft / "pack-x.pack").write_bytes(bytes(9 * MIB))
    (scene.relay.git_dir / "objects/pack/tmp_pack_x").write_bytes(bytes(9 * MIB))
    commit(scene.guest, "work", "done\n", env=env)
    sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=env)
    assert draft.is_dir()


# --- what goes wrong -------------------------------------------------------------------------------------------


def test_what_a_killed_repack_left_goes_but_not_what_a_push_is_about_to_name(
    scene: Scene, server: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_save(scene, at_work(scene, server))
    pack = scene.relay.git_dir / "objects/pack" / f"pack-{'1' * 40}.pack"
    pack.write_bytes(b"its index has no name yet")
    orphan = scene.relay.git_dir / "objects/tmp_objdir-incoming-x"
    orphan.mkdir()
    repacked(scene)
    assert pack.exists()
    assert not orphan.exists()
    monkeypatch.setattr(repack, "ORPHAN_S", 0)
    repacked(scene)
    assert not pack.exists()
    (scene.relay.git_dir / DRAFT / "pack").mkdir(parents=True)
    with serving(scene.relay, scene.tmp / "next") as server:
        push_save(scene, at_work(scene, server))
    require_sound(scene)


@pytest.mark.parametrize("what", ["a limit", "a blob that is gone", "a cancelled task"])
def test_a_repack_that_fails_changes_nothing(scene: Scene, server: RelayServer, what: str) -> None:
    env = at_work(scene, server)
    save = push_save(scene, env)
    limits = ProcessLimits(60, 4 << 30, 64 * 1024, 1024) if what == "a limit" else KERNEL
    eventually(lambda: server.changes)  # the relay looks at what has arrived after git has told the guest
    if what == "a blob that is gone":
        (pack,) = (scene.relay.git_dir / "objects/pack").glob("*.pack")
        aside = [path.rename(scene.tmp / path.name) for path in pack.parent.glob(f"{pack.stem}.*")]
    packs = {path.name for path in (scene.relay.git_dir / "objects/pack").iterdir()}

    @asynccontextmanager
    async def alone() -> AsyncIterator[None]:
        raise asyncio.CancelledError
        yield

    with pytest.raises((GitError, asyncio.CancelledError)):
        repacked(scene, alone if what == "a cancelled task" else nullcontext, limits)
    assert {path.name for path in (scene.relay.git_dir / "objects/pack").iterdir()} == packs
    if what == "a blob that is gone":
        for path in aside:
            path.rename(scene.relay.git_dir / "objects/pack" / path.name)
    require_sound(scene)
    assert scene.relay.store.present([save]) == [save]


def test_a_pack_that_lacks_something_is_not_put_in_the_place_of_others(
    scene: Scene, server: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever made git leave it out, what is there is proved before anything is removed."""
    env = at_work(scene, server)
    save = push_save(scene, env)
    run = Repack._git

    async def forgetful(self: Repack, *args: str, stdin: bytes, **more: Any) -> Any:
        if args[0] == "pack-objects":
            stdin = stdin.replace(save.encode() + b"\n", b"")
        return await run(self, *args, stdin=stdin, **more)

    monkeypatch.setattr(Repack, "_git", forgetful)
    with pytest.raises(GitError, match="rev-list"):
        repacked(scene)
    require_sound(scene)
    assert scene.relay.store.present([save]) == [save]


def test_a_disk_without_room_for_a_copy_is_left_alone(
    scene: Scene, server: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_save(scene, at_work(scene, server))
    monkeypatch.setattr(repack.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(GitError, match="disk"):
        repacked(scene)
    require_sound(scene)


def test_what_runs_is_ours_limited_and_stands_back(
    scene: Scene, server: RelayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_save(scene, at_work(scene, server))
    log = GitLog.make(scene.tmp / "log")
    seen = []
    start = repack.run_limited

    async def watched(command):  # type: ignore[no-untyped-def]
        seen.append(command.limits)
        return await start(command)

    monkeypatch.setattr(repack, "run_limited", watched)
    relay = replace(scene.relay, env=log.before(scene.env))
    limits = ProcessLimits(60, 4 << 30, 1 << 30, 1024, 10)
    asyncio.run(Repack(relay, RelayUsage(relay), limits=limits, timeout_s=60).run(nullcontext))
    assert {call.wrong() for call in log.calls()} == {""}
    assert seen == [limits] * 3
    assert {"pack-objects", "rev-list", "cat-file"} <= {call.verb for call in log.calls()}
