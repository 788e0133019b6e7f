"""`merge`: real repositories, through the verb as a person runs it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click
import pytest

from coding_agents.errors import (
    BranchError,
    CodingAgentsError,
    MergeConflictError,
    MergeError,
    SigningError,
    UnreviewedError,
)
from coding_agents.gitsync import merging
from support.keys import allowed_signers, ssh_key
from support.repos import BRANCH, commit, head, sh
from support.review_project import Project, make_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The agent has added src/app.py and changed README; what would be recorded is in `project.records`."""
    made = make_project(tmp_path, changes=False)
    made.write("src/app.py", "print('hello')\n")
    made.commit()
    made.push()
    made.record(monkeypatch)
    return made


def git(project: Project, *words: str) -> str:
    return sh(project.repo, *words, env=project.env)


def state(project: Project) -> tuple[str, str, str]:
    """All refs, what git says of the work tree, and its files."""
    files = sorted(
        f"{path.relative_to(project.repo)} {path.read_bytes()!r}"
        for path in project.repo.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(project.repo).parts
    )
    return git(project, "for-each-ref"), git(project, "status", "--porcelain"), "\n".join(files)


# --- what it does --------------------------------------------------------------------------------------------


def test_fast_forward_with_its_files(project: Project) -> None:
    old, tip = head(project.repo, env=project.env), head(project.guest, env=project.env)
    found = project.merge()
    assert found == {
        "session": found["session"], "branch": BRANCH.short, "into": "main", "how": "fast-forward", "dry_run": False,
        "old": old, "commit": tip, "commits": 1, "files": 1, "insertions": 1, "deletions": 0,
        "work_tree": str(project.repo), "unfiltered": [], "signed": False, "conflicts": [], "blocking": [],
        "left_out": "",
    }  # fmt: skip
    assert head(project.repo, env=project.env) == tip
    assert (project.repo / "src/app.py").read_text() == "print('hello')\n"
    assert git(project, "status", "--porcelain") == ""
    assert "coding-agents merge" in git(project, "reflog", "-1", "main")
    (record,) = project.records
    assert (record["type"], record["subject"], record["required"]) == ("merged", "refs/heads/main", True)
    assert project.merge()["how"] == "nothing"
    git(project, "fsck", "--strict")


def test_a_merge_of_two_sides(project: Project) -> None:
    commit(project.repo, "mine", "x\n", env=project.env)
    found = project.merge()
    assert (found["how"], found["files"], found["commits"]) == ("merge", 1, 2)
    assert git(project, "log", "-1", "--format=%an %ae %cn %s%n%b").strip() == (
        "Ada ada@example.test Ada Merge branch 'demo/work'"
    )
    assert git(project, "rev-list", "--parents", "-1", "HEAD").split()[2] == head(
        project.guest, env=project.env
    )
    assert (project.repo / "mine").exists()
    assert (project.repo / "src/app.py").exists()
    assert git(project, "status", "--porcelain") == ""
    git(project, "fsck", "--strict")


def test_a_squash_names_what_it_holds(project: Project) -> None:
    sh(project.guest, "commit", "-q", "--allow-empty", "-m", "hide \x1b[2K \u202e this", env=project.env)
    project.push()
    found = project.merge("--squash")
    assert found["how"] == "squash"
    body = git(project, "log", "-1", "--format=%B%P")
    assert "\x1b" not in body
    assert "\u202e" not in body
    assert "* work\n* hide \\x1b[2K" in body
    assert "Agent: demo\nSession: " in body
    assert body.endswith(found["old"])
    assert git(project, "rev-list", "--count", f"{found['old']}..HEAD") == "1"


def test_no_ff_and_a_message_of_ones_own(project: Project) -> None:
    found = project.merge("--no-ff", "--message", "Take it")
    assert found["how"] == "merge"
    assert git(project, "log", "-1", "--format=%s %P").split()[:2] == ["Take", "it"]
    assert len(git(project, "log", "-1", "--format=%P").split()) == 2


def test_ff_only_refuses_two_sides(project: Project) -> None:
    commit(project.repo, "mine", "x\n", env=project.env)
    unchanged(project, MergeError, "no fast-forward", "--ff-only")


def test_a_branch_that_is_nowhere_checked_out(project: Project) -> None:
    git(project, "branch", "next")
    (project.repo / "README").write_text("not committed\n")
    before = state(project)[1:]
    found = project.merge("--into", "next")
    assert (found["into"], found["work_tree"]) == ("next", "")
    assert head(project.repo, "next", env=project.env) == head(project.guest, env=project.env)
    assert state(project)[1:] == before


def test_a_linked_work_tree(project: Project, tmp_path: Path) -> None:
    git(project, "worktree", "add", "-q", "-b", "next", str(tmp_path / "linked"))
    found = project.merge("--into", "next")
    assert found["work_tree"] == str(tmp_path / "linked")
    assert (tmp_path / "linked/src/app.py").exists()
    assert sh(tmp_path / "linked", "status", "--porcelain", env=project.env) == ""
    assert not (project.repo / "src").exists()


def test_a_dry_run_changes_nothing_and_records_nothing(project: Project) -> None:
    commit(project.repo, "mine", "x\n", env=project.env)
    objects = sorted((project.repo / ".git/objects").rglob("*"))
    before = state(project)
    found = project.merge("--dry-run")
    assert (found["how"], found["dry_run"], found["commit"]) == ("merge", True, "")
    assert state(project) == before
    assert sorted((project.repo / ".git/objects").rglob("*")) == objects
    assert project.records == []
    assert not (project.session.directory / "merging.git").exists()


def test_without_its_relay_the_branch_at_home_is_merged(project: Project) -> None:
    from coding_agents.model.session import Saved

    tip = head(project.guest, env=project.env)
    git(project, "fetch", "-q", str(project.guest), f"{tip}:{BRANCH.ref}")
    project.session.update(saved=Saved(relay_tip=str(tip), integrated=BRANCH.ref, where="branch"))
    relay = project.session.relay.git_dir
    relay.rename(relay.with_name("gone"))
    commit(project.repo, "mine", "x\n", env=project.env)
    assert project.merge()["how"] == "merge"
    assert (project.repo / "src/app.py").exists()


# --- signed by the user ---------------------------------------------------------------------------------------


def sign_with(project: Project, tmp_path: Path, *, signs: bool = True) -> None:
    """The user's git signs with a key of ssh, and knows it."""
    key = ssh_key(tmp_path / "key")
    settings = {
        "gpg.format": "ssh", "user.signingKey": str(key.path),
        "gpg.ssh.allowedSignersFile": str(allowed_signers(tmp_path / "allowed", key)),
    }  # fmt: skip
    for name, value in settings.items():
        git(project, "config", "--global", name, value)
    if signs:
        git(project, "config", "--global", "commit.gpgSign", "true")


def choose(project: Project, mode: str) -> None:
    place = project.context.env.config_dir / "config.toml"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f'signing.mode = "{mode}"\n')


@pytest.mark.parametrize(
    ("mode", "signs", "options", "how", "signed"),
    [
        ("auto", True, ("--no-ff",), "merge", True),
        ("auto", True, ("--squash",), "squash", True),
        ("auto", True, (), "fast-forward", False),
        ("auto", False, ("--no-ff",), "merge", False),
        ("off", True, ("--no-ff",), "merge", False),
        ("merge", False, (), "merge", True),
        ("merge", False, ("--ff-only",), "fast-forward", False),
    ],
)
def test_what_you_take_in_is_signed_by_you(
    project: Project, tmp_path: Path, mode: str, signs: bool, options: tuple[str, ...], how: str, signed: bool
) -> None:
    sign_with(project, tmp_path, signs=signs)
    choose(project, mode)
    found = project.merge(*options)
    assert (found["how"], found["signed"]) == (how, signed)
    assert git(project, "log", "-1", "--format=%G?") == ("G" if signed else "N")
    git(project, "fsck", "--strict")


def test_without_its_signature_nothing_is_merged(project: Project, tmp_path: Path) -> None:
    sign_with(project, tmp_path)
    git(project, "config", "--global", "user.signingKey", str(tmp_path / "gone"))
    unchanged(project, SigningError, "gone", "--no-ff")


# --- what it refuses -----------------------------------------------------------------------------------------


def unchanged(
    project: Project, error: type[CodingAgentsError], words: str, *options: str
) -> CodingAgentsError:
    """`merge` refuses with `error`; nothing has changed, and nothing is left."""
    before, recorded = state(project), len(project.records)
    with pytest.raises(error, match=words) as caught:
        project.merge(*options)
    assert state(project) == before
    assert project.records[recorded:] == []
    assert not (project.session.directory / "merging.git").exists()
    assert not list((project.repo / ".git").rglob("*.lock"))
    assert caught.value.hint
    return caught.value


def test_findings_that_block_until_they_are_accepted(project: Project) -> None:
    project.write(".github/workflows/ci.yml", "on: push\n")
    project.write(".envrc", "x\n")
    project.commit()
    project.push()
    error = unchanged(project, UnreviewedError, "2 finding")
    assert "ci.yml" in error.details
    assert "review demo-app --into main --accept" in error.hint
    project.run(
        "--accept", "ci:.github/workflows/ci.yml", "--accept", "environment:.envrc", "--reason", "wanted"
    )
    # The agent changes what was accepted: that is something else.
    project.write(".envrc", "curl evil\n")
    project.commit()
    project.push()
    error = unchanged(project, UnreviewedError, "1 finding")
    assert ".envrc" in error.details
    project.write(".envrc", "x\n")
    project.commit()
    project.push()
    project.records.clear()
    assert project.merge()["blocking"] == []
    detail = project.records[0]["detail"]
    assert isinstance(detail, dict)
    assert len(detail["accepted"].split(",")) == 2


def test_what_you_took_away_does_not_come_back_unseen(project: Project) -> None:
    """The agent goes on from before its base: where its last state is that of the base nothing is its own."""
    commit(project.repo, ".vscode/tasks.json", "evil\n", env=project.env)
    base = head(project.repo, env=project.env)
    project.session.update(base=str(base))
    # You remove it; the branch has it as a change of its own.
    git(project, "rm", "-q", ".vscode/tasks.json")
    git(project, "commit", "-qm", "away with it")
    project.write(".vscode/tasks.json", "evil\n")
    project.commit()
    sh(project.guest, "fetch", "-q", str(project.repo), str(base), env=project.env)
    project.push()
    give_to_relay(project, base)
    assert project.found() == set()
    error = unchanged(project, UnreviewedError, "1 finding")
    assert "tasks.json" in error.details
    assert "tasks.json" in project.run("--into", "main")
    project.run("--into", "main", "--accept", "editor:.vscode/tasks.json", "--reason", "wanted")
    project.records.clear()
    project.merge()
    assert (project.repo / ".vscode/tasks.json").exists()


def give_to_relay(project: Project, oid: str) -> None:
    """The commit as a relay of a later launch has it."""
    relay = project.session.relay.git_dir
    sh(relay, "fetch", "-q", str(project.repo), oid, env=project.env)


DIRTY: dict[str, Callable[[Project], object]] = {
    "changed": lambda one: (one.repo / "README").write_text("mine\n"),
    "staged": lambda one: ((one.repo / "new").write_text("x\n"), git(one, "add", "new")),
    "removed": lambda one: (one.repo / "README").unlink(),
    "intended": lambda one: ((one.repo / "new").write_text("x\n"), git(one, "add", "-N", "new")),
    "executable": lambda one: (one.repo / "README").chmod(0o755),
}


@pytest.mark.parametrize("how", DIRTY)
def test_a_work_tree_that_is_not_clean(project: Project, how: str) -> None:
    DIRTY[how](project)
    error = unchanged(project, MergeError, "not committed")
    assert "README" in error.details or "new" in error.details


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("mine", ["src/app.py", "src/app.py/inside", "src"])
def test_what_no_commit_has_is_not_overwritten(project: Project, mine: str, ignored: bool) -> None:
    """git itself would overwrite what it ignores."""
    if ignored:
        (project.repo / ".git/info/exclude").write_text("src\n")
    (project.repo / mine).parent.mkdir(parents=True, exist_ok=True)
    (project.repo / mine).write_text("mine\n")
    assert mine in unchanged(project, MergeError, "would be overwritten").details


def test_where_a_file_makes_room_for_a_directory(project: Project) -> None:
    sh(project.guest, "rm", "-q", "README", env=project.env)
    project.write("README/inside", "x\n")
    project.commit()
    project.push()
    project.merge()
    assert (project.repo / "README/inside").read_text() == "x\n"
    assert git(project, "status", "--porcelain") == ""


BUSY: dict[str, Callable[[Project], object]] = {
    "a merge": lambda one: (one.repo / ".git/MERGE_HEAD").write_text("x\n"),
    "a cherry-pick": lambda one: (one.repo / ".git/CHERRY_PICK_HEAD").write_text("x\n"),
    "a bisection": lambda one: (one.repo / ".git/BISECT_START").write_text("main\n"),
}


@pytest.mark.parametrize("what", BUSY)
def test_in_the_middle_of_something(project: Project, what: str) -> None:
    BUSY[what](project)
    unchanged(project, MergeError, what)


def test_a_branch_that_is_being_rebased(project: Project) -> None:
    git(project, "checkout", "-q", "--detach")
    (project.repo / ".git/rebase-merge").mkdir()
    (project.repo / ".git/rebase-merge/head-name").write_text("refs/heads/main\n")
    unchanged(project, MergeError, "a rebase")


def test_a_branch_that_is_checked_out_twice_or_in_a_place_that_is_gone(
    project: Project, tmp_path: Path
) -> None:
    git(project, "worktree", "add", "-q", "-f", str(tmp_path / "second"), "main")
    unchanged(project, MergeError, "several work trees")
    git(project, "worktree", "add", "-q", "-b", "next", str(tmp_path / "third"))
    (tmp_path / "third").rename(tmp_path / "elsewhere")
    unchanged(project, MergeError, "is gone", "--into", "next")


def test_conflicts_are_told_with_how_to_go_on(project: Project) -> None:
    project.write("README", "theirs\n")
    project.write("odd\n\x1b[2Kname", "theirs\n")
    project.commit()
    project.push()
    project.run("--accept", "path.hidden:odd\n\x1b[2Kname", "--reason", "x")
    commit(project.repo, "README", "ours\n", env=project.env)
    commit(project.repo, "odd\n\x1b[2Kname", "ours\n", env=project.env)
    error = unchanged(project, MergeConflictError, "2 path")
    assert sorted(line.split(":")[0] for line in error.details.splitlines()) == [
        "README",
        "odd\\x0a\\x1b[2Kname",
    ]
    assert "git -c core.hooksPath=/dev/null merge demo/work" in error.hint
    found = project.merge("--dry-run")
    assert {one["path"] for one in found["conflicts"]} == {"README", "odd\n\x1b[2Kname"}


@pytest.mark.parametrize(("attribute", "merges"), [("-merge", False), ("merge=mine", False), ("merge=union", False),
                                                  ("binary", False), ("merge", True), ("diff", True)])  # fmt: skip
def test_files_that_are_not_to_be_merged_as_text(project: Project, attribute: str, merges: bool) -> None:
    lines = [f"{number}\n" for number in range(20)]
    commit(project.repo, "lock", "".join(lines), env=project.env)
    commit(project.repo, ".gitattributes", f"lock {attribute}\n", env=project.env)
    base = head(project.repo, env=project.env)
    project.session.update(base=str(base))
    sh(project.guest, "pull", "-q", "--rebase", str(project.repo), "main", env=project.env)
    project.write("lock", "".join(["theirs\n", *lines[1:]]))
    project.commit()
    project.push()
    give_to_relay(project, base)
    commit(project.repo, "lock", "".join([*lines[:-1], "ours\n"]), env=project.env)
    if merges:
        project.merge()
        assert (project.repo / "lock").read_text() == "".join(["theirs\n", *lines[1:-1], "ours\n"])
    else:
        assert "lock" in unchanged(project, MergeConflictError, "1 path").details


def test_a_target_that_is_not_there(project: Project) -> None:
    unchanged(project, BranchError, "no branch 'nowhere'", "--into", "nowhere")
    unchanged(project, BranchError, "own branch", "--into", BRANCH.short)


def test_an_old_git_only_fast_forwards(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "git_version", lambda _: (2, 34, 1))
    commit(project.repo, "mine", "x\n", env=project.env)
    assert "2.38" in unchanged(project, MergeError, "git 2.34.1 cannot merge").hint
    git(project, "reset", "-q", "--hard", "HEAD~1")
    assert project.merge()["how"] == "fast-forward"


def test_no_record_no_merge(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from coding_agents.errors import AuditError

    class Full:
        def ask(self, _op: object, **fields: object) -> dict[str, object]:
            raise AuditError("cannot record merged")

    monkeypatch.setattr("coding_agents.supervisor.context.SessionContext.supervisor", lambda _self: Full())
    before = state(project)
    with pytest.raises(AuditError):
        project.merge()
    assert state(project) == before


# --- races and kills -----------------------------------------------------------------------------------------


def test_a_branch_that_moves_meanwhile_is_not_overwritten(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files go back to what they were."""
    from coding_agents.gitsync import forward

    real = forward._move

    def moved(*args: object) -> None:
        tree = git(project, "rev-parse", "HEAD^{tree}")
        other = git(project, "commit-tree", tree, "-p", "HEAD", "-m", "another's")
        git(project, "update-ref", "refs/heads/main", other)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(forward, "_move", moved)
    with pytest.raises(MergeError, match="could not be moved"):
        project.merge()
    assert git(project, "log", "-1", "--format=%s", "main") == "another's"
    assert git(project, "status", "--porcelain") == ""
    assert not (project.repo / "src/app.py").exists()


def test_one_that_was_killed_after_the_files_is_finished(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coding_agents.gitsync import forward

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(forward, "_move", killed)
        with pytest.raises(click.Abort):
            project.merge()
    assert git(project, "status", "--porcelain") == "A  src/app.py"
    assert project.merge()["how"] == "fast-forward"
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize("link", ["src", "src/app.py"])
def test_through_no_link_of_yours_is_written(project: Project, tmp_path: Path, link: str) -> None:
    """One that no commit has, also where git ignores it: what it leads to is not the merge's."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (project.repo / ".git/info/exclude").write_text("src\n")
    (project.repo / link).parent.mkdir(exist_ok=True)
    (project.repo / link).symlink_to(elsewhere if link == "src" else elsewhere / "app.py")
    with pytest.raises(MergeError, match="would be overwritten"):
        project.merge()
    assert list(elsewhere.iterdir()) == []
    assert (project.repo / link).is_symlink()


def test_links_of_the_branch_are_written_as_links_and_nothing_through_them(
    project: Project, tmp_path: Path
) -> None:
    """First a link out of the tree, then files below its name: git takes the link away before it writes these."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (project.guest / "out").symlink_to(elsewhere)
    project.commit()
    project.push()
    project.run("--accept", "symlink.outside:out", "--reason", "x")
    project.merge()
    assert (project.repo / "out").is_symlink()
    (project.guest / "out").unlink()
    project.write("out/planted", "x\n")
    project.commit()
    project.push()
    project.merge()
    assert (project.repo / "out/planted").read_text() == "x\n"
    assert list(elsewhere.iterdir()) == []


# --- nothing runs --------------------------------------------------------------------------------------------


def test_files_stay_as_stored_where_a_filter_would_run(project: Project, tmp_path: Path) -> None:
    """Whatever names the filter, and whether it is required."""
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n: > {ran}\ncat\n")
    program.chmod(0o755)
    project.write(".gitattributes", "*.bin filter=lfs\n*.far filter=far\n*.x filter=ev=il\n")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12\n"
    for name in ("a.bin", "b.far", "c.x"):
        project.write(name, pointer)
    project.commit()
    project.push()
    for key in ("smudge", "clean", "process"):
        git(project, "config", f"filter.ev=il.{key}", str(program))
        git(project, "config", f"filter.lfs.{key}", str(program))
    git(project, "config", "filter.lfs.required", "true")
    sh(project.repo, "config", "--global", "filter.far.smudge", str(program), env=project.env)
    sh(project.repo, "config", "--global", "filter.far.required", "true", env=project.env)
    found = project.merge()
    assert found["unfiltered"] == ["a.bin", "b.far", "c.x"]
    assert (project.repo / "a.bin").read_text() == pointer
    assert not ran.exists()


def test_large_files_are_pointers_until_you_ask_for_them(project: Project) -> None:
    """Real Git LFS, whose objects are there, as the end of a session brings them: your own command, and no other."""
    sh(project.repo, "lfs", "install", "--skip-repo", env=project.env)
    data = b"large\n" * 100
    digest = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n"
    off = ("-c", "filter.lfs.clean=", "-c", "filter.lfs.process=", "-c", "filter.lfs.required=false")
    project.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    project.write("a.bin", pointer)
    sh(project.guest, *off, "add", "-A", env=project.env)
    sh(project.guest, *off, "commit", "-qm", "x", env=project.env)
    project.push()
    place = project.repo / f".git/lfs/objects/{digest[:2]}/{digest[2:4]}/{digest}"
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    assert project.merge()["unfiltered"] == ["a.bin"]
    assert (project.repo / "a.bin").read_text() == pointer
    assert git(project, "status", "--porcelain") == ""
    git(project, "lfs", "checkout")
    assert (project.repo / "a.bin").read_bytes() == data
    assert git(project, "status", "--porcelain") == ""


def test_nothing_that_the_branch_or_your_settings_name_runs(project: Project, tmp_path: Path) -> None:
    """The verb as a whole, where your hooks lie in the tree (husky): a merge of two sides, its files, and a squash.

    tests/component/test_git_triggers.py plants each trigger, at each level, under what this verb is made of.
    """
    ran = tmp_path / "ran"
    program = f"#!/bin/sh\n: > {ran}\ncat 2>/dev/null\nexit 0\n"
    script = tmp_path / "program"
    script.write_text(program)
    script.chmod(0o755)
    (tmp_path / "attributes").write_text("* merge=evil diff=evil filter=evil\n")
    settings = {
        "core.hooksPath": ".husky", "core.fsmonitor": str(script), "merge.evil.driver": f"{script} %A",
        "diff.evil.textconv": str(script), "diff.evil.command": str(script), "diff.external": str(script),
        "filter.evil.smudge": str(script), "filter.evil.clean": str(script), "core.editor": str(script),
        "gpg.program": str(script), "core.pager": str(script), "core.attributesFile": str(tmp_path / "attributes"),
    }  # fmt: skip
    lines = [f"{number}\n" for number in range(20)]
    for number, options in enumerate(((), ("--squash",))):
        for hook in ("post-checkout", "post-merge", "pre-merge-commit", "post-index-change", "reference-transaction",
                     "prepare-commit-msg", "commit-msg", "post-commit"):  # fmt: skip
            project.write(f".husky/{hook}", f"{program}# {number}\n", 0o755)
        project.write(".gitattributes", f"* diff=evil filter=evil ident\n# {number}\n")
        project.write("both", "".join([f"theirs {number}\n", *lines]))
        project.commit()
        project.push()
        accept_all(project)
        commit(project.repo, "mine", f"{number}\n", env=project.env)
        if number:  # both sides have changed it
            commit(project.repo, "both", "".join(["theirs 0\n", *lines, "ours\n"]), env=project.env)
        for place in ((), ("--global",)):
            for key, value in settings.items():
                git(project, "config", *place, key, value)
        assert project.merge(*options)["commit"]
        assert not ran.exists()
        for place in ((), ("--global",)):
            for key in settings:
                git(project, "config", *place, "--unset", key)
    assert (project.repo / "both").read_text() == "".join(["theirs 1\n", *lines, "ours\n"])


def accept_all(project: Project) -> None:
    for one in project.json()["findings"]:
        if one["severity"] == "block":
            project.run("--accept", one["id"], "--reason", "x")


def test_a_repository_in_the_tree_is_no_repository_to_us(project: Project) -> None:
    """`.git` in any spelling comes into no index, whoever accepts it."""
    for name in (".git", ".GIT", ".g\u200cit", "git~1"):
        assert not _enters(project, name), name


def _enters(project: Project, name: str) -> bool:
    """Whether a commit with `name` at its top is merged into the work tree."""
    blob = sh(project.guest, "hash-object", "-w", "--stdin", env=project.env, stdin="x\n")
    listing = f"100644 blob {blob}\t{name}\0" + f"100644 blob {blob}\tREADME\0"
    tree = sh(project.guest, "mktree", "-z", env=project.env, stdin=listing)
    made = sh(
        project.guest,
        "commit-tree",
        tree,
        "-p",
        head(project.guest, env=project.env),
        "-m",
        "x",
        env=project.env,
    )
    sh(project.guest, "update-ref", "HEAD", made, env=project.env)
    project.push()
    accept_all(project)
    before = state(project)
    with suppress(CodingAgentsError):
        project.merge()
    assert (project.repo / ".git").is_dir()
    return state(project) != before or (name != ".git" and (project.repo / name).exists())


def test_what_a_person_reads_moves_no_cursor(project: Project) -> None:
    """Names, rules and conflicts, in the words of the verb and of its errors."""
    from coding_agents.cli import merge as verb

    name = "a\x1b[2K\u202e\nb"
    project.write(f"{name}/.envrc", "x\n")
    project.write(name.replace("\n", ""), "theirs\n")
    project.write(".gitattributes", "* filter=lfs\n")
    project.commit()
    project.push()
    error = unchanged(project, UnreviewedError, "finding")
    assert error.details.replace("\n", "").isprintable()
    assert project.run("--dry-run", verb=verb.command).replace("\n", "").isprintable()
    accept_all(project)
    said = project.run(verb=verb.command)
    assert said.replace("\n", "").isprintable()
    assert "no filter ran: a\\x1b[2K" in said


def test_line_endings_are_as_yours(project: Project) -> None:
    sh(project.repo, "config", "--global", "core.autocrlf", "true", env=project.env)
    project.merge()
    assert (project.repo / "src/app.py").read_bytes() == b"print('hello')\r\n"
    assert git(project, "status", "--porcelain") == ""


# --- size ----------------------------------------------------------------------------------------------------


def test_ten_thousand_files(project: Project) -> None:
    for number in range(10_000):
        path = project.guest / f"many/{number % 100}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n")
    project.commit()
    project.push()
    commit(project.repo, "mine", "x\n", env=project.env)
    began = time.monotonic()
    assert project.merge()["files"] == 10_001
    assert time.monotonic() - began < 30 * (1 + os.getloadavg()[0])
    assert (project.repo / "many/99/9999").read_text() == "9999\n"
