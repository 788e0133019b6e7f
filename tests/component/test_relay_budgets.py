"""The relay's budgets, each attacked with real git at the other end, or with bare bytes where git is too polite."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from coding_agents.gitsync.pktline import FLUSH, pkt
from coding_agents.gitsync.relay_limits import DEFAULT_LIMITS, RelayLimits
from coding_agents.gitsync.relay_repo import Identity
from coding_agents.gitsync.relay_usage import RelayUsage
from coding_agents.proc.limits import ProcessLimits, restrict
from support.gitattack import BLOB, TREE, commit_of, entry_header, oid_of, pack_of, sealed, tree_of
from support.relay_scene import PUSH, Scene, at_work, eventually, make_scene, read_advertisement, read_all
from support.relay_server import URL, RelayServer, serving
from support.repos import BRANCH, commit, head, sh, sh_fails

MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path)


@pytest.fixture
def server(scene: Scene) -> Iterator[RelayServer]:
    with serving(scene.relay, scene.tmp / "run") as running:
        yield running


def push_bytes(server: RelayServer, scene: Scene, pack: bytes, *, new: str = "1" * 40) -> bytes:
    """The answer to a push of bare bytes."""
    line = f"{scene.base} {new} {BRANCH.ref}\0report-status side-band-64k".encode()
    with server.connect() as link:
        link.sendall(pkt(PUSH))
        read_advertisement(link)
        with suppress(OSError):  # refused before all of it was sent
            link.sendall(pkt(line) + FLUSH + pack)
            link.shutdown(1)
        return read_all(link)


def bytes_on_disk(scene: Scene) -> int:
    return sum(path.lstat().st_size for path in scene.relay.git_dir.rglob("*") if path.is_file())


def quarantines(scene: Scene) -> list[str]:
    return [path.name for path in (scene.relay.git_dir / "objects").glob("*incoming*")]


def zeros(size: int) -> bytes:
    """A pack of one blob of `size` null bytes: a thousandth of that on the wire."""
    packed = subprocess.run(
        [
            "python3", "-c",
            "import sys, zlib; c = zlib.compressobj(); z = bytes(1 << 20); o = sys.stdout.buffer\n"
            f"for _ in range({size >> 20}): o.write(c.compress(z))\n"
            "o.write(c.flush())",
        ],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    return sealed(entry_header(BLOB, size) + packed, 1)


# --- what unpacks to more ---------------------------------------------------------------------------------


def test_two_megabytes_that_unpack_to_two_gigabytes_are_refused_before_they_cost_anything(
    scene: Scene, server: RelayServer
) -> None:
    bomb = zeros(2 * GIB)
    assert len(bomb) < 3 * MIB
    before, children = bytes_on_disk(scene), os.times()
    began = time.process_time()
    answer = push_bytes(server, scene, bomb)
    ours = time.process_time() - began
    after = os.times()
    gits = after.children_user + after.children_system - children.children_user - children.children_system
    assert b"relay.object allows 100.0 MiB" in answer
    assert b"2,048.0 MiB" in answer
    assert ours + gits < 1.0  # seconds of CPU; git alone takes ten
    assert bytes_on_disk(scene) - before < MIB
    assert quarantines(scene) == []
    assert [(event.type, event.outcome, event.rule) for event in server.events] == [
        ("push", "allowed", "git-push-session-branch"),
        ("push-refused", "denied", "relay-budget"),
    ]


def test_a_kilobyte_of_deltas_counts_by_what_it_makes(scene: Scene) -> None:
    """A file of 3 MiB, and thirty deltas on it that make it again: a push of a few KiB, 93 MiB unpacked."""
    limits = RelayLimits(unpacked_bytes=90 * MIB)
    with serving(scene.relay, scene.tmp / "run", limits=limits) as server:
        env = at_work(scene, server)
        text = os.urandom(1024) * (3 * 1024)
        for number in range(30):
            (scene.guest / f"file{number}").write_bytes(text + b"%d" % number)
        sh(scene.guest, "add", "-A", env=env)
        sh(scene.guest, "commit", "-qm", "many alike", env=env)
        said = sh_fails(scene.guest, "push", "local", f"HEAD:{BRANCH.ref}", env=env)
        assert "relay.unpacked allows 90.0 MiB" in said
        assert scene.relay.store.resolve(BRANCH.ref) == scene.base


def test_the_sum_is_held_across_pushes_and_survives_the_supervisor(scene: Scene) -> None:
    limits = RelayLimits(unpacked_bytes=25 * MIB)

    def push(server: RelayServer, number: int) -> str:
        env = at_work(scene, server)
        (scene.guest / "zeros").write_bytes(bytes(10 * MIB) + b"%d" % number)
        sh(scene.guest, "add", "-A", env=env)
        sh(scene.guest, "commit", "-qm", "more", env=env)
        command = ["git", "push", "-q", "local", f"HEAD:{BRANCH.ref}"]
        done = subprocess.run(command, cwd=scene.guest, env=env, capture_output=True, text=True)
        return done.stderr if done.returncode else ""

    with serving(scene.relay, scene.tmp / "run", limits=limits) as server:
        assert push(server, 1) == ""
    with serving(scene.relay, scene.tmp / "run", limits=limits) as server:
        assert push(server, 2) == ""
        refused = push(server, 3)
        assert "relay.unpacked allows 25.0 MiB" in refused
        assert "the work stays here" in refused
        assert "config set relay.unpacked" in refused


def test_a_lost_or_torn_note_is_measured_anew(scene: Scene, server: RelayServer) -> None:
    env = at_work(scene, server)
    (scene.guest / "zeros").write_bytes(bytes(10 * MIB))
    sh(scene.guest, "add", "-A", env=env)
    sh(scene.guest, "commit", "-qm", "more", env=env)
    sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=env)
    eventually(lambda: len(server.changes) == 1)
    notes = scene.relay.git_dir / "packs"
    refs = scene.relay.store.refs()
    noted = RelayUsage(scene.relay).measure(refs).unpacked_bytes
    assert 10 * MIB < noted < 11 * MIB
    notes.write_bytes(notes.read_bytes()[:-3])
    assert RelayUsage(scene.relay).measure(refs).unpacked_bytes == noted
    notes.unlink()
    assert RelayUsage(scene.relay).measure(refs).unpacked_bytes == noted


def test_what_a_pack_measures_is_read_once(scene: Scene, server: RelayServer) -> None:
    env = at_work(scene, server)
    commit(scene.guest, "work", "done\n", env=env)
    sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=env)
    eventually(lambda: len(server.changes) == 1)
    refs = scene.relay.store.refs()
    noted = RelayUsage(scene.relay).measure(refs)
    for pack in (scene.relay.git_dir / "objects/pack").glob("*.pack"):
        size = pack.stat().st_size
        pack.chmod(0o600)
        pack.write_bytes(bytes(size))  # nothing can be read from it any more
    assert RelayUsage(scene.relay).measure(refs) == noted


# --- one object --------------------------------------------------------------------------------------------


def test_an_honest_large_file_is_refused_by_name_and_may_be_allowed(scene: Scene) -> None:
    with serving(scene.relay, scene.tmp / "run", limits=RelayLimits(object_bytes=10 * MIB)) as server:
        env = at_work(scene, server)
        (scene.guest / "video").write_bytes(os.urandom(15 * MIB))
        sh(scene.guest, "add", "video", env=env)
        sh(scene.guest, "commit", "-qm", "a video", env=env)
        said = sh_fails(scene.guest, "push", "local", f"HEAD:{BRANCH.ref}", env=env)
        assert "! [remote rejected]" in said
        assert "this push has an object too large: 15.0 MiB, relay.object allows 10.0 MiB" in said
        assert "`coding-agents config set relay.object 15m`" in said
        assert scene.relay.store.resolve(BRANCH.ref) == scene.base
    with serving(scene.relay, scene.tmp / "run", limits=RelayLimits(object_bytes=15 * MIB)) as server:
        sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=server.guest_env(scene.env))
        assert scene.relay.store.resolve(BRANCH.ref) == head(scene.guest, env=scene.env)


# --- number ------------------------------------------------------------------------------------------------


def test_four_billion_objects_are_refused_by_the_packs_first_bytes(scene: Scene, server: RelayServer) -> None:
    answer = push_bytes(server, scene, sealed(b"", 2**32 - 1))
    assert b"a push of 4294967295 objects is refused, 2000000 are allowed" in answer


def test_a_push_of_millions_of_refs_is_cut_off(scene: Scene, server: RelayServer) -> None:
    first = pkt(f"{scene.base} {'1' * 40} {BRANCH.ref}\0report-status".encode())
    more = b"".join(pkt(f"{'0' * 40} {'1' * 40} refs/heads/x/{n}".encode()) for n in range(1000))
    with server.connect() as link:
        link.sendall(pkt(PUSH))
        read_advertisement(link)
        sent = 0
        try:
            link.sendall(first)
            while sent < 2_000_000 // 1000:
                link.sendall(more)
                sent += 1
        except (ConnectionError, TimeoutError):
            pass
        answer = read_all(link)
    assert sent < 2000 or b"refused" in answer or b"longer than" in answer
    assert b"more than 64 refs is refused" in answer or answer == b""
    assert scene.relay.store.resolve(BRANCH.ref) == scene.base
    eventually(lambda: [event.rule for event in server.events] == ["git-protocol"])


def test_old_tips_are_kept_up_to_their_number(scene: Scene) -> None:
    with serving(scene.relay, scene.tmp / "run", limits=RelayLimits(refs=2)) as server:
        env = at_work(scene, server)
        for number in range(3):
            sh(scene.guest, "reset", "-q", "--hard", scene.base, env=env)
            commit(scene.guest, "work", f"{number}\n", env=env)
            sh(scene.guest, "push", "-qf", "local", f"HEAD:{BRANCH.ref}", env=env)
        eventually(lambda: len(server.changes) == 3)
        commit(scene.guest, "work", "one more\n", env=env)
        said = sh_fails(scene.guest, "push", "local", f"HEAD:{BRANCH.ref}", env=env)
        assert "keeps 2 old tips and saves on the host, relay.refs allows 2" in said
        # The agent has filled it; its rescue is not in the way of that.
        server.identity = Identity.SALVAGE
        sh(scene.guest, "push", "-q", URL, "HEAD:refs/coding-agents/salvage/head", env=env)


# --- time and turns ----------------------------------------------------------------------------------------


def test_a_push_that_stalls_makes_place_for_the_next(scene: Scene) -> None:
    with serving(scene.relay, scene.tmp / "run", limits=RelayLimits(idle_s=0.5)) as server:
        env = at_work(scene, server)
        with server.connect() as link:
            link.sendall(pkt(PUSH))
            read_advertisement(link)
            line = f"{scene.base} {'1' * 40} {BRANCH.ref}\0report-status".encode()
            link.sendall(pkt(line) + FLUSH + b"PACK\0\0\0\2\0\0\0\1")
            began = time.monotonic()
            new = commit(scene.guest, "work", "done\n", env=env)
            sh(scene.guest, "push", "-q", "local", f"HEAD:{BRANCH.ref}", env=env)
            assert time.monotonic() - began < 10
            assert scene.relay.store.resolve(BRANCH.ref) == new
            assert b"nothing came for 0.5 s" in read_all(link)


def test_a_push_that_drips_ends_at_the_wall(scene: Scene) -> None:
    with serving(scene.relay, scene.tmp / "run", limits=RelayLimits(wall_s=1.5)) as server:
        with server.connect() as link:
            link.sendall(pkt(PUSH))
            read_advertisement(link)
            line = f"{scene.base} {'1' * 40} {BRANCH.ref}\0report-status".encode()
            link.sendall(
                pkt(line) + FLUSH + b"PACK\0\0\0\2\0\0\0\1" + entry_header(BLOB, 50 * MIB) + b"\x78\x9c"
            )
            began = time.monotonic()
            with suppress(ConnectionError):
                while time.monotonic() - began < 15:
                    link.sendall(b"\0\0\0\xff\xff")  # a block of nothing
                    time.sleep(0.05)
            assert time.monotonic() - began < 10
        eventually(lambda: quarantines(scene) == [])


def test_pushes_at_once_are_carried_out_one_after_the_other(scene: Scene, server: RelayServer) -> None:
    """Each rewrites the branch; every old tip is archived, and the sizes add up."""
    env = at_work(scene, server)
    tips = []
    for number in range(8):
        sh(scene.guest, "checkout", "-qB", f"x{number}", scene.base, env=env)
        tips.append(commit(scene.guest, "work", f"{number}\n", env=env))

    def push(number: int) -> None:
        # One that was advertised an older tip may lose: it is told so by git, and loses nothing.
        subprocess.run(
            ["git", "push", "-qf", "local", f"x{number}:{BRANCH.ref}"],
            cwd=scene.guest, env=env, capture_output=True, check=False,
        )  # fmt: skip

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def settled() -> bool:  # the last answer to a client comes before the last change is told
        refs = scene.relay.store.refs()
        archived = {oid for ref, oid in refs.items() if "/archive/" in ref}
        return {change.new for change in server.changes} == archived | {refs[BRANCH.ref]}

    eventually(settled)
    assert server.changes
    refs = scene.relay.store.refs()
    fresh = RelayUsage(scene.relay).measure(refs)
    (scene.relay.git_dir / "packs").unlink()
    assert RelayUsage(scene.relay).measure(refs).unpacked_bytes == fresh.unpacked_bytes


# --- disk --------------------------------------------------------------------------------------------------


def test_a_push_that_would_not_fit_is_refused_in_its_middle(scene: Scene) -> None:
    limits = RelayLimits(disk_bytes=3 * MIB)
    with serving(scene.relay, scene.tmp / "run", limits=limits) as server:
        env = at_work(scene, server)
        (scene.guest / "noise").write_bytes(os.urandom(8 * MIB))
        sh(scene.guest, "add", "noise", env=env)
        sh(scene.guest, "commit", "-qm", "noise", env=env)
        said = sh_fails(scene.guest, "push", "local", f"HEAD:{BRANCH.ref}", env=env)
        assert "relay.disk allows 3.0 MiB" in said
        assert "the work stays here" in said
        assert bytes_on_disk(scene) < 3 * MIB
        assert quarantines(scene) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of its own")
def test_a_full_disk_loses_nothing_and_the_next_push_works(scene: Scene) -> None:
    objects = scene.relay.git_dir / "objects"
    kept = scene.tmp / "kept"
    shutil.copytree(objects, kept, symlinks=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", objects], check=True)
    try:
        shutil.copytree(kept, objects, symlinks=True, dirs_exist_ok=True)
        with serving(scene.relay, scene.tmp / "run") as server:
            env = at_work(scene, server)
            new = commit(scene.guest, "work", "small\n", env=env)
            (scene.guest / "noise").write_bytes(os.urandom(8 * MIB))
            sh(scene.guest, "add", "noise", env=env)
            sh(scene.guest, "commit", "-qm", "noise", env=env)
            sh_fails(scene.guest, "push", "local", f"HEAD:{BRANCH.ref}", env=env)
            assert scene.relay.store.resolve(BRANCH.ref) == scene.base
            eventually(lambda: server.events[-1].outcome == "failed")
            sh(scene.guest, "push", "-q", "local", f"{new}:{BRANCH.ref}", env=env)
            assert scene.relay.store.resolve(BRANCH.ref) == new
            eventually(lambda: len(server.changes) == 1)
    finally:
        subprocess.run(["umount", "--lazy", objects], check=True)  # a git that has just ended may stand in it


# --- the kernel's limits: the second wall -------------------------------------------------------------------


def limits_of(pid: int) -> dict[str, tuple[str, str]]:
    rows = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {row[:26].strip(): (row[26:47].strip(), row[47:68].strip()) for row in rows}


def git_services() -> list[int]:
    """Our child processes that serve git."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    found = []
    for pid in pids:
        try:
            mine = f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{pid}/status").read_text()
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if mine and {b"receive-pack", b"upload-pack"} & set(words):
            found.append(pid)
    return found


@pytest.mark.parametrize("service", ["git-upload-pack", "git-receive-pack"])
def test_every_service_runs_under_the_kernels_limits(scene: Scene, server: RelayServer, service: str) -> None:
    with server.connect() as link:
        link.sendall(pkt(f"{service} /workspace\0host=coding-agents\0".encode()))
        read_advertisement(link)
        (pid,) = git_services()
        shown = limits_of(pid)
    limits = DEFAULT_LIMITS
    assert shown["Max cpu time"] == (str(limits.cpu_s),) * 2
    assert shown["Max address space"] == (str(limits.memory_bytes),) * 2
    assert shown["Max open files"] == (str(limits.open_files),) * 2
    assert shown["Max file size"][0] != "unlimited"


def test_limits_are_never_raised() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        restrict(process.pid, ProcessLimits(10, GIB, MIB, 64))
        restrict(process.pid, ProcessLimits(100, 2 * GIB, 2 * MIB, 128))
        shown = limits_of(process.pid)
        assert shown["Max cpu time"] == ("10", "10")
        assert shown["Max file size"] == (str(MIB), str(MIB))
    finally:
        process.kill()
        process.wait()


def test_what_the_gate_lets_through_still_meets_the_kernel(scene: Scene) -> None:
    """Within every budget of sizes, but a lot of work: the children of git are stopped, and the branch stays."""
    blobs = [(BLOB, bytes([number]) * (90 * MIB)) for number in range(10)]
    tree = tree_of([("100644", f"f{number:02}", oid_of(*blob)) for number, blob in enumerate(blobs)])
    made = commit_of(oid_of(TREE, tree), [scene.base])
    pack = pack_of([*blobs, (TREE, tree), (1, made)])
    with serving(scene.relay, scene.tmp / "run", limits=RelayLimits(cpu_s=1)) as server:
        push_bytes(server, scene, pack, new=oid_of(1, made))
        eventually(lambda: server.events[-1].outcome == "failed")
        assert scene.relay.store.resolve(BRANCH.ref) == scene.base
