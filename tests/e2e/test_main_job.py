"""The main job: one command runs an agent in a locked container and brings its work back as a branch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.product import Product, git, wait_for

pytestmark = pytest.mark.engine


def test_demo_agent_brings_back_a_tested_commit(product: Product, repo: Path) -> None:
    result = product.launch(repo, "-p", "index the files")
    assert git(repo, "log", "--format=%an", "-1", "demo/session-1") == "Uma User"
    assert "CONTENTS.md" in git(repo, "ls-tree", "--name-only", "demo/session-1").splitlines()
    assert "1 commit(s) on branch demo/session-1" in result.err
    assert git(repo, "status", "--porcelain") == ""
    assert git(repo, "branch", "--show-current") == "main"


def test_command_passes_output_and_status_on(product: Product, repo: Path) -> None:
    result = product.launch(repo, "--", "sh", "-c", "echo out; echo err >&2; exit 7", status=7)
    assert result.out == "out\n"
    assert "err" in result.err


@pytest.mark.alike
def test_output_without_a_last_line_end_is_passed_on_whole(product: Product, repo: Path) -> None:
    for _ in range(4):  # Docker 20.10 loses it in about every second session
        result = product.launch(repo, "--rm", "--", "sh", "-c", "echo first; printf last; printf err >&2")
        assert result.out == "first\nlast"
        assert "err" in result.err


@pytest.mark.alike
def test_a_submodule_goes_in_and_the_work_in_it_comes_back_into_it(product: Product, repo: Path) -> None:
    origin = repo.parent / "origin"
    git(repo.parent, "clone", "--quiet", str(repo), str(origin))
    for name in ("lib", "other"):
        git(repo, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(origin), name)
    git(repo, "commit", "--quiet", "-m", "submodules")
    (repo / "other/mine").write_text("the user's\n")
    status = git(repo, "status", "--porcelain").strip()
    script = "git status --porcelain; git submodule update; git submodule status; cat other/mine; echo new > lib/new"
    result = product.launch(repo, "--name", "sub", "--", "sh", "-c", script)
    outside = git(repo, "submodule", "status").splitlines()
    assert [line.split()[:2] for line in result.out.splitlines()[1:3]] == [
        line.split()[:2] for line in outside
    ]
    assert result.out.splitlines()[0].strip() == status
    assert result.out.endswith("the user's\n")
    (ref,) = git(
        repo / "lib", "for-each-ref", "--format=%(refname)", "refs/coding-agents/nested/"
    ).splitlines()
    assert git(repo / "lib", "show", f"{ref}:new") == "new"
    for place in (repo, repo / "other"):
        assert git(place, "for-each-ref", "refs/coding-agents/nested/") == ""
    product.run("nested", "demo-sub", "lib")
    assert git(repo / "lib", "show", "demo/session-1:new") == "new"


def test_uncommitted_work_of_the_agent_comes_back(product: Product, repo: Path) -> None:
    product.launch(repo, "--message", "saved by us", "-b", "fix", "--", "sh", "-c", "echo new > new.txt")
    assert git(repo, "show", "demo/fix:new.txt") == "new"
    assert git(repo, "log", "--format=%s", "-1", "demo/fix") == "saved by us"


@pytest.mark.alike
def test_a_file_renamed_over_another_of_its_size_and_second_comes_back(product: Product, repo: Path) -> None:
    for name in ("one", "two", "old", "new"):
        (repo / name).write_text(f"{name}\n")
        os.utime(repo / name, (1_700_000_000, 1_700_000_000))
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "-m", "of one size and second")
    (repo / "new").rename(repo / "old")
    result = product.launch(repo, "--", "sh", "-c", "git status --porcelain; mv one two")
    assert result.out == " D new\n M old\n"
    assert git(repo, "show", "demo/session-1:two") == "one"
    assert git(repo, "show", "demo/session-1:old") == "new"
    assert not {"one", "new"} & set(git(repo, "ls-tree", "--name-only", "demo/session-1").splitlines())


@pytest.mark.alike
def test_the_users_uncommitted_changes_go_in_as_they_are(product: Product, repo: Path) -> None:
    (repo / "README.md").write_text("changed\n")
    (repo / "notes.txt").write_text("untracked\n")
    (repo / ".env").write_text("TOKEN=x\n")
    before = git(repo, "status", "--porcelain").replace("?? .env\n", "")
    result = product.launch(repo, "--", "git", "status", "--porcelain")
    assert result.out.strip() == before.strip()
    assert ".env" in result.err  # named as left out
    assert git(repo, "status", "--porcelain") != ""


@pytest.mark.alike
def test_clean_starts_from_head(product: Product, repo: Path) -> None:
    (repo / "README.md").write_text("changed\n")
    result = product.launch(repo, "--clean", "--", "sh", "-c", "git status --porcelain; cat README.md")
    assert result.out == "hello\n"


def test_detached_session_lives_until_stop(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "echo one > one.txt; sleep 600")
    assert product.state(name) == "running"
    wait_for(lambda: "one" in product.exec(name, "cat one.txt 2>/dev/null || true").out, "the first file")
    assert "one.txt" in product.run("diff", name, "--stat").out
    product.run("stop", name)
    assert product.state(name) == "stopped"
    assert git(repo, "show", "demo/session-1:one.txt") == "one"


def test_stopped_session_starts_again_where_it_was(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "test -e again.txt && sleep 600; touch again.txt; sleep 600")
    wait_for(lambda: product.exec(name, "test -e again.txt", status=None).status == 0, "the first run")
    product.run("stop", name)
    product.run("start", name)
    assert product.exec(name, "ls again.txt").out.strip() == "again.txt"
    product.run("stop", name)


@pytest.mark.alike
def test_the_task_of_a_prompt_is_not_run_again(product: Product, repo: Path) -> None:
    name = f"demo-{repo.name}-session-1"
    product.launch(repo, "-p", "index the files")
    started = product.run("start", name)
    assert f"coding-agents connect {name}" in started.err
    argv = product.exec(name, "ps -eo args | grep '[d]emo-agent'").out
    assert argv.split()[-1].endswith("demo-agent")  # without -p
    product.exec(name, "tmux has-session -t agent")
    product.run("stop", name)
    product.run("start", name)
    product.exec(name, "tmux has-session -t agent")
    product.run("remove", "--force", name)


@pytest.mark.alike
def test_same_branch_again_is_the_same_session(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "sleep 600", "-b", "work")
    again = product.launch(repo, "-d", "-b", "work")
    assert again.out.strip() == name
    assert again.err == f"session {name} is there already\n"
    flags = ("--memory", "2g", "--cpu", "4", "--no-push", "--network-proxy", "allow-all")
    other = product.launch(repo, "-d", "-b", "work", *flags)
    assert other.out.strip() == name
    assert other.err == (
        f"session {name} is there already: --network-proxy allow-all, --memory 2g and --no-push do not apply "
        "(it has restricted, 8g)\n"
    )
    refused = product.launch(repo, "-b", "work", "--", "true", status=125)
    assert "already there" in refused.err
    product.run("remove", "--force", name)
    assert product.leftovers() == []


def test_rm_leaves_nothing_but_the_branch(product: Product, repo: Path) -> None:
    product.launch(repo, "--rm", "--", "sh", "-c", "echo kept > kept.txt")
    assert git(repo, "show", "demo/session-1:kept.txt") == "kept"
    assert product.leftovers() == []
    assert product.run("list", "-a", "--json").json == []
    assert list(product.sessions_dir.glob("*")) == []


@pytest.mark.alike
def test_no_push_leaves_the_work_in_the_volume_until_recover(product: Product, repo: Path) -> None:
    product.launch(
        repo, "--no-push", "-b", "later", "--", "sh", "-c", "echo w > w.txt; git add .; git commit -qm w"
    )
    assert git(repo, "branch", "--list", "demo/later") == ""
    product.run("recover", f"demo-{repo.name}-later")
    assert git(repo, "show", "demo/later:w.txt") == "w"


@pytest.mark.alike
def test_list_and_launch_print_the_documented_session_object(product: Product, repo: Path) -> None:
    launched = product.launch(repo, "-d", "--json", "--", "sleep", "600").json
    keys = {"session", "name", "container", "engine", "runtime", "agent", "repo", "branch", "network", "image",
            "state", "enforced"}  # fmt: skip
    assert set(launched) == keys
    assert launched["state"] == "running"
    required = (
        "user",
        "capabilities",
        "no-new-privileges",
        "seccomp",
        "read-only-root",
        "mounts",
        "host-paths",
    )
    assert {launched["enforced"][layer] for layer in required} == {"on"}
    assert product.run("list", "--json").json == [launched]
    product.run("remove", "--force", launched["name"])


def test_audit_log_of_a_whole_session_is_sealed(product: Product, repo: Path) -> None:
    product.launch(repo, "--", "sh", "-c", "echo x > x.txt")
    name = f"demo-{repo.name}-session-1"
    assert "sealed" in product.run("audit", "verify", "--session", name).out
    types = [record["type"] for record in product.audit(name)]
    for wanted in (
        "enforcement-measured",
        "gate-opened",
        "push",
        "integrated",
        "gate-closed",
        "session-ended",
    ):
        assert wanted in types
    assert types.index("enforcement-measured") < types.index("gate-opened") < types.index("push")
    assert types.index("push") < types.index("gate-closed") < types.index("session-ended")
    session_id = product.session(name)["id"]
    product.run("remove", name)
    last = (product.kept_logs / f"{session_id}.jsonl").read_text().splitlines()[-1]
    assert '"type":"session-removed"' in last
    assert "sealed" in product.run("audit", "verify", "--session", session_id).out
