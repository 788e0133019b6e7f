"""Random edit scripts inside, the same tree outside: by automatic saves, by the salvage and by the save at the end.

The agent's half is support/edits.py, the judge support/standing.py; between them is only the product.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings

from coding_agents.gitsync.integrate import Landing
from coding_agents.gitsync.relay_repo import Identity, open_relay
from coding_agents_guest.autosave import Memory, autosave
from coding_agents_guest.deny import DenyList
from coding_agents_guest.events import Autosave, Salvaged
from coding_agents_guest.nestedref import GIVEN_HEADS, GIVEN_TREES, LATEST, NESTED, nested_ref
from coding_agents_guest.place import Place
from coding_agents_guest.salvage import salvage
from coding_agents_guest.save import save
from support.edits import AUTOSAVE, UTF_16, Step, scripts, take
from support.kinds import autocrlf, detached, dirty, lfs, lfs_pointer, plain, sha256, sparse, submodule
from support.relay_server import URL, RelayServer, serving
from support.repos import BRANCH
from support.roundtrip import Session, begin, tree_of
from support.standing import Entry, not_checked_out, standing

GIT = shutil.which("git") or "git"


class Prepared:
    """A session that every example gets a copy of. (A class with hardly a word in hypothesis' reports.)"""

    def __init__(self, session: Session) -> None:
        self.session = session


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """All files are of one second, as after a checkout, and some of one size."""
    host = dirty(tmp_path_factory.mktemp("prepared"))
    host.write("twin", "twin\n")
    host.git("add", "twin")
    then = time.time() - 60
    for name in host.git("ls-files", "--cached", "--others", "-z").split("\0"):
        if name and (host.work / name).exists():
            os.utime(host.work / name, (then, then))
    return Prepared(begin(host))


KINDS = (plain, dirty, detached, sparse, sha256, submodule, autocrlf, lfs)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: str(kind.__name__))
def prepared_kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(begin(request.param(tmp_path_factory.mktemp("prepared"))))


@dataclass
class Bench:
    """One example: a copy of the prepared session, its relay served, and what the guest finds there."""

    session: Session
    place: Place
    server: RelayServer
    memory: Memory
    exact: bool

    @property
    def relay(self) -> Path:
        return self.session.relay.git_dir

    def git(self, *words: str) -> str:
        return self.session.git(*words)

    def in_relay(self, *words: str) -> str:
        return subprocess.run(
            [GIT, *words],
            cwd=self.relay,
            env=self.session.host.env,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()


@contextmanager
def copy_of(prepared: Session, *, exact: bool) -> Iterator[Bench]:
    with TemporaryDirectory(prefix="edits-") as name:
        old, new = prepared.host.root, Path(name, "root")
        subprocess.run(["cp", "-a", str(old), str(new)], check=True)

        def moved(path: Path) -> Path:
            return new / path.relative_to(old)

        host = replace(prepared.host, root=new, work=moved(prepared.host.work))
        relay = open_relay(
            moved(prepared.filled.relay), branch=BRANCH, base=prepared.relay.base,
            base_branch=prepared.relay.base_branch, env=host.env,
        )  # fmt: skip
        filled = replace(prepared.filled, relay=relay.git_dir, inside=moved(prepared.filled.inside))
        session = replace(prepared, host=host, filled=filled, relay=relay, home=moved(prepared.home))
        with serving(relay, Path(name, "run")) as server:
            yield Bench(session, _place(session, server, Path(name, "bin")), server, Memory(), exact)


def _place(session: Session, server: RelayServer, programs: Path) -> Place:
    """As in a container, where git's system configuration names the way to the relay."""
    programs.mkdir()
    system = programs / "gitconfig"
    system.write_text(f"[core]\n\tgitProxy = {server.proxy}\n")
    wrapper = programs / "git"
    wrapper.write_text(f'#!/bin/sh\nGIT_CONFIG_SYSTEM={system} exec {GIT} "$@"\n')
    wrapper.chmod(0o755)
    return Place(
        workspace=session.work, home=session.home, relay=URL, path=f"{programs}:{os.environ['PATH']}"
    )


@example([("rename", "kept", "changed")])  # of the size that is staged of it
@example([("rename", "twin", "gone")])
@example([("git", "update-index", "--assume-unchanged", "--", "kept"), ("write", "kept", "one\n")])
@example([("git", "update-index", "--skip-worktree", "--", "kept"), ("write", "kept", "one\n")])
@example([("git", "update-index", "--assume-unchanged", "--", "kept"), ("delete", "kept")])
@example([("write", "x.ign", "one\n"), ("git", "add", "--all"), ("git", "commit", "-m", "staged"),
          ("write", ".gitignore", "*.ign\n"), ("delete", ".git/index")])  # fmt: skip
@example([("write", ".gitattributes", UTF_16), ("write", "text.u16", "odd"), ("write", "new.txt", "one\n")])
@example([("write", "text.u16", "odd"), ("git", "add", "--all"), ("git", "commit", "-m", "staged"),
          ("write", ".gitattributes", UTF_16), ("write", "text.u16", "odder")])  # fmt: skip
@example([("init", "inner"), ("commit inside", "inner"), ("git", "add", "--all"), ("delete", "inner/.git")])
@example([("write", ".gitignore", "*.ign\n"), ("write", "x.ign", "one\n"), ("git", "add", "--force", "--", "x.ign"),
          ("git", "update-index", "--split-index"), ("git", "add", "--all")])  # fmt: skip
@example([("git", "update-index", "--split-index"), ("write", "src", "")])
@example([("write", "kept", "one\n"), ("git", "commit", "-am", "all of it"), ("git", "tag", "v1"),
          ("git", "reset", "--hard", "HEAD~1")])  # fmt: skip
@example([("git", "reset", "--soft", "HEAD~1"), ("git", "checkout", "--detach")])
@example([("write", "a", "one\n"), AUTOSAVE, ("write", ".gitignore", "*\n")])
@settings(max_examples=12)
@given(scripts())
def test_what_stands_inside_comes_back(prepared: Prepared, script: list[Step]) -> None:
    _play(prepared.session, script, exact=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=20, derandomize=False, print_blob=True, suppress_health_check=[*HealthCheck])
@example([("git", "checkout", "--orphan", "fresh")])
@given(scripts())
def test_what_stands_inside_of_any_kind_comes_back(prepared_kind: Prepared, script: list[Step]) -> None:
    """Other scripts each time; a failure prints how to repeat it.

    How git stores a file may be as its attributes were at any time: it looks at none again that has not changed.
    """
    _play(prepared_kind.session, script, exact=False)


def _play(session: Session, script: list[Step], *, exact: bool) -> None:
    """Take the steps of `script` in a copy of `session`, and require that what stands comes back each way."""
    with copy_of(session, exact=exact) as one:
        host = one.session.host
        outside = _outside(one.session)
        for step in script:
            if step == AUTOSAVE:
                _autosave(one)
            else:
                take(step, one.session.work, one.session.place.environment())
        _autosave(one)
        _salvage(one)
        _save(one)
        assert _outside(one.session) == outside
        assert host.git("fsck", "--full", "--no-dangling", "--no-progress") == ""


def _autosave(one: Bench) -> None:
    """It holds everything and moves nothing."""
    before = _agents(one.session)
    expected = _expected(one)
    deadline = time.monotonic() + 60
    report, one.memory = autosave(one.session.config, one.place, Autosave(), one.memory, deadline)
    assert _agents(one.session) == before
    assert report.pushed, report
    if report.commit:
        assert one.in_relay("rev-parse", LATEST) == report.commit
    _require(one, report.commit, expected)


def _salvage(one: Bench) -> None:
    """What a salvage container finds when the guest was killed now; it leaves the volume as it is."""
    before = _agents(one.session)
    expected = _expected(one)
    head = _rev(one, "HEAD")
    one.server.identity = Identity.SALVAGE
    report = salvage(one.session.config, one.place, time.monotonic() + 60)
    one.server.identity = Identity.AGENT
    assert isinstance(report, Salvaged), report
    assert _agents(one.session) == before
    assert report.head == head
    # Without a commit of HEAD's what is missing is told against the branch that the relay has.
    _require(one, report.worktree or report.head or _branch_in_relay(one), expected)
    assert _not_in_relay(one) == set()


def _branch_in_relay(one: Bench) -> str:
    return one.in_relay("for-each-ref", "--format=%(objectname)", BRANCH.ref)


def _not_in_relay(one: Bench) -> set[str]:
    """Commits that the agent's refs and stashes name and no ref of the relay contains."""
    refs = one.git("for-each-ref", "--format=%(refname)").splitlines()
    tips = {_rev(one, ref) for ref in refs if not ref.startswith("refs/remotes/")}
    stashes = _answer(one, "log", "--walk-reflogs", "--format=%H", "refs/stash").split()
    return tips.union(stashes) - {"", *one.in_relay("rev-list", "--all").split()}


def _save(one: Bench) -> None:
    """What the guest does at the end, and the host when the relay's tip has moved."""
    session = one.session
    expected = _expected(one)
    tip, head = _rev(one, BRANCH.ref), _rev(one, "HEAD")
    report = save(session.config, one.place, deadline=time.monotonic() + 60)
    landed = session.bring()
    if not report.pushed and "beside HEAD" not in report.message:
        assert "does not continue" in report.message or not (report.head or head), report
        _salvage(one)
        return
    if landed.where is Landing.NOTHING:
        assert report.head == session.config.base
        _require(one, report.head, expected)
        return
    assert (landed.where, landed.tip) == (Landing.BRANCH, report.head)
    assert not tip or one.session.host.git("merge-base", tip, str(landed.tip)) == tip
    _require(one, report.head, expected)
    unseen = not_checked_out(session.work, one.git)
    assert _compared(one, tree_of(session.host, str(landed.tip)), expected, unseen)


Expected = tuple[
    Mapping[str, Entry], Mapping[str, Mapping[str, Entry]], Mapping[str, str], Mapping[str, Entry]
]


def _expected(one: Bench) -> Expected:
    """What stands in the work tree now as git stores it, the repositories in there, what is not checked out, and the
    files as they stand."""
    session = one.session
    stands = standing(session.work, one.git, DenyList(session.config.deny))
    stored = {path: _stored(one, path, entry) for path, entry in stands.files.items()}
    return stored, stands.inside, not_checked_out(session.work, one.git), stands.files


def _require(one: Bench, commit: str, expected: Expected) -> None:
    """`commit` in the relay (or, without one, the launch's own state) holds what is expected."""
    files, inside, unseen, _ = expected
    trees = [commit] if commit else []
    if commit in ("", one.session.config.base) and one.session.config.launch_tree:
        trees.append(one.session.config.launch_tree)
    candidates = [_relay_tree(one, tree) for tree in trees] or [{}]
    if not any(_compared(one, tree, expected, unseen) for tree in candidates):
        raise AssertionError(_difference(candidates[0], files))
    for place, content in inside.items():
        assert _inside(one, place) == content, place


def _inside(one: Bench, place: str) -> dict[str, Entry]:
    """What came back of a repository inside; of a submodule in which nothing was done what went in of it."""
    name = nested_ref([place]).removeprefix(NESTED)
    for ref in (f"{NESTED}{name}", f"{GIVEN_TREES}{name}", f"{GIVEN_HEADS}{name}"):
        if tip := one.in_relay("for-each-ref", "--format=%(objectname)", ref):
            return _relay_tree(one, tip)
    return {}


def _compared(one: Bench, tree: Mapping[str, Entry], expected: Expected, unseen: Mapping[str, str]) -> bool:
    files, _, _, stands = expected
    seen = {path: entry for path, entry in tree.items() if path not in unseen or path in files}
    if not one.exact:
        seen = {
            path: files[path] if path in stands and entry in _stored_once(path, stands[path]) else entry
            for path, entry in seen.items()
        }
    return seen == files and all(path in tree for path in unseen)


def _stored_once(path: str, entry: Entry) -> set[Entry]:
    """A file in all the words in which git may have stored it at some time, by attributes and settings of that time."""
    mode, content = entry
    texts = {content, lfs_pointer(path, content)}
    if path.endswith(".u16"):
        with suppress(UnicodeDecodeError):
            texts.add(content.decode("utf-16-le").encode())
    return {(mode, text) for one in texts for text in (one, one.replace(b"\r\n", b"\n"))}


def _difference(tree: Mapping[str, Entry], files: Mapping[str, Entry]) -> str:
    def short(entry: Entry | None) -> str:
        return "nothing" if entry is None else f"{entry[0]} {entry[1][:40]!r}"

    return "; ".join(
        f"{path!r}: came back as {short(tree.get(path))}, stands as {short(files.get(path))}"
        for path in sorted({*tree, *files})
        if tree.get(path) != files.get(path)
    )


def _relay_tree(one: Bench, tree: str) -> dict[str, Entry]:
    relay = replace(one.session.host, work=one.relay)
    return tree_of(relay, tree)


def _stored(one: Bench, path: str, entry: Entry) -> Entry:
    """As git stores it by the attributes and settings that a script can give; what is no UTF-16 as it is."""
    mode, content = entry
    if mode not in ("100644", "100755"):
        return entry
    rules = one.session.work / ".gitattributes"
    lines = rules.read_text().splitlines() if rules.is_file() and not rules.is_symlink() else []
    if path.endswith(".u16") and any("UTF-16LE" in line for line in lines):
        with suppress(UnicodeDecodeError):
            return (mode, content.decode("utf-16-le").encode())
        return entry
    if b"\r\n" not in content or b"\0" in content:
        return entry
    of_text = path.endswith(".txt") and "*.txt text eol=crlf" in lines
    raw = path.endswith(".txt") and "*.txt -text" in lines
    by_setting = not raw and _answer(one, "config", "core.autocrlf") == "input"
    return (mode, content.replace(b"\r\n", b"\n")) if of_text or by_setting else entry


def _agents(session: Session) -> tuple[object, ...]:
    """What is the agent's and not ours to move."""
    git_dir = session.work / ".git"
    index = git_dir / "index"
    refs = session.git("for-each-ref", "--format=%(refname) %(objectname)")
    stat = index.stat() if index.exists() else None
    return (
        index.read_bytes() if stat else b"", stat.st_mtime_ns if stat else 0, (git_dir / "HEAD").read_bytes(), refs,
        sorted(name.name for name in git_dir.iterdir() if not name.name.startswith("coding-agents")),
    )  # fmt: skip


def _outside(session: Session) -> tuple[object, ...]:
    host = session.host
    return (
        host.git("status", "--porcelain=v1", "-z"), (host.work / ".git/HEAD").read_bytes(),
        (host.work / ".git/index").read_bytes(), host.git("rev-parse", "refs/heads/main"),
    )  # fmt: skip


def _rev(one: Bench, name: str) -> str:
    return _answer(one, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")


def _answer(one: Bench, *words: str) -> str:
    try:
        return one.git(*words)
    except AssertionError:
        return ""
