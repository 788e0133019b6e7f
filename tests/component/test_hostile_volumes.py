"""Volumes made to stop, starve or fool a salvage: the files come home in any case, history where it can be read."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coding_agents_guest.events import Failed, Salvaged
from coding_agents_guest.salvage import REFS, salvage
from support.agentrepo import BRANCH, AgentRepo, make_agent_repo

# A salvage that waits for a pipe, or goes in circles, ends here and fails.
BUDGET_S = 25.0
FILES = [".gitignore", "README", "new.txt", "work.txt"]


@pytest.fixture
def repo(tmp_path: Path) -> AgentRepo:
    """Work of every kind that never reached the relay: a commit, a branch beside it, a new and a changed file."""
    repo = make_agent_repo(tmp_path / "r")
    repo.git("checkout", "--quiet", "-b", "idea")
    repo.commit("idea.txt")
    repo.git("checkout", "--quiet", BRANCH)
    repo.commit("work.txt")
    repo.write("README", "changed\n")
    repo.write("new.txt")
    return repo


def tried(repo: AgentRepo) -> Salvaged | Failed:
    return salvage(repo.config, repo.place, time.monotonic() + BUDGET_S)


def salvaged(repo: AgentRepo) -> Salvaged:
    report = tried(repo)
    assert isinstance(report, Salvaged), report
    assert repo.in_relay("fsck", "--no-dangling") == ""
    return report


def refs(repo: AgentRepo) -> dict[str, str]:
    """The relay's salvage refs, by what follows `salvage/`."""
    lines = repo.in_relay("for-each-ref", "--format=%(objectname) %(refname)", REFS).splitlines()
    return {name[len(REFS) + 1 :]: oid for oid, name in (line.split(" ", 1) for line in lines)}


def fifo(path: Path) -> None:
    if os.path.lexists(path):
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def in_git(name: str, make: Callable[[Path], object] = fifo) -> Callable[[AgentRepo], object]:
    """Plant something at `.git/NAME`."""
    return lambda repo: make(repo.work / ".git" / name)


def instead(make: Callable[[Path], object]) -> Callable[[AgentRepo], object]:
    """Plant something in the place of `.git`."""

    def plant(repo: AgentRepo) -> None:
        shutil.rmtree(repo.work / ".git")
        make(repo.work / ".git")

    return plant


def written(text: str | bytes) -> Callable[[Path], object]:
    data = text.encode() if isinstance(text, str) else text

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return write


def linked(target: str) -> Callable[[Path], object]:
    def link(path: Path) -> None:
        if os.path.lexists(path):
            path.unlink()
        path.symlink_to(target)

    return link


def a_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # its whole path would be too long for an address
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


def device(major: int, minor: int) -> Callable[[Path], object]:
    """Plant a character device."""

    def plant(path: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("making a device needs root")
        if os.path.lexists(path):
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))

    return plant


a_device = device(1, 5)
"""Zero, which never ends."""
a_whiteout = device(0, 0)
"""With this an overlay says that there is nothing; whoever opens it is told that there is no such device."""


def moved(pointer: Callable[[Path], object]) -> Callable[[AgentRepo], object]:
    """The git directory elsewhere in the volume, and something that leads to it."""

    def plant(repo: AgentRepo) -> None:
        (repo.work / ".git").rename(repo.work / ".real")
        pointer(repo.work / ".git")

    return plant


def circles(repo: AgentRepo) -> None:
    heads = repo.work / ".git/refs/heads"
    (heads / "loop").symlink_to(".")
    (heads / "loop2").symlink_to("..")
    (heads / "up").symlink_to("../../..")


def objects_with_a_pipe(repo: AgentRepo) -> None:
    pack = repo.work / ".git/objects/pack"
    repo.git("gc", "--quiet")
    (index,) = pack.glob("*.idx")
    fifo(pack / f"pack-{'0' * 40}.idx")
    fifo(pack / f"pack-{'0' * 40}.pack")
    fifo(repo.work / f".git/objects/ab/{'c' * 38}")
    assert index.exists()


def grafts(repo: AgentRepo) -> None:
    written(repo.git("rev-parse", "HEAD") + "\n")(repo.work / ".git/info/grafts")


def replaced(repo: AgentRepo) -> None:
    empty = repo.git("commit-tree", "-m", "nothing", repo.git("mktree"))
    repo.git("replace", repo.git("rev-parse", "HEAD"), empty)


def falsely_shallow(repo: AgentRepo) -> None:
    written(repo.git("rev-parse", "HEAD") + "\n")(repo.work / ".git/shallow")


def of_tomorrow(repo: AgentRepo) -> None:
    repo.git("config", "core.repositoryFormatVersion", "1")
    repo.git("config", "extensions.fromTomorrow", "true")


def shared(repo: AgentRepo) -> None:
    """Objects in a second directory of the volume, as `git clone --shared` has them."""
    (repo.work / ".git/objects").rename(repo.work / ".git/elsewhere")
    (repo.work / ".git/objects/info").mkdir(parents=True)
    (repo.work / ".git/objects/info/alternates").write_text("../elsewhere\n")


def common(repo: AgentRepo) -> None:
    """As in a linked work tree: HEAD and index here, the rest in another directory."""
    real = (repo.work / ".git").rename(repo.work / ".real")
    (repo.work / ".git").mkdir()
    for name in ("HEAD", "index"):
        shutil.copy2(real / name, repo.work / ".git" / name)
    (repo.work / ".git/commondir").write_text("../.real\n")
    (repo.work / ".gitignore").write_text(".real/\n")


def hidden_changes(repo: AgentRepo) -> None:
    repo.git("update-index", "--assume-unchanged", "README")
    repo.git("update-index", "--skip-worktree", "work.txt")
    repo.write("work.txt", "changed, too\n")


def inside(repo: AgentRepo, path: str = "inner") -> Path:
    """A repository in the work tree."""
    repo.git("init", "--quiet", path)
    place = repo.work / path
    repo.git("commit", "--quiet", "--allow-empty", "--message", "Inner", cwd=place)
    return place


def behind(repo: AgentRepo, pointer: Callable[[Path], object]) -> None:
    """A repository whose git directory stands elsewhere, under a name with a space at its end."""
    place = inside(repo)
    (place / ".git").rename(place / "away ")
    pointer(place / ".git")
    fifo(place / "away /HEAD")


def recorded(repo: AgentRepo, path: str = "inner") -> Path:
    """One that the index records, and whose files are not as it has them; of the same size, so that git must read."""
    place = inside(repo, path)
    written("first\n")(place / "file")
    repo.git("add", ".", cwd=place)
    repo.git("commit", "--quiet", "--message", "File", cwd=place)
    repo.git("add", path)
    written("other\n")(place / "file")
    return place


# What is planted, and whether the volume's commits can still be read.
VOLUMES: dict[str, tuple[Callable[[AgentRepo], object], bool]] = {
    "gitdir-file": (moved(written("gitdir: .real\n")), True),
    "gitdir-link": (moved(linked(".real")), True),
    "gitdir-out-of-the-volume": (instead(written("gitdir: /\n")), False),
    "gitdir-link-to-itself": (instead(linked(".git")), False),
    "gitdir-link-out": (instead(linked("/proc/self")), False),
    "gitdir-empty": (instead(Path.mkdir), False),
    "gitdir-garbage": (instead(written(b"\xff\0gitdir")), False),
    "gitdir-pipe": (instead(fifo), False),
    "gitdir-socket": (instead(a_socket), False),
    "gitdir-device": (instead(a_device), False),
    "gitdir-whiteout": (instead(a_whiteout), False),
    "commondir": (common, True),
    "commondir-pipe": (in_git("commondir"), True),
    "commondir-whiteout": (in_git("commondir", a_whiteout), True),
    "commondir-out": (in_git("commondir", written("/etc\n")), True),
    "head-pipe": (in_git("HEAD"), False),
    "head-device": (in_git("HEAD", a_device), False),
    "head-whiteout": (in_git("HEAD", a_whiteout), False),
    "head-link-to-zero": (in_git("HEAD", linked("/dev/zero")), False),
    "head-climbs-out": (in_git("HEAD", written("ref: refs/../../../etc/passwd\n")), False),
    "head-of-old": (in_git("HEAD", linked(f"refs/heads/{BRANCH}")), True),
    "config-pipe": (in_git("config"), True),
    "config-includes-a-device": (in_git("config", written("[include]\n\tpath = /dev/zero\n")), True),
    "config-of-tomorrow": (of_tomorrow, True),
    "index-pipe": (in_git("index"), True),
    "index-device": (in_git("index", a_device), True),
    "index-whiteout": (in_git("index", a_whiteout), True),
    "index-marks": (hidden_changes, True),
    "exclude-device": (in_git("info/exclude", a_device), True),
    "packed-refs-pipe": (in_git("packed-refs"), True),
    "packed-refs-garbage": (in_git("packed-refs", written(b"\xff\xfe\0" * 1000)), True),
    "ref-pipe": (in_git("refs/heads/pipe"), True),
    "ref-missing": (in_git("refs/heads/missing", written("1" * 40 + "\n")), True),
    "ref-garbage": (in_git("refs/heads/garbage", written(b"\xff" * 100)), True),
    "refs-in-circles": (circles, True),
    "alternates-pipe": (in_git("objects/info/alternates"), True),
    "alternates-whiteout": (in_git("objects/info/alternates", a_whiteout), True),
    "alternates-out": (in_git("objects/info/alternates", written("/proc\n/dev\n../objects\n")), True),
    "alternates-in-the-volume": (shared, True),
    "objects-pipe": (objects_with_a_pipe, True),
    "commit-graph-garbage": (in_git("objects/info/commit-graph", written(b"CGPH" + b"\xff" * 500)), True),
    "midx-pipe": (in_git("objects/pack/multi-pack-index"), True),
    "grafts": (grafts, True),
    "replace-refs": (replaced, True),
    "shallow-pipe": (in_git("shallow"), True),
    "shallow-planted": (falsely_shallow, True),
    "ignore-pipe": (lambda repo: fifo(repo.work / "sub/.gitignore"), True),
    "ignore-whiteout": (lambda repo: a_whiteout(repo.work / "sub/.gitignore"), True),
    "attributes-pipe": (lambda repo: fifo(repo.work / ".gitattributes"), True),
    "attributes-whiteout": (lambda repo: a_whiteout(repo.work / ".gitattributes"), True),
    "ref-whiteout": (in_git("refs/heads/whiteout", a_whiteout), True),
    "shallow-whiteout": (in_git("shallow", a_whiteout), True),
    "work-tree-whiteout": (lambda repo: a_whiteout(repo.work / "sub/odd"), True),
    "whiteout-of-a-directory": (lambda repo: a_whiteout(repo.work / "away"), True),
    "head-pipe-inside": (lambda repo: fifo(inside(repo) / ".git/HEAD"), True),
    "commondir-empty-inside": (lambda repo: written("")(inside(repo) / ".git/commondir"), True),
    "commondir-of-zeros-inside": (lambda repo: linked("/dev/zero")(inside(repo) / ".git/commondir"), True),
    "commondir-pipe-inside": (lambda repo: fifo(inside(repo) / ".git/commondir"), True),
    "head-pipe-behind-a-file": (lambda repo: behind(repo, written("gitdir: away \n")), True),
    "head-pipe-behind-a-link": (lambda repo: behind(repo, linked("away ")), True),
    "gitmodules-pipe": (lambda repo: (recorded(repo), fifo(repo.work / ".gitmodules")), True),
    "gitmodules-in-conflict": (
        lambda repo: (recorded(repo), written("<<<<<<<")(repo.work / ".gitmodules")),
        True,
    ),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_files_come_home_from_every_volume_and_history_where_it_is(repo: AgentRepo, name: str) -> None:
    plant, readable = VOLUMES[name]
    head, idea = repo.git("rev-parse", "HEAD"), repo.git("rev-parse", "idea")
    (repo.work / "sub").mkdir()
    repo.write("sub/file")
    plant(repo)

    report = salvaged(repo)

    files = {file for file in repo.files(report.worktree) if not file.startswith("inner")}
    assert files - {".gitattributes", ".gitmodules"} == {*FILES, "sub/file"}
    assert repo.in_relay("show", f"{report.worktree}:README") == "changed"
    found = refs(repo)
    if readable:
        assert (report.head, found["head"]) == (head, head)
        assert found["heads/idea"] == idea
        if name == "index-marks":
            assert repo.in_relay("show", f"{report.worktree}:work.txt") == "changed, too"
        assert repo.in_relay("rev-list", "--count", head) == "2"
    else:
        assert report.head == ""
        assert report.notes != ()
        if name.startswith("head-"):
            assert found["heads/idea"] == idea
            assert found[f"heads/{BRANCH}"] == head


def patched(repo: AgentRepo, old: bytes, new: bytes) -> None:
    """Other bytes in the index, as no git would write them, and the sum of it right again."""
    index = repo.work / ".git/index"
    content = index.read_bytes()[:-20]
    assert content.count(old) == 1
    content = content.replace(old, new)
    index.write_bytes(content + hashlib.sha1(content).digest())


def record_by(repo: AgentRepo, how: str) -> Path:
    """A repository in the work tree that the index records, told in a way that is easy to miss."""
    if how == "in-place-of-a-file":
        repo.write("inner", "a file\n")
        repo.git("add", "inner")
        (repo.work / "inner").unlink()
        return inside(repo)
    place = recorded(repo)
    match how:
        case "other-mode":
            patched(repo, b"\0\0\xe0\0", b"\xff\xff\xe1\xff")
        case "other-name":
            oid = repo.git("rev-parse", "HEAD", cwd=place)
            repo.git("update-index", "--force-remove", "inner")
            repo.git("update-index", "--add", "--cacheinfo", f"160000,{oid},!/inner")
            patched(repo, b"!/inner", b"./inner")
        case "split-index":
            repo.git("update-index", "--split-index")
        case "assumed-unchanged":
            repo.git("update-index", "--assume-unchanged", "inner")
        case "skipped":
            repo.git("update-index", "--skip-worktree", "inner")
    return place


HOW_RECORDED = (
    "plainly",
    "other-mode",
    "other-name",
    "split-index",
    "assumed-unchanged",
    "skipped",
    "in-place-of-a-file",
)


@pytest.mark.parametrize("how", HOW_RECORDED)
def test_no_program_of_a_repository_inside_runs(repo: AgentRepo, how: str) -> None:
    """git that looks whether a recorded repository is clean starts another one in it, with its configuration."""
    place = record_by(repo, how)
    trap = f"sh -c 'touch {repo.root}/ran; cat'"
    settings = {
        "filter.evil.clean": trap,
        "filter.evil.required": "true",
        "core.fsmonitor": trap,
        "core.hooksPath": "evil",
        "core.gitProxy": trap,
        "core.sshCommand": trap,
        "core.alternateRefsCommand": trap,
        "diff.external": trap,
        "status.submoduleSummary": "true",
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "evil",
        "remote.evil.url": f"ext::{trap}",
        "remote.evil.uploadpack": trap,
        "remote.evil.promisor": "true",
        "protocol.ext.allow": "always",
    }
    (place / ".gitattributes").write_text("* filter=evil diff=evil\n")
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        written(f"#!/bin/sh\n{trap}\n")(place / "evil" / hook)
        (place / "evil" / hook).chmod(0o755)
    for name, value in settings.items():
        repo.git("config", name, value, cwd=place)

    report = salvaged(repo)

    assert not (repo.root / "ran").exists()
    assert {*FILES, "inner"} - {"inner" if how == "other-name" else ""} == set(repo.files(report.worktree))
    if how != "plainly":
        return
    # And where git in there would have to fetch what is not there from a remote that is a program.
    repo.git("config", "--unset", "filter.evil.clean", cwd=place)
    repo.git("config", "filter.evil.process", trap, cwd=place)
    shutil.rmtree(place / ".git/objects")
    (place / ".git/objects").mkdir()
    salvaged(repo)
    assert not (repo.root / "ran").exists()


def test_many_failures_end_with_the_time(repo: AgentRepo) -> None:
    """Of short commands none runs out of time by itself."""
    repo.write(".gitattributes", "".join(f"{one}.u working-tree-encoding=NONE-{one}\n" for one in range(500)))
    for one in range(500):
        repo.write(f"{one}.u")
    began = time.monotonic()
    salvage(repo.config, repo.place, began + 1.0)
    assert time.monotonic() - began < 3.0


@pytest.mark.parametrize("kind", ["blob", "tree", "commit", "pack"])
def test_damaged_objects_cost_the_history_not_the_files(repo: AgentRepo, kind: str) -> None:
    """A blob of a commit that only its content shows to be damaged, and what everybody sees."""
    if kind == "pack":
        repo.git("gc", "--quiet")
        (damaged,) = (repo.work / ".git/objects/pack").glob("*.pack")
        damaged.chmod(0o644)
        with damaged.open("r+b") as file:
            file.seek(12)
            file.write(b"\xff" * 200)
    else:
        what = {"blob": "HEAD:work.txt", "tree": "HEAD^{tree}", "commit": "HEAD"}[kind]
        oid = repo.git("rev-parse", what)
        damaged = repo.work / f".git/objects/{oid[:2]}/{oid[2:]}"
        damaged.chmod(0o644)
        damaged.write_bytes(b"\0" * damaged.stat().st_size)

    report = salvaged(repo)

    assert repo.files(report.worktree) == FILES
    assert any("history cannot be read" in note for note in report.notes)


def test_one_broken_branch_does_not_hide_the_others(repo: AgentRepo) -> None:
    idea = repo.git("rev-parse", "idea")
    repo.git(
        "update-ref", "refs/heads/partly", repo.git("commit-tree", "-p", "idea", "-m", "p", "HEAD^{tree}")
    )
    oid = repo.git("rev-parse", "partly")
    (repo.work / f".git/objects/{oid[:2]}/{oid[2:]}").unlink()

    report = salvaged(repo)

    assert refs(repo)["heads/idea"] == idea
    assert "1 branches cannot be read: partly" in report.notes


@pytest.mark.parametrize("number", [150, pytest.param(20_000, marks=pytest.mark.slow)])
def test_thousands_of_branches_are_all_kept_by_a_few_refs(repo: AgentRepo, number: int) -> None:
    lines = []
    for one in range(number):
        message = f"branch {one}\n"
        lines.append(
            f"commit refs/heads/many/{one}\ncommitter A <a@example.invalid> 1767323045 +0000\n"
            f"data {len(message)}\n{message}\nfrom refs/heads/idea^0\n\n"
        )
    script = repo.root / "script"
    script.write_text("".join(lines))
    with script.open() as stdin:
        subprocess.run(("git", "fast-import", "--quiet"), cwd=repo.work, stdin=stdin, check=True)

    first = salvaged(repo)
    kept = refs(repo)
    assert len(kept) < 30
    reachable = set(repo.in_relay("rev-list", *kept.values()).splitlines())
    wanted = set(repo.git("for-each-ref", "--format=%(objectname)", "refs/heads/many").splitlines())
    assert len(wanted) == number
    assert wanted <= reachable
    assert any("more branches" in note for note in first.notes)
    assert salvaged(repo) == first
    assert refs(repo) == kept


def test_planted_branch_names_that_git_does_not_take_lose_nothing(repo: AgentRepo) -> None:
    oid = repo.git("commit-tree", "-p", "idea", "-m", "odd", "HEAD^{tree}")
    names = ["x.lock", "@{u}", "-option", "a..b", "idea/below", "a\x7fb", "x" * 250, "漢" * 200, "nul\0l"]
    (repo.work / ".git/packed-refs").write_text("".join(f"{oid} refs/heads/{name}\n" for name in names))

    salvaged(repo)

    assert oid in repo.in_relay("rev-list", *refs(repo).values()).splitlines()


def test_directories_deeper_than_a_path_may_be_long(repo: AgentRepo) -> None:
    here = os.open(repo.work, os.O_RDONLY)
    try:
        os.fchdir(here)
        for _ in range(100):
            Path("d" * 200).mkdir()
            os.chdir("d" * 200)
        Path("deep").touch()
    finally:
        os.chdir("/")
        os.close(here)

    report = salvaged(repo)

    assert set(FILES) <= set(repo.files(report.worktree))
    assert any(path.startswith("ddd") for path in report.left_out), report.left_out


def test_names_of_every_kind_come_home(repo: AgentRepo) -> None:
    names = ["a\nb", "a b", '"', "-rf", "\\", "x" * 255, ".wh.README", ".wh..wh..opq", "ä", ":(top)x"]
    for name in names:
        repo.write(name)
    Path(os.fsdecode(os.fsencode(repo.work) + b"/\xff\xfe")).touch()

    report = salvaged(repo)

    command = ("git", "ls-tree", "-r", "-z", "--name-only", report.worktree)
    listed = subprocess.run(command, cwd=repo.relay, capture_output=True, check=True).stdout
    assert {os.fsencode(name) for name in names} | {b"\xff\xfe"} <= set(listed.split(b"\0"))


@pytest.mark.parametrize("number", [20_000, pytest.param(1_000_000, marks=[pytest.mark.slow])])
def test_a_volume_of_many_entries_is_bounded(repo: AgentRepo, number: int) -> None:
    for one in range(number):
        if one % 1000 == 0:
            (repo.work / f"{one}").mkdir()
        (repo.work / f"{one // 1000 * 1000}/{one}").symlink_to("x")
    began = time.monotonic()
    report = salvage(repo.config, repo.place, began + 280.0)
    assert isinstance(report, Salvaged), report
    assert time.monotonic() - began < 30.0 + number / 4000
    assert len(repo.files(report.worktree)) == len(FILES) + number
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3 << 20  # KiB


@pytest.mark.parametrize("plant", ["nothing", "sparse-index", "many-refs"])
def test_a_huge_index_and_huge_refs_cost_little(repo: AgentRepo, plant: str) -> None:
    git_dir = repo.work / ".git"
    if plant == "sparse-index":
        with (git_dir / "index").open("r+b") as file:
            file.truncate(1 << 40)
    elif plant == "many-refs":
        oid = repo.git("rev-parse", "idea")
        with (git_dir / "packed-refs").open("w") as file:
            file.writelines(f"{oid} refs/heads/x{one}\n" for one in range(200_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    report = salvaged(repo)
    assert time.monotonic() - began < 15.0
    assert repo.files(report.worktree) == FILES
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10


def test_more_refs_than_anybody_has_are_refused_with_the_reason(repo: AgentRepo) -> None:
    with (repo.work / ".git/packed-refs").open("w") as file:
        file.writelines(f"{one:040x} refs/heads/x{one}\n" for one in range(1_000_002))
    report = tried(repo)
    assert isinstance(report, Failed)
    assert "more than 1000000 refs" in report.message


def test_a_second_salvage_makes_the_same_commits(repo: AgentRepo) -> None:
    first = salvaged(repo)
    kept = refs(repo)
    time.sleep(1.1)
    assert salvaged(repo) == first
    assert refs(repo) == kept
