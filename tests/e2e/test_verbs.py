"""Every verb on a real session, as a person and as a script use it; and hosts whose user is not root."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from support.faults import ORDINARY_UID, assert_nothing_left, assert_refused, kill_supervisor, ready
from support.product import Product, git, make_repo, wait_for
from support.ptys import on_terminal, shell_agent

pytestmark = pytest.mark.engine


def test_launch_on_a_terminal_attaches_and_leaving_it_lets_the_session_run(
    product: Product, repo: Path
) -> None:
    name = f"demo-{repo.name}-session-1"
    words = ("launch", str(repo), "--agent", "demo", "--network-proxy", "restricted")
    with on_terminal(product, *words) as first:
        first.sees("enforced")
        wait_for(lambda: product.state(name) == "running", "the session")
        first.sees("next task")  # what is typed before tmux has the terminal goes to the agent
        first.leaves_tmux()
        first.ends()
    if product.state(name) == "running":  # the demo agent may have finished meanwhile
        product.run("stop", name)
    product.run("remove", name)


def test_connect_shows_the_screen_and_a_second_viewer_only_reads(product: Product, repo: Path) -> None:
    shell_agent(product)
    result = product.run("launch", str(repo), "--agent", "shell", "--network-proxy", "restricted", "-d")
    name = result.out.strip()
    with on_terminal(product, "connect", name) as first:
        first.types("echo fir''st > one.txt; cat one.txt\r")
        first.sees("first")
        with on_terminal(product, "connect", name) as second:
            second.sees("first")
            second.types("echo sec''ond > two.txt\r")
            time.sleep(1.0)
            assert product.exec(name, "test -e two.txt", status=None).status == 1
        with on_terminal(product, "connect", name, "--control") as third:
            third.sees("first")
            third.types("echo thi''rd > three.txt\r")
            wait_for(
                lambda: product.exec(name, "test -e three.txt", status=None).status == 0, "the third's file"
            )
            third.leaves_tmux()
            assert third.ends() == 0
        first.leaves_tmux()
        assert first.ends() == 0
    assert product.state(name) == "running"
    attached = [record["subject"] for record in product.audit(name) if record["type"] == "attached"]
    assert attached == ["control", "read-only", "control"]
    product.run("stop", name)
    assert git(repo, "show", "shell/session-1:one.txt") == "first"


@pytest.mark.alike
def test_connect_without_a_terminal_is_refused(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "sleep 600")
    assert "needs a terminal" in product.run("connect", name, status=2).err
    product.run("stop", name)


def test_logs_exec_wait_and_states_through_a_life(product: Product, repo: Path) -> None:
    name = product.launch_detached(
        repo, "for i in 1 2 3; do echo line $i; done; printf '\\033]52;c;eA==\\007\\n'; touch /tmp/ready;"
        "while ! test -e /tmp/go; do sleep 0.1; done; echo last; exit 7",
    )  # fmt: skip
    ready(product, name)
    assert product.run("logs", name).out.splitlines()[:3] == ["line 1", "line 2", "line 3"]
    assert "\x1b" not in product.run("logs", name).out
    assert "\x1b]52" in product.run("logs", name, "--raw").out
    assert len(product.run("logs", name, "--tail", "1").out.splitlines()) <= 1
    following = product.start("logs", "-f", name)
    waiting = product.start("wait", name)

    assert product.exec(name, "echo out; echo err >&2; exit 9", status=9).out == "out\n"
    assert product.exec(name, "id -u").out == "1000\n"
    assert product.exec(name, "pwd; echo $HOME").out == "/workspace\n/home/agentuser\n"
    assert product.run("exec", name, "--", "no-such-program", status=None).status in (126, 127)
    assert product.run("exec", name[:-2], "--", "true", status=125).err.startswith("error: no session")
    short_id = product.session(name)["id"][:6]
    assert product.run("exec", short_id, "--", "echo", "by id").out == "by id\n"

    assert [one["state"] for one in product.run("list", "--json").json] == ["running"]
    assert "is running" in product.run("remove", name, status=19).err
    assert "is running" in product.run("recover", name, status=19).err
    assert "running already" in product.run("start", name).err

    product.exec(name, "touch /tmp/go")
    out, _ = waiting.communicate(timeout=60)
    assert (out, waiting.returncode) == ("", 7)
    assert following.communicate(timeout=60)[0].splitlines()[-1] == "last"
    assert product.run("list", "--json").json == []
    assert product.state(name) == "stopped"
    assert product.run("wait", name, status=7).status == 7  # also afterwards
    assert product.run("exec", name, "--", "true", status=125).err.startswith("error: session")
    product.run("stop", name)  # what has ended already is no error
    product.run("start", name)
    assert product.state(name) == "running"
    product.run("remove", "--force", name)
    assert_nothing_left(product)


@pytest.mark.alike
def test_diff_of_a_running_session_includes_what_is_not_committed(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "echo one > one.txt; touch /tmp/ready; sleep 600")
    ready(product, name)
    shown = product.run("diff", name).out
    assert "+one" in shown
    assert "b/one.txt" in shown
    assert "1 file changed" in product.run("diff", name, "--stat").out
    product.run("stop", name)
    assert product.run("diff", name).out == shown
    product.run("remove", name)


@pytest.mark.alike
def test_a_running_session_is_brought_home_without_its_noticing(product: Product, repo: Path) -> None:
    script = (
        "echo c > c.txt; git add c.txt; git commit -qm mine; echo u > u.txt; git add u.txt; touch /tmp/ready"
    )
    name = product.launch_detached(repo, f"{script}; sleep 600")
    ready(product, name)
    noticed = "git rev-parse HEAD; git for-each-ref; sha256sum .git/index; git status --porcelain"
    before = product.exec(name, noticed).out
    assert "+u" in product.run("diff", name).out
    pulled = product.run("pull", name, "--json").json
    assert product.exec(name, noticed).out == before
    assert pulled["integrated"] == "refs/heads/demo/session-1"
    assert git(repo, "log", "-1", "--format=%s", "demo/session-1") == "mine"
    assert git(repo, "show", f"{pulled['ref']}:u.txt") == "u"
    assert git(repo, "rev-parse", f"{pulled['ref']}^") == git(repo, "rev-parse", "demo/session-1")
    product.run("stop", name)
    assert git(repo, "show", "demo/session-1:u.txt") == "u"
    assert "is not running" in product.run("pull", name, status=None).err
    product.run("remove", name)


@pytest.mark.slow
def test_each_minute_the_work_is_saved_by_itself(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "echo u > u.txt; touch /tmp/ready; sleep 600")
    ready(product, name)
    relay = next(product.home.rglob("relay.git"))

    def saved() -> bool:
        listed = git(
            relay, "for-each-ref", "--format=%(refname)", "refs/coding-agents/autosave/"
        ).splitlines()
        return len(listed) == 2 and git(relay, "show", f"{listed[0]}:u.txt") == "u"

    wait_for(saved, "an automatic save", timeout_s=100.0)
    product.run("remove", "--force", name)


@pytest.mark.alike
def test_review_tells_the_agents_work_from_the_users(product: Product, repo: Path) -> None:
    (repo / "Makefile").write_text("all:\n\ttrue\n")
    script = "mkdir .vscode; echo {} > .vscode/tasks.json; touch /tmp/ready; sleep 600"
    name = product.launch_detached(repo, script)
    ready(product, name)
    expected = [("editor", "block", ".vscode/tasks.json"), ("yours", "note", "Makefile")]
    for phase in ("running", "stopped"):
        found = product.run("review", name, "--json").json
        assert [(one["rule"], one["severity"], one["path"]) for one in found["findings"]] == expected, phase
        assert (found["commits"], found["files"], found["blocking"]) == (1, 2, True)
        assert found["branch"] == "demo/session-1"
        assert ".vscode/tasks.json" in product.run("review", name).out
        if phase == "running":
            stopped = product.run("stop", name)
            assert "look at  .vscode/tasks.json (" in stopped.err
            assert "Makefile" not in stopped.err
    _accept_and_merge(product, repo, name)
    assert "merged branch was deleted" in product.run("remove", name).err


def _accept_and_merge(product: Product, repo: Path, name: str) -> None:
    """Refused, accepted with a reason, merged with its files; both are in the session's log."""
    refused = product.run("merge", name, status=70).err
    assert "editor" in refused
    product.run("review", name, "--accept", "editor:.vscode/tasks.json", "--reason", "wanted")
    (repo / "Makefile").unlink()  # the user's own, which the branch has as it was
    page = repo.parent / "review.html"
    product.run("review", name, "--html", str(page))
    assert "accepted: wanted" in page.read_text()
    merged = product.run("merge", name, "--json").json
    assert (merged["how"], merged["work_tree"], merged["blocking"]) == ("fast-forward", str(repo), [])
    assert (repo / ".vscode/tasks.json").read_text() == "{}\n"
    assert git(repo, "status", "--porcelain") == ""
    log = product.run("audit", "query", "--session", name, "--json").out
    kinds = [json.loads(line)["type"] for line in log.splitlines()]
    assert kinds.index("finding-accepted") < kinds.index("merged")


@pytest.mark.alike
def test_diff_says_when_the_session_cannot_save_its_latest_work(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "echo one > one.txt; touch /tmp/ready; sleep 600")
    ready(product, name)
    saved = product.run("diff", name)
    assert saved.err == ""
    product.exec(name, "echo two > two.txt; mv .git gone")
    shown = product.run("diff", name)
    assert shown.err.startswith("not saved: git rev-parse")
    assert shown.err.endswith("; this shows what was pushed before\n")
    assert shown.out == saved.out
    product.exec(name, "mv gone .git")
    assert "+two" in product.run("diff", name).out
    product.run("stop", name)
    assert product.run("diff", name).err == ""  # its supervisor is still there, the session does not run
    product.run("remove", name)


@pytest.mark.alike
def test_diff_of_a_session_whose_supervisor_died_includes_what_is_not_committed(
    product: Product, repo: Path
) -> None:
    name = product.launch_detached(repo, "echo one > one.txt; touch /tmp/ready; sleep 600")
    ready(product, name)
    kill_supervisor(product)
    shown = product.run("diff", name)
    assert "+one" in shown.out
    assert shown.err == ""
    product.run("remove", "--force", name)


@pytest.mark.alike
def test_prune_by_age_and_dry_run(product: Product, repo: Path) -> None:
    product.launch(repo, "--", "sh", "-c", "echo w > w.txt")
    running = product.launch_detached(repo, "sleep 600")
    name = f"demo-{repo.name}-session-1"
    assert f"session {name}" not in product.run("prune", "--older-than", "1h").out
    assert f"would remove session {name}\n" in product.run("prune", "--dry-run").out
    assert product.state(name) == "stopped"
    pruned = product.run("prune").out
    assert f"removed session {name}\n" in pruned
    assert running not in pruned
    assert [one["name"] for one in product.run("list", "-a", "--json").json] == [running]
    assert git(repo, "show", "demo/session-1:w.txt") == "w"
    product.run("remove", "--force", running)
    assert_nothing_left(product)


@pytest.mark.alike
def test_remove_deletes_the_branch_only_when_it_is_merged(product: Product, repo: Path) -> None:
    product.launch(repo, "--", "sh", "-c", "echo w > w.txt")
    product.launch(repo, "--", "sh", "-c", "echo v > v.txt")
    git(repo, "merge", "--quiet", "demo/session-1")
    assert "merged branch was deleted" in product.run("remove", f"demo-{repo.name}-session-1").err
    assert "demo/session-2" in product.run("remove", f"demo-{repo.name}-session-2").err
    assert git(repo, "branch", "--list", "demo/*", "--format=%(refname:short)") == "demo/session-2"


@pytest.mark.alike
@pytest.mark.parametrize("verb", ["remove", "prune"])
def test_removal_names_the_files_that_were_left_out_of_the_work(
    product: Product, repo: Path, verb: str
) -> None:
    script = "for n in 1 2 3 4 5 6 7 8; do echo s > $n.pem; done; echo w > w.txt"
    ended = product.launch(repo, "--", "sh", "-c", script).err
    few = "1.pem, 2.pem, 3.pem, 4.pem, 5.pem, 6.pem and 2 more"
    assert f"left out {few}\n" in ended
    removed = product.run(verb, *([f"demo-{repo.name}-session-1"] if verb == "remove" else [])).err
    assert f"gone     {few}: left out of its work\n" in removed


def test_images_list_and_doctor_have_documented_keys(product: Product) -> None:
    images = product.run("images", "list", "--json").json
    assert {"base", "demo", "claude"} <= {image["agent"] for image in images}
    assert all(set(image) == {"agent", "ref", "id", "state", "size_bytes"} for image in images), images
    assert "coding-agents-demo:local" in product.run("images", "list").out
    report = product.run("doctor", "--json").json
    assert set(report) == {"ok", "checks"}
    assert report["ok"] is True
    for check in report["checks"]:
        assert set(check) == {"id", "status", "detail", "fix"}
        assert check["status"] in ("ok", "warn", "fail", "absent")


@pytest.mark.alike
def test_config_set_show_and_its_effect(product: Product, repo: Path) -> None:
    product.run("config", "set", "limits.pids", "100")
    product.run("config", "set", "agent", "demo")
    shown = {one["key"]: one for one in product.run("config", "show", "--json").json}
    assert (shown["limits.pids"]["value"], shown["limits.pids"]["source"]) == ("100", "user")
    plan = product.run("launch", str(repo), "--network-proxy", "restricted", "--dry-run").out
    assert "100 processes" in plan
    assert f"demo-{repo.name}-session-1" in plan
    assert_nothing_left(product)


@pytest.mark.alike
def test_completions_are_scripts_that_a_shell_accepts(product: Product) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "coding-agents" in product.run("completions", shell).out
    script = product.run("completions", "bash").out
    assert subprocess.run(("bash", "-n"), input=script, text=True, check=False).returncode == 0
    env = {"_CODING_AGENTS_COMPLETE": "bash_complete", "COMP_WORDS": "coding-agents la", "COMP_CWORD": "1"}
    assert "plain,launch" in product.run(env=env, status=None).out.splitlines()


@pytest.mark.alike
def test_uninstall_refuses_while_there_are_sessions(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "sleep 600")
    assert "1 session" in product.run("uninstall", "-y", status=17).err
    assert "1 session" in product.run("uninstall", "--dry-run", status=17).err
    assert product.state(name) == "running"
    product.run("remove", "--force", name)
    listed = product.run("uninstall", "--dry-run").out
    assert f"would remove {product.home}/.local/state/coding-agents" in listed
    assert (product.home / ".local/state/coding-agents").is_dir()
    assert "nobody to ask" in product.run("uninstall", status=2).err


@pytest.mark.alike
def test_detached_head(product: Product, repo: Path) -> None:
    head = git(repo, "rev-parse", "HEAD")
    git(repo, "switch", "--quiet", "--detach")
    product.launch(repo, "--", "sh", "-c", "echo d > d.txt")
    assert git(repo, "rev-parse", "demo/session-1~1") == head
    assert git(repo, "show", "demo/session-1:d.txt") == "d"
    assert git(repo, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"


@pytest.mark.alike
def test_unborn_head(product: Product) -> None:
    repo = product.home / f"{product.home.name.lower()}-unborn"
    subprocess.run(("git", "init", "--quiet", "-b", "main", str(repo)), check=True)
    (repo / "draft.txt").write_text("draft\n")
    name = product.launch(repo, "-d", "--", "sh", "-c", "cat draft.txt > copy.txt").out.strip()
    product.run("wait", name)
    assert git(repo, "show", "demo/session-1:copy.txt") == "draft"
    assert git(repo, "rev-list", "--count", "demo/session-1") == "1"
    assert git(repo, "rev-parse", "--verify", "--quiet", "HEAD", check=False) == ""
    product.run("remove", name)


@pytest.mark.alike
def test_empty_repository(product: Product) -> None:
    words = ("launch", "--empty", "--name", product.home.name[-20:].lower().replace("_", "-").strip("-"))
    result = product.run(
        *words,
        "--agent",
        "demo",
        "--network-proxy",
        "restricted",
        "--",
        "sh",
        "-c",
        "ls -A; echo n > new.txt",
    )
    assert result.out == ".git\n"
    (clone,) = (product.home / ".local/share/coding-agents/repos/empty").glob("*.git")
    assert git(clone, "show", "demo/session-1:new.txt") == "n"
    assert str(clone) in result.err
    (session,) = product.run("list", "-a", "--json").json
    product.run("remove", session["name"])
    assert git(clone, "show", "demo/session-1:new.txt") == "n"


@pytest.mark.alike
def test_url_is_cloned_by_the_host_and_the_branch_is_fetched_from_there(product: Product, repo: Path) -> None:
    url = f"file://{repo}"
    result = product.run(
        "launch", url, "--agent", "demo", "--network-proxy", "restricted", "--", "sh", "-c",
        "cat README.md; echo u > u.txt",
    )  # fmt: skip
    assert result.out == "hello\n"
    (fetch,) = [line for line in result.err.splitlines() if "git fetch" in line]
    command = fetch[fetch.index("git fetch") :].split()
    git(repo, *command[1:])
    assert git(repo, "show", "FETCH_HEAD:u.txt") == "u"
    assert git(repo, "branch", "--list", "demo/*") == ""  # the remote itself is not written to
    (session,) = product.run("list", "-a", "--json").json
    assert session["repo"] == url
    git(repo, "commit", "--quiet", "--allow-empty", "--message", "later")
    again = product.run(
        "launch",
        url,
        "--agent",
        "demo",
        "--network-proxy",
        "restricted",
        "--",
        "git",
        "log",
        "-1",
        "--format=%s",
    )
    assert again.out == "later\n"
    for session in product.run("list", "-a", "--json").json:
        product.run("remove", session["name"])


def test_ordinary_user_on_a_repository_of_their_own(ordinary: Product) -> None:
    repo = make_repo(ordinary.home / f"{ordinary.home.name}-own")
    subprocess.run(("chown", "-R", f"{ORDINARY_UID}:{ORDINARY_UID}", str(repo)), check=True)
    (repo / "README.md").write_text("changed\n")
    result = ordinary.launch(
        repo, "--", "sh", "-c", "id -u; git status --porcelain; cat README.md; echo w > w.txt"
    )
    assert result.out == "1000\n M README.md\nchanged\n"
    assert _owners(repo) == {ORDINARY_UID}
    assert _git_as_owner(ordinary, repo, "show", "demo/session-1:w.txt") == "w\n"
    state = ordinary.home / ".local/state/coding-agents"
    assert _owners(state) == {ORDINARY_UID}
    assert state.stat().st_mode & 0o077 == 0
    ordinary.run("remove", f"demo-{repo.name}-session-1")
    assert_nothing_left(ordinary)


def test_root_on_a_repository_of_another_user(ordinary: Product) -> None:
    """Refs and objects belong to the repository's owner afterwards, and nothing of it was run as root."""
    repo = make_repo(ordinary.home / f"{ordinary.home.name}-theirs")
    hook = repo / ".git/hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nid -u >> {ordinary.home}/ran\n")
    hook.chmod(0o755)
    subprocess.run(("chown", "-R", f"{ORDINARY_UID}:{ORDINARY_UID}", str(repo)), check=True)
    home = ordinary.home / "root"
    home.mkdir()
    root = Product(ordinary.engine, home)
    root.launch(
        repo, "--", "sh", "-c", "echo w > w.txt; git add .; git commit -qm w; git push -q; echo v > v.txt"
    )
    assert _owners(repo) == {ORDINARY_UID}
    assert _git_as_owner(ordinary, repo, "show", "demo/session-1:v.txt") == "v\n"
    _git_as_owner(ordinary, repo, "fsck", "--strict")
    assert not (ordinary.home / "ran").exists()
    root.run("remove", f"demo-{repo.name}-session-1")
    assert root.leftovers() == ordinary.leftovers() == []


def test_repository_of_another_user_is_not_trusted_by_an_ordinary_one(ordinary: Product) -> None:
    repo = make_repo(ordinary.home / "roots")
    result = ordinary.run("launch", str(repo), "--agent", "demo", "-d", "--json", status=None)
    error = assert_refused(result, status=16, code="git", says="git does not trust the repository")
    assert "safe.directory" in error["hint"]
    assert_nothing_left(ordinary)


def _owners(path: Path) -> set[int]:
    return {path.lstat().st_uid, *(found.lstat().st_uid for found in path.rglob("*"))}


def _git_as_owner(product: Product, repo: Path, *words: str) -> str:
    done = subprocess.run(
        (*product.prefix, "git", *words),
        cwd=repo,
        env=product.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.alike
def test_list_json_is_one_object_a_session(product: Product, repo: Path) -> None:
    first, second = (product.launch_detached(repo, "sleep 600") for _ in range(2))
    listed = product.run("list", "--json").json
    assert [one["name"] for one in listed] == [first, second]
    table = product.run("list").out
    assert table.splitlines()[0].split() == ["NAME", "STATE", "BRANCH", "NETWORK", "WORK"]
    assert json.dumps(listed)
    for name in (first, second):
        product.run("remove", "--force", name)
    assert_nothing_left(product)
