"""Whatever is killed, interrupted or filled up: no work is lost, and nothing is left half made."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from itertools import product as combinations
from pathlib import Path

import pytest

from support.faults import (
    StallingEngine,
    assert_nothing_left,
    assert_refused,
    fill,
    kill_supervisor,
    read_only,
    ready,
    refs,
    small_disk,
    state_becomes,
    supervisors,
)
from support.product import Product, git, wait_for

pytestmark = pytest.mark.engine

SEED = 20260102  # of the sample of interruptions that runs in CI; `./dev test --full` runs all of them

# Engine command lines in the order of a launch; {name} is the session's. The launch is interrupted while each hangs.
PHASES = {
    "facts": ("restricted", "'info '*"),
    "images": ("restricted", "'image inspect coding-agents-'*"),
    "network": ("allow-all", "'network create '*"),
    "volumes": ("restricted", "'volume create '*{name}-home"),
    "holder-made": ("allow-all", "'create --name={name}-holder '*"),
    "holder-up": ("allow-all", "'container start '*"),
    "container": ("restricted", "'create --name={name} '*"),
    "start": ("restricted", "'container start '*"),
    "copy": ("restricted", "'container exec --user=1000:1000 --interactive '*' -C /workspace'"),
    "channel": ("restricted", "'container exec --user=1002'*"),
    "measure": ("restricted", "'container inspect '*"),
}
SIGNALS = {"INT": (signal.SIGINT, 130), "TERM": (signal.SIGTERM, 143)}
MOMENTS = list(combinations(SIGNALS, ("before", "after")))
ENDLESS = "channel"  # after it is after the session
INTERRUPTIONS = {
    phase: [(phase, *moment) for moment in MOMENTS if phase != ENDLESS or moment[1] == "before"]
    for phase in PHASES
}
SAMPLE = {random.Random(f"{SEED}-{phase}").choice(moments) for phase, moments in INTERRUPTIONS.items()}


@pytest.mark.alike
@pytest.mark.parametrize(
    ("phase", "name", "when"),
    [
        pytest.param(*one, id="-".join(one), marks=() if one in SAMPLE else pytest.mark.slow)
        for moments in INTERRUPTIONS.values()
        for one in moments
    ],
)
def test_an_interrupted_launch_leaves_nothing(
    product: Product, repo: Path, phase: str, name: str, when: str
) -> None:
    network, pattern = PHASES[phase]
    number, status = SIGNALS[name]
    before = refs(repo)
    engine = StallingEngine.make(
        product, pattern.format(name=f"demo-{repo.name}-session-1"), after=when == "after"
    )
    launch = product.start(
        "launch",
        str(repo),
        "--agent",
        "demo",
        "--network-proxy",
        network,
        "--",
        "sleep",
        "600",
        env=engine.env,
    )
    engine.wait()
    launch.send_signal(number)
    out, err = launch.communicate(timeout=60)
    assert launch.returncode == status, err
    assert "Traceback" not in err
    assert out == ""
    assert refs(repo) == before
    assert_nothing_left(product)
    assert list(product.kept_logs.glob("*")) == []


@pytest.mark.parametrize("kind", ["workspace", "home"])
def test_a_volume_of_somebody_else_is_neither_used_nor_removed(
    product: Product, repo: Path, kind: str
) -> None:
    """It appears after the name was chosen, in the moment in which ours is made; Docker then keeps it silently."""
    volume = f"demo-{repo.name}-session-1-{kind}"
    engine = StallingEngine.make(product, f"'volume create '*{volume}", after=False)
    task = ("--agent", "demo", "--network-proxy", "restricted", "-d")
    launch = product.start("launch", str(repo), *task, env=engine.env)
    engine.wait()
    product.engine_run("volume", "create", "--label=mark=theirs", volume)
    engine.release()
    _, err = launch.communicate(timeout=60)
    try:
        assert launch.returncode == 34, err
        assert f"cannot create volume {volume}" in err
        assert "prune" in err
        assert "theirs" in product.engine_run("volume", "inspect", volume)
    finally:
        product.engine_run("volume", "rm", volume)
    assert_nothing_left(product)


def test_a_launch_without_a_required_wall_leaves_its_audit_log(product: Product, repo: Path) -> None:
    refused = product.launch(repo, "-d", "--json", status=36, env={"CODING_AGENTS_REQUIRE": "moat"})
    assert_nothing_left(product)
    (log,) = product.kept_logs.glob("*")
    assert refused.error["details"].endswith(f"the audit log is kept: {log}")
    asked = product.run("audit", "query", "--session", log.stem, "--type", "enforcement-measured", "--json")
    assert asked.json["outcome"] == "failed"
    assert "moat" in asked.json["detail"]["problems"]


@pytest.mark.alike
def test_a_launch_that_fails_behind_its_open_gate_leaves_its_audit_log(product: Product, repo: Path) -> None:
    refused = product.launch(repo, "-d", "--json", "--dotnet-preview", "11.0", status=60)
    assert_nothing_left(product)
    (log,) = product.kept_logs.glob("*")
    assert f"the audit log is kept: {log}" in refused.error["details"]
    assert '"gate-opened"' in log.read_text()


def test_a_container_that_is_restarted_while_it_is_measured_stays_shut(product: Product, repo: Path) -> None:
    """What the host measures is one start; that of the next one is another gate."""
    name = f"demo-{repo.name}-session-1"
    engine = StallingEngine.make(product, "'container inspect '*", after=False)
    task = ("--agent", "demo", "--network-proxy", "restricted", "--", "sh", "-c", "echo ran > ran.txt")
    launch = product.start("launch", str(repo), *task, env=engine.env)
    engine.wait()
    time.sleep(1)  # the copy is over
    product.engine_run("restart", "-t", "1", name)
    time.sleep(2)  # the supervisor has settled the start that ended, or has a channel to the next one
    engine.release()
    _, err = launch.communicate(timeout=60)
    assert launch.returncode == 125, err
    assert "its gate stays closed" in err or "the session's channel is not open" in err
    assert git(repo, "branch", "--list", "demo/*") == ""
    assert_nothing_left(product)


# Before the host reads the guard back, its output chain is opened.
_OPENING = """#!/bin/sh
case "$*" in
'container exec --user=0:0 '*)
    {program} "$1" "$2" "$3" "$4" /usr/sbin/nft insert rule inet coding_agents_guard output accept && touch {opened};;
esac
exec {program} "$@"
"""


def test_a_guard_that_does_not_stand_keeps_the_gate_closed(
    product: Product, repo: Path, tmp_path: Path
) -> None:
    """The agent's container runs by then, but nothing of the agent does."""
    before, opened = refs(repo), tmp_path / "opened"
    script = tmp_path / "bin" / product.engine
    script.parent.mkdir()
    script.write_text(_OPENING.format(program=shutil.which(product.engine), opened=opened))
    script.chmod(0o755)
    result = product.run(
        "launch", str(repo), "--agent", "demo", "--network-proxy", "allow-all", "--", "sh", "-c",
        "echo ran; echo w > w.txt", env={"PATH": f"{script.parent}:{os.environ['PATH']}"}, status=125,
    )  # fmt: skip
    assert opened.exists()
    assert "its gate stayed closed" in result.err
    assert "is open" in result.err
    assert result.out == ""
    assert refs(repo) == before
    assert_nothing_left(product)


_WORK = (
    "echo c > committed.txt; git add committed.txt; git commit -qm mine;"
    "echo c >> README.md; echo u > uncommitted.txt; touch /tmp/ready; sleep 600"
)


def test_killed_container_brings_committed_and_uncommitted_work_home(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, _WORK)
    ready(product, name)
    product.engine_run("kill", name)
    state_becomes(product, name, "stopped")
    assert git(repo, "show", "demo/session-1:committed.txt") == "c"
    assert git(repo, "show", "demo/session-1:uncommitted.txt") == "u"
    assert git(repo, "show", "demo/session-1:README.md") == "hello\nc"
    assert git(repo, "log", "--format=%s", "demo/session-1").splitlines()[1:] == ["mine", "first"]
    saved = product.session(name)["saved"]
    assert (saved["where"], saved["verified"]) == ("branch", True)
    assert "sealed" in product.run("audit", "verify", "--session", name).out


@pytest.mark.alike
def test_killed_container_of_a_foreground_launch_is_no_success(product: Product, repo: Path) -> None:
    launch = product.start(
        "launch", str(repo), "--agent", "demo", "--network-proxy", "restricted", "--rm", "--", "sh", "-c",
        "echo w > w.txt; touch /tmp/ready; sleep 600",
    )  # fmt: skip
    name = f"demo-{repo.name}-session-1"
    ready(product, name)
    product.engine_run("kill", name)
    _, err = launch.communicate(timeout=120)
    assert launch.returncode == 137, err
    assert git(repo, "show", "demo/session-1:w.txt") == "w"
    assert_nothing_left(product)


def test_agent_out_of_memory_keeps_its_work(product: Product, repo: Path) -> None:
    script = "echo before > before.txt; python3 -c 'x = bytearray(1 << 30)'; echo $? > status.txt"
    result = product.launch(repo, "--memory", "256m", "--", "sh", "-c", script, status=None)
    assert "Traceback" not in result.err
    assert git(repo, "show", "demo/session-1:before.txt") == "before"
    # The kernel takes the greedy process, or all of the container; in neither case a success is made up.
    if result.status == 0:
        assert git(repo, "show", "demo/session-1:status.txt") == "137"
    else:
        assert result.status == 137


@pytest.mark.alike
def test_work_goes_on_without_its_supervisor(product: Product, repo: Path) -> None:
    script = (
        "touch /tmp/ready; while ! test -e /tmp/go; do sleep 0.1; done;"
        "echo p > pushed.txt; git add .; git commit -qm pushed; until git push -q; do sleep 0.2; done; sleep 600"
    )
    name = product.launch_detached(repo, script)
    ready(product, name)
    kill_supervisor(product)
    assert product.state(name) == "running"
    product.engine_run("exec", "-u", "1000", name, "touch", "/tmp/go")
    wait_for(
        lambda: (
            "pushed" in product.engine_run("exec", "-u", "1000", name, "git", "-C", "/workspace", "log", "-1")
        ),
        "the commit without a supervisor",
    )
    assert git(repo, "branch", "--list", "demo/*") == ""
    product.run("diff", name)  # a verb that does not need one
    waiting = product.start("wait", name)  # this one starts it again, and the agent's retried push arrives
    wait_for(lambda: git(repo, "branch", "--list", "demo/session-1"), "the push after the restart")
    assert git(repo, "show", "demo/session-1:pushed.txt") == "p"
    product.run("stop", name)
    waiting.communicate(timeout=60)
    assert waiting.returncode != 0  # the command was ended, it did not succeed
    assert product.state(name) == "stopped"
    assert git(repo, "show", "demo/session-1:pushed.txt") == "p"


@pytest.mark.alike
@pytest.mark.parametrize("verb", ["stop", "list", "exec", "recover", "remove"])
def test_next_verb_after_the_supervisors_death(product: Product, repo: Path, verb: str) -> None:
    name = product.launch_detached(repo, _WORK)
    ready(product, name)
    kill_supervisor(product)
    match verb:
        case "list":
            assert product.state(name) == "running"
        case "exec":
            assert product.exec(name, "cat uncommitted.txt").out == "u\n"
        case "recover":
            assert "is running" in product.run("recover", name, status=19).err
        case "remove":
            assert "is running" in product.run("remove", name, status=19).err
    product.run("stop", name)
    assert product.state(name) == "stopped"
    assert git(repo, "show", "demo/session-1:uncommitted.txt") == "u"
    assert git(repo, "show", "demo/session-1:committed.txt") == "c"
    product.run("remove", name)
    assert_nothing_left(product)


@pytest.mark.alike
def test_recover_stops_a_container_in_which_no_agent_has_begun(product: Product, repo: Path) -> None:
    """As a `start` leaves it that is killed before it opens the gate."""
    name = product.launch_detached(repo, _WORK)
    ready(product, name)
    product.run("stop", name)
    product.engine_run("start", name)
    product.run("recover", name)
    assert product.state(name) == "stopped"
    assert product.engine_run("inspect", "--format", "{{.State.Running}}", name).strip() == "false"
    assert product.session(name)["saved"]["verified"]
    product.run("start", name)
    product.run("stop", name)
    product.run("remove", name)
    assert_nothing_left(product)


@pytest.mark.alike
def test_container_that_ended_without_a_supervisor_is_settled_by_the_next_verb(
    product: Product, repo: Path
) -> None:
    name = product.launch_detached(repo, _WORK)
    ready(product, name)
    kill_supervisor(product)
    product.engine_run("kill", name)
    assert product.state(name) == "stopping"  # ended, and its work is not known to be home
    result = product.run("wait", name, status=None)
    assert result.status == 137, result
    assert product.state(name) == "stopped"
    assert git(repo, "show", "demo/session-1:uncommitted.txt") == "u"


@pytest.mark.alike
def test_supervisor_killed_while_it_settles(product: Product, repo: Path) -> None:
    salvage = StallingEngine.make(product, "'create --name='*-salvage*", after=True)
    result = product.launch(repo, "-d", "--", "sh", "-c", _WORK, env=salvage.env)
    name = result.out.strip()
    ready(product, name)
    product.engine_run("kill", name)
    salvage.wait()
    kill_supervisor(product)
    product.run("recover", name)
    assert git(repo, "show", "demo/session-1:uncommitted.txt") == "u"
    state_becomes(product, name, "stopped")
    product.run("remove", name)
    assert_nothing_left(product)


@pytest.mark.alike
def test_supervisor_killed_while_it_removes(product: Product, repo: Path) -> None:
    """`--rm` cut short between the containers and the volumes: the work is home, and `remove` does the rest."""
    removal = StallingEngine.make(product, "'volume rm '*", after=False)
    result = product.launch(repo, "-d", "--rm", "--", "sh", "-c", "echo w > w.txt", env=removal.env)
    removal.wait()
    assert git(repo, "show", "demo/session-1:w.txt") == "w"
    kill_supervisor(product)
    product.run("remove", "--force", result.out.strip())
    assert git(repo, "show", "demo/session-1:w.txt") == "w"
    assert_nothing_left(product)


@pytest.mark.alike
def test_session_outlives_a_killed_foreground_launch(product: Product, repo: Path) -> None:
    launch = product.start(
        "launch", str(repo), "--agent", "demo", "--network-proxy", "restricted", "--", "sh", "-c",
        "touch /tmp/ready; while ! test -e /tmp/go; do sleep 0.1; done; echo w > w.txt; exit 3",
    )  # fmt: skip
    name = f"demo-{repo.name}-session-1"
    ready(product, name)
    os.killpg(launch.pid, signal.SIGKILL)
    launch.communicate()
    product.exec(name, "touch /tmp/go")
    assert product.run("wait", name, status=None).status == 3
    assert git(repo, "show", "demo/session-1:w.txt") == "w"
    assert product.state(name) == "stopped"


@pytest.mark.parametrize("phase", ["volumes", "container", "copy", "start", "channel"])
def test_killed_launch_can_be_pruned(product: Product, repo: Path, phase: str) -> None:
    """`kill -9` of a launch undoes nothing; `list` says so, and `prune` takes the rest away."""
    name = f"demo-{repo.name}-session-1"
    engine = StallingEngine.make(product, PHASES[phase][1].format(name=name), after=False)
    launch = product.start(
        "launch", str(repo), "--agent", "demo", "--network-proxy", "restricted", "--", "true", env=engine.env
    )
    engine.wait()
    os.killpg(launch.pid, signal.SIGKILL)
    launch.communicate()
    engine.release()
    wait_for(lambda: product.state(name) in ("failed", "starting", "lost"), "the killed launch in the list")
    if phase == "start":  # the relay is made beside the container, and may be the slower one
        for relay in product.sessions_dir.glob("*/relay.git"):
            shutil.rmtree(relay)
    assert git(repo, "branch", "--list", "demo/*") == ""
    pruned = product.run("prune")
    if product.run("list", "-a", "--json").json:
        pruned = product.run("remove", "--force", name)
    assert "Traceback" not in pruned.err
    assert_nothing_left(product)
    product.launch(repo, "--", "true")  # and the next launch is not hindered by it


@pytest.mark.alike
def test_launches_at_once_are_sessions_of_their_own(product: Product, repo: Path) -> None:
    """All of them choose the first free name, in the same moment."""
    script = ("--agent", "demo", "--network-proxy", "restricted", "--", "sh", "-c", "echo $$ > w.txt")
    launches = [product.start("launch", str(repo), *script) for _ in range(3)]
    ended = [(launch.communicate(timeout=180), launch.returncode) for launch in launches]
    branches = git(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads/demo").splitlines()
    assert [status for _, status in ended] == [0, 0, 0], ended
    assert branches == ["demo/session-1", "demo/session-2", "demo/session-3"], ended


@pytest.mark.alike
def test_remove_brings_unsaved_work_home_first(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, _WORK, "--no-push")
    ready(product, name)
    product.run("stop", name)
    assert git(repo, "branch", "--list", "demo/*") == ""
    product.run("remove", name)
    assert git(repo, "show", "demo/session-1:uncommitted.txt") == "u"
    assert git(repo, "show", "demo/session-1:committed.txt") == "c"
    assert_nothing_left(product)


@pytest.mark.alike
def test_remove_without_its_repository_keeps_the_volume(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, _WORK)
    ready(product, name)
    moved = repo.rename(repo.with_name(f"{repo.name}-moved"))
    product.engine_run("kill", name)
    state_becomes(product, name, "stopped")
    refused = product.run("remove", name, status=17)
    assert "Traceback" not in refused.err
    assert f"{name}-workspace" in refused.err
    assert product.run("prune").out.startswith(f"kept session {name}: ")
    assert f"{name}-workspace" in product.engine_run("volume", "ls", "--format", "{{.Name}}").split()
    product.run("uninstall", "-y", status=17)
    moved.rename(repo)
    product.run("remove", name)
    assert git(repo, "show", "demo/session-1:uncommitted.txt") == "u"
    assert_nothing_left(product)


@pytest.mark.alike
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_remove_with_a_read_only_repository_keeps_the_volume(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, _WORK)
    ready(product, name)
    with read_only(repo):
        product.engine_run("kill", name)
        state_becomes(product, name, "stopped")
        refused = product.run("remove", name, status=17)
        assert "Traceback" not in refused.err
        assert f"{name}-workspace" in product.engine_run("volume", "ls", "--format", "{{.Name}}").split()
    product.run("recover", name)
    assert git(repo, "show", "demo/session-1:uncommitted.txt") == "u"


@pytest.mark.alike
def test_recover_twice_changes_nothing_more(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, _WORK)
    ready(product, name)
    kill_supervisor(product)
    product.engine_run("kill", name)
    first = product.run("recover", name)
    after_first = refs(repo)
    assert git(repo, "show", "demo/session-1:uncommitted.txt") == "u"
    second = product.run("recover", name)
    assert refs(repo) == after_first
    assert second.err == first.err
    assert "nothing to recover" in product.run("recover").err


@pytest.mark.alike
@pytest.mark.parametrize("hindrance", ["moved", "checked-out", "locked", "deleted"])
def test_branch_that_the_user_took_meanwhile_is_not_touched(
    product: Product, repo: Path, hindrance: str
) -> None:
    name = product.launch_detached(
        repo,
        "echo 1 > f; git add f; git commit -qm one; git push -q; touch /tmp/ready; while ! test -e /tmp/go; do"
        " sleep 0.1; done; echo 2 > f; git commit -qam two; git push -q; touch /tmp/ready; sleep 600",
    )
    ready(product, name)
    wait_for(lambda: git(repo, "branch", "--list", "demo/session-1"), "the first push")
    lock = repo / ".git/refs/heads/demo/session-1.lock"
    match hindrance:
        case "moved":
            git(
                repo,
                "branch",
                "--force",
                "demo/session-1",
                git(repo, "commit-tree", "-m", "mine", "HEAD^{tree}"),
            )
        case "checked-out":
            git(repo, "switch", "--quiet", "demo/session-1")
        case "locked":
            lock.touch()
        case "deleted":
            git(repo, "branch", "-D", "demo/session-1")
    theirs = git(repo, "rev-parse", "--quiet", "--verify", "refs/heads/demo/session-1", check=False)
    product.exec(name, "rm /tmp/ready; touch /tmp/go")
    ready(product, name)
    stopped = product.run("stop", name)
    incoming = f"refs/coding-agents/incoming/{product.session(name)['id']}"
    assert git(repo, "show", f"{incoming}:f") == "2"
    assert incoming in stopped.err
    assert git(repo, "rev-parse", "--quiet", "--verify", "refs/heads/demo/session-1", check=False) == theirs
    lock.unlink(missing_ok=True)
    if hindrance == "checked-out":
        assert git(repo, "status", "--porcelain") == ""
        assert git(repo, "show", "HEAD:f") == "1"
    removed = product.run("remove", name)
    if hindrance == "locked":  # no longer: so the work could reach its branch
        incoming = "refs/heads/demo/session-1"
    assert incoming in removed.err
    assert git(repo, "show", f"{incoming}:f") == "2"


@pytest.mark.alike
@pytest.mark.parametrize("hindrance", ["checked-out", "colliding", "deleted", "locked"])
def test_recover_brings_work_onto_its_branch_when_that_is_free_again(
    product: Product, repo: Path, hindrance: str
) -> None:
    name = product.launch_detached(
        repo,
        "echo 1 > f; git add f; git commit -qm one; git push -q; touch /tmp/ready; while ! test -e /tmp/go; do"
        " sleep 0.1; done; echo 2 > f; git commit -qam two; git push -q; touch /tmp/ready; sleep 600",
    )
    ready(product, name)
    wait_for(lambda: git(repo, "branch", "--list", "demo/session-1"), "the first push")
    lock = repo / ".git/refs/heads/demo/session-1.lock"
    match hindrance:
        case "checked-out":
            git(repo, "switch", "--quiet", "demo/session-1")
        case "colliding":
            git(repo, "branch", "-m", "demo/session-1", "demo/session-1/mine")
        case "deleted":
            git(repo, "branch", "-D", "demo/session-1")
        case "locked":
            lock.touch()
    product.exec(name, "rm /tmp/ready; touch /tmp/go")
    ready(product, name)
    stopped = product.run("stop", name)
    incoming = f"refs/coding-agents/incoming/{product.session(name)['id']}"
    gone = "was deleted by someone else"
    says = {
        "checked-out": "is checked out in",
        "colliding": gone,
        "deleted": gone,
        "locked": "cannot be written",
    }
    assert incoming in stopped.err
    assert says[hindrance] in stopped.err
    assert git(repo, "show", f"{incoming}:f") == "2"
    if hindrance != "deleted":
        says["colliding"] = "cannot exist beside the branch demo/session-1/mine"
        refused = product.run("recover", name)
        assert incoming in refused.err
        assert says[hindrance] in refused.err
    match hindrance:
        case "checked-out":
            git(repo, "switch", "--quiet", "main")
        case "colliding":
            git(repo, "branch", "-m", "demo/session-1/mine", "mine")
        case "locked":
            lock.unlink()
    assert "on branch demo/session-1" in product.run("recover", name).err
    assert git(repo, "show", "demo/session-1:f") == "2"
    assert git(repo, "for-each-ref", "refs/coding-agents/incoming") == ""
    product.run("remove", name)
    assert git(repo, "show", "demo/session-1:f") == "2"
    assert_nothing_left(product)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_full_disk_at_launch(product: Product, repo: Path) -> None:
    before = refs(repo)
    with small_disk(product.home / "small", "1m") as disk:
        hog = fill(disk)
        env = {"XDG_STATE_HOME": str(disk), "XDG_DATA_HOME": str(disk)}
        result = product.launch(repo, "-d", "--json", "--", "true", status=None, env=env)
        assert_refused(result, status=43, code="store", says="the disk is full")
        assert product.leftovers() == []
        assert refs(repo) == before
        hog.unlink()
        assert not list(disk.glob("coding-agents/sessions/*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("size_kib", [64, 128, 256, 512, 1024])
def test_disk_that_fills_up_during_a_launch(product: Product, repo: Path, size_kib: int) -> None:
    """At some step or other; each of them says what is wrong and leaves nothing, or the session is whole."""
    before = refs(repo)
    with small_disk(product.home / "small", f"{size_kib}k") as disk:
        env = {"XDG_STATE_HOME": str(disk), "XDG_DATA_HOME": str(disk)}
        result = product.launch(repo, "-d", "--json", "--", "true", status=None, env=env)
        assert "Traceback" not in result.err
        if result.status == 0:
            assert product.run("wait", result.json["name"], env=env, status=None).status == 0
            product.run("remove", result.json["name"], env=env)
        else:
            assert result.error["hint"] or "No space left" in result.error["details"], result
        assert product.leftovers() == []
        assert refs(repo) == before
        assert not list(disk.glob("coding-agents/sessions/*"))
        wait_for(lambda: supervisors(product) == [], "the supervisor to leave")


@pytest.mark.alike
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_full_disk_at_push_loses_nothing(product: Product, repo: Path) -> None:
    with small_disk(product.home / "small", "8m") as disk:
        env = {"XDG_STATE_HOME": str(disk)}
        launched = product.launch(
            repo, "-d", "--", "sh", "-c",
            "touch /tmp/ready; while ! test -e /tmp/go; do sleep 0.1; done; head -c 300000 /dev/urandom > big.bin;"
            "git add .; git commit -qm big; git push -q 2>/tmp/push; echo $? > /tmp/status;"
            "touch /tmp/pushed; sleep 600",
            env=env,
        )  # fmt: skip
        name = launched.out.strip()
        wait_for(
            lambda: (
                product.run("exec", name, "--", "test", "-e", "/tmp/ready", env=env, status=None).status == 0
            ),
            "start",
        )
        hog = fill(disk)
        product.engine_run("exec", "-u", "1000", name, "touch", "/tmp/go")
        wait_for(lambda: "pushed" in product.engine_run("exec", name, "ls", "/tmp"), "the answer to the push")
        assert product.engine_run("exec", name, "cat", "/tmp/status").strip() != "0"
        assert product.engine_run("exec", name, "cat", "/tmp/push").strip()
        stopped = product.run("stop", name, env=env, status=None)
        assert "Traceback" not in stopped.err
        if stopped.status == 0:  # a few bytes were left for the record
            assert "still in the session's volume" in stopped.err
        else:
            assert "the disk is full" in stopped.err
        assert product.engine_run("ps", "--quiet", "--filter", f"name={name}") == ""
        assert f"{name}-workspace" in product.engine_run("volume", "ls", "--format", "{{.Name}}").split()
        hog.unlink()
        product.run("recover", name, env=env)
        assert git(repo, "cat-file", "-s", "demo/session-1:big.bin") == "300000"
        product.run("remove", name, env=env)
        assert product.leftovers() == []
        wait_for(lambda: supervisors(product) == [], "the supervisor to leave")
