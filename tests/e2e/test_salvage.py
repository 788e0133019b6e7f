"""Work comes home however the container ends: the host decides what is saved, never the guest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from coding_agents.channel.pyz import build_guest_pyz
from support.faults import StallingEngine, kill_supervisor
from support.guestbox import tarred
from support.product import ROOT, Product, git, wait_for

pytestmark = pytest.mark.engine


def kill(product: Product, name: str) -> None:
    product.engine_run("kill", name)
    wait_for(lambda: product.state(name) == "stopped", "the end of the killed session")


def test_killed_container_brings_back_what_was_never_committed(product: Product, repo: Path) -> None:
    name = product.launch_detached(
        repo, "echo c > c.txt; git add c.txt; git commit -qm mine; echo u > u.txt; touch ready; sleep 600"
    )
    wait_for(lambda: product.exec(name, "test -e ready", status=None).status == 0, "the agent's files")
    kill(product, name)
    assert git(repo, "show", "demo/session-1:u.txt") == "u"
    assert git(repo, "log", "--format=%s", "demo/session-1").splitlines()[1] == "mine"
    assert product.session(name)["saved"]["verified"]


def make_dirty(repo: Path) -> None:
    """Every kind of uncommitted work of a user."""
    (repo / "README.md").write_text("changed by the user\n")
    (repo / "staged.txt").write_text("staged by the user\n")
    git(repo, "add", "staged.txt")
    (repo / "notes.txt").write_text("untracked\n")
    (repo / "src/app.py").unlink()
    (repo / ".env").write_text("TOKEN=x\n")


@pytest.mark.alike
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_uncommitted_work_of_the_user_alone_makes_no_commit(product: Product, repo: Path, end: str) -> None:
    make_dirty(repo)
    name = product.launch_detached(repo, "touch .git/ok; sleep 600")
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent")
    if end == "kill":
        kill(product, name)
    else:
        product.run("stop", name)
    assert product.session(name)["saved"]["where"] == "none"
    product.run("remove", name)
    assert git(repo, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    assert product.leftovers() == []


@pytest.mark.alike
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_uncommitted_work_of_the_user_comes_back_with_the_agents(
    product: Product, repo: Path, end: str
) -> None:
    make_dirty(repo)
    name = product.launch_detached(repo, "echo more >> notes.txt; touch .git/ok; sleep 600")
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent")
    if end == "kill":
        kill(product, name)
    else:
        product.run("stop", name)
    assert git(repo, "show", "demo/session-1:notes.txt") == "untracked\nmore"
    assert git(repo, "show", "demo/session-1:README.md") == "changed by the user"


@pytest.mark.alike
def test_other_branches_of_a_killed_container_are_kept(product: Product, repo: Path) -> None:
    name = product.launch_detached(
        repo,
        "git switch -qc side; echo s > s.txt; git add .; git commit -qm side; git switch -q -; touch ok; sleep 600",
    )
    wait_for(lambda: product.exec(name, "test -e ok", status=None).status == 0, "the agent's branches")
    kill(product, name)
    ref = f"refs/coding-agents/incoming/{product.session(name)['id']}-branches/side"
    assert git(repo, "show", f"{ref}:s.txt") == "s"


@pytest.mark.alike
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_commits_that_no_branch_names_come_home(product: Product, repo: Path, end: str) -> None:
    """Of a tag, a linked work tree that is gone with /tmp, and a repository inside; whoever ends the session."""
    new = "git commit-tree -p HEAD HEAD^{tree} -m"
    name = product.launch_detached(
        repo,
        f"git tag v1 $({new} tagged); git worktree add -q --detach /tmp/far $({new} far);"
        " git init -q in; cd in; git commit -q --allow-empty -m first;"
        f" git branch side $({new} side); touch ../.git/ok; sleep 600",
    )
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent's refs")
    if end == "kill":
        kill(product, name)
    else:
        product.run("stop", name)
    incoming = f"refs/coding-agents/incoming/{product.session(name)['id']}-branches"
    nested = {one["path"]: one["ref"] for one in product.run("nested", name, "--json").json}
    product.run("remove", name)
    found = {f"{incoming}/tags/v1": "tagged", f"{incoming}/worktrees/far": "far",
             nested["in"]: "first", f"{nested['in/.git']}^": "side"}  # fmt: skip
    assert {ref: git(repo, "log", "-1", "--format=%s", ref) for ref in found} == found
    assert product.leftovers() == []


@pytest.mark.alike
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_repository_that_the_agent_made_inside_comes_home(product: Product, repo: Path, end: str) -> None:
    """Nothing of it is in the session's branch; when the volume is gone, its ref and a taken over copy have it."""
    name = product.launch_detached(
        repo,
        "git init -q lib/in; cd lib/in; echo c > c.txt; git add .; git commit -qm inner; echo u > u.txt;"
        " touch ../../.git/ok; sleep 600",
    )
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent's repository")
    if end == "kill":
        kill(product, name)
    else:
        assert "lib/in" in product.run("stop", name).err
    (listed,) = product.run("nested", name, "--json").json
    assert listed["path"] == "lib/in"
    product.run("nested", name, "lib/in", "--into", str(repo.parent / "taken"))
    assert git(repo.parent / "taken", "show", "demo/session-1:u.txt") == "u"
    removed = product.run("remove", name)
    assert listed["ref"] in removed.err
    assert git(repo, "show", f"{listed['ref']}:u.txt") == "u"
    assert git(repo, "log", "--format=%s", f"{listed['ref']}^") == "inner"
    assert product.leftovers() == []


@pytest.mark.parametrize("verb", ["recover", "remove"])
def test_a_lost_volume_comes_back_as_its_last_automatic_save(product: Product, repo: Path, verb: str) -> None:
    """Somebody's `volume prune`: what the relay has is home before the relay goes, too."""
    name = product.launch_detached(
        repo,
        "echo c > c.txt; git add c.txt; git commit -qm mine; echo u > u.txt; git init -q in; echo n > in/n;"
        " touch .git/ok; sleep 600",
    )
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent's files")
    product.run("diff", name)  # has it saved, and brings nothing home
    kill_supervisor(product)
    product.engine_run("rm", "--force", name)
    product.engine_run("volume", "rm", product.session(name)["volumes"]["workspace"])
    assert git(repo, "branch", "--list", "demo/*") == ""
    done = product.run(verb, name)
    if verb == "recover":
        assert "volume is gone" in done.err
        assert product.session(name)["saved"]["nested"]
    assert git(repo, "show", "demo/session-1:u.txt") == "u"
    assert git(repo, "log", "--format=%s", "demo/session-1~1").splitlines() == ["mine", "first"]
    if verb == "recover":
        product.run("remove", name)
    nested = git(repo, "for-each-ref", "--format=%(refname)", "refs/coding-agents/nested")
    assert git(repo, "show", f"{nested}:n") == "n"
    assert product.leftovers() == []


@pytest.mark.alike
def test_a_volume_that_is_lost_as_a_salvage_begins_is_not_taken_for_an_empty_one(
    product: Product, repo: Path
) -> None:
    """An engine makes a volume that is gone anew for a container that names it, and the agent has deleted nothing."""
    begins = StallingEngine.make(product, "'create --name='*-salvage*", after=False)
    launched = product.launch(
        repo, "-d", "--", "sh", "-c", "echo u > u.txt; touch .git/ok; sleep 600", env=begins.env
    )
    name = launched.out.strip()
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent's file")
    product.run("diff", name)
    product.engine_run("kill", name)
    begins.wait()
    volume = product.session(name)["volumes"]["workspace"]
    product.engine_run("rm", "--force", name)
    product.engine_run("volume", "rm", volume)
    begins.release()
    assert "volume is gone" in product.run("recover", name).err
    assert git(repo, "show", "demo/session-1:u.txt") == "u"
    product.run("remove", name)
    assert git(repo, "show", "demo/session-1:u.txt") == "u"
    assert volume not in product.engine_run("volume", "ls", "--quiet").split()
    assert product.leftovers() == []


@pytest.mark.alike
@pytest.mark.parametrize("new", ["moved", "clone"])
def test_the_work_of_a_session_whose_repository_is_gone_goes_where_it_is_told(
    product: Product, repo: Path, new: str
) -> None:
    name = product.launch_detached(
        repo,
        "echo c > c.txt; git add c.txt; git commit -qm mine; git push -q; echo u > u.txt; touch .git/ok; sleep 600",
    )
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent's files")
    place = product.home / new
    if new == "clone":
        git(product.home, "clone", "--quiet", "--branch=main", str(repo), str(place))
        shutil.rmtree(repo)
    else:
        repo.rename(place)
    for verb in ("stop", "recover"):
        assert f"coding-agents recover {name} --repo PATH" in product.run(verb, name).err
    assert "Nothing was removed" in product.run("remove", name, status=17).err
    assert "not a git repository" in product.run("recover", name, "--repo", str(product.home), status=11).err
    product.run("recover", name, "--repo", str(place))
    assert git(place, "show", "demo/session-1:u.txt") == "u"
    product.run("remove", name)
    assert git(place, "log", "--format=%s", "demo/session-1~1").splitlines() == ["mine", "first"]
    assert list(product.sessions_dir.glob("*")) == []


@pytest.mark.alike
def test_remove_after_a_kill_saves_first(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "echo late > late.txt; touch ok; sleep 600", "--no-push")
    wait_for(lambda: product.exec(name, "test -e ok", status=None).status == 0, "the agent's file")
    product.engine_run("kill", name)
    wait_for(lambda: product.state(name) == "stopped", "the end of the killed session")
    assert git(repo, "branch", "--list", "demo/*") == ""
    product.run("remove", name)
    assert git(repo, "show", "demo/session-1:late.txt") == "late"
    assert product.leftovers() == []


@pytest.mark.alike
def test_rewritten_history_stays_beside_the_branch(product: Product, repo: Path) -> None:
    name = product.launch_detached(
        repo,
        "echo 1 > f; git add f; git commit -qm one; git push -q; git reset -q --hard HEAD~1;"
        "echo 2 > f; git add f; git commit -qm two; touch .git/ok; sleep 600",
    )
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent's history")
    kill(product, name)
    assert git(repo, "show", "demo/session-1:f") == "1"
    saved = product.session(name)["saved"]
    assert saved["where"] == "incoming"
    assert git(repo, "show", f"{saved['integrated']}:f") == "2"


@pytest.mark.alike
def test_a_second_salvage_does_not_believe_the_refs_of_the_first(product: Product, repo: Path) -> None:
    script = (
        "if test -e dirty; then echo 2 > second; git add -A; git commit -qm SECOND; touch .git/two; "
        "else echo 1 > dirty; touch .git/one; fi; sleep 600"
    )
    name = product.launch_detached(repo, script)
    wait_for(lambda: product.exec(name, "test -e .git/one", status=None).status == 0, "the dirty file")
    kill(product, name)
    product.run("start", name)
    wait_for(lambda: product.exec(name, "test -e .git/two", status=None).status == 0, "the second commit")
    product.engine_run("kill", name)
    wait_for(lambda: product.state(name) == "stopped", "the end of the killed session")
    product.run("remove", name)
    found = git(repo, "log", "--all", "--format=%s")
    assert "SECOND" in found.splitlines()


@pytest.mark.alike
def test_a_branch_name_with_a_line_separator_hinders_nothing(product: Product, repo: Path) -> None:
    odd = "a\u2028b"
    name = product.launch_detached(
        repo, f"git switch -qc '{odd}'; git commit -q --allow-empty -m side; git switch -q -; echo w > w; "
        "touch .git/ok; sleep 600"
    )  # fmt: skip
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the odd branch")
    kill(product, name)
    assert git(repo, "show", "demo/session-1:w") == "w"
    assert product.session(name)["saved"]["verified"]


@pytest.mark.alike
def test_the_helper_of_a_salvage_is_never_another_session(product: Product, repo: Path) -> None:
    """`foo-salvage` is a name that a user may choose."""
    other = product.launch_detached(repo, "sleep 600", "-b", "foo-salvage")
    name = product.launch_detached(repo, "echo w > w; touch .git/ok; sleep 600", "-b", "foo")
    assert other == f"{name}-salvage"
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent's file")
    kill(product, name)
    assert product.session(name)["saved"]["verified"]
    assert product.state(other) == "running"


@pytest.mark.alike
def test_a_session_that_runs_again_is_not_verified_any_more(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "sleep 600")
    kill(product, name)
    assert product.session(name)["saved"]["verified"]
    product.run("start", name)
    assert not product.session(name)["saved"]["verified"]


@pytest.mark.alike
@pytest.mark.parametrize("supervisor", ["lives", "is killed"])
def test_an_upgrade_in_the_middle_of_a_session(
    product: Product, repo: Path, tmp_path: Path, supervisor: str
) -> None:
    """Launched by another version, whose supervisor and guest run on; all later verbs are of this one."""
    earlier = other_version(tmp_path)
    product.extra["PYTHONPATH"] = str(earlier)
    name = product.launch_detached(
        repo, "echo c > c.txt; git add c.txt; git commit -qm mine; echo u > u.txt; touch .git/ok; sleep 600"
    )
    volume = product.session(name)["guest_volume"]
    del product.extra["PYTHONPATH"]
    try:
        wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent's files")
        if supervisor == "is killed":
            kill_supervisor(product)
        assert "u.txt" in product.run("diff", "--stat", name).out
        product.run("pull", name)
        assert git(repo, "log", "-1", "--format=%s", "demo/session-1") == "mine"
        product.run("stop", name)
        assert git(repo, "show", "demo/session-1:u.txt") == "u"
        product.run("start", name)
        product.exec(name, "echo v > v.txt")
        kill(product, name)
        product.run("recover", name)
        assert git(repo, "show", "demo/session-1:v.txt") == "v"
        product.run("remove", name)
        assert product.leftovers() == []
    finally:
        product.clean_up()
        product.engine_run("volume", "rm", volume, f"{volume}-ready", check=False)


def other_version(directory: Path) -> Path:
    """The sources as another version of the product, with a guest program of its own."""
    shutil.copytree(ROOT / "src", directory / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for shared in ("agents", "images"):
        (directory / shared).symlink_to(ROOT / shared)
    with (directory / "src/coding_agents_guest/__init__.py").open("a") as source:
        source.write(f"# {directory}\n")
    return directory / "src"


@pytest.mark.alike
def test_a_guest_program_that_was_changed_never_runs(product: Product, repo: Path, tmp_path: Path) -> None:
    """In a version of its own, because the volume is shared with the sessions of other tests."""
    product.extra["PYTHONPATH"] = str(other_version(tmp_path))
    name = product.launch_detached(repo, "echo w > w.txt; sleep 600")
    volume = product.session(name)["guest_volume"]
    try:
        product.run("stop", name)
        change_program(product, volume, build_guest_pyz())
        for refused in (product.run("start", name, status=36), product.launch(repo, "-d", status=36)):
            assert "is not ours" in refused.err
            assert volume in refused.err
        assert product.state(name) == "stopped"
        assert git(repo, "branch", "--list", "--format=%(refname:short)", "demo/*") == "demo/session-1"
        assert "is not ours" in product.run("remove", name, status=17).err  # its work stays in the volume
        product.engine_run("volume", "rm", f"{volume}-ready")  # as the hint says
        product.run("remove", name)
        product.launch(repo, "--rm", "--", "true")
    finally:
        product.clean_up()
        product.engine_run("volume", "rm", volume, f"{volume}-ready")


def change_program(product: Product, volume: str, program: bytes) -> None:
    """Write another guest program into its volume, through a container that never runs."""
    mount = f"type=volume,source={volume},target=/opt/coding-agents"
    container = product.engine_run("create", f"--mount={mount}", "coding-agents-base:local", "true").split()[
        -1
    ]
    try:
        subprocess.run(
            (product.engine, "cp", "-", f"{container}:/opt/coding-agents"),
            input=tarred({"guest.pyz": program}),
            env=product.env,
            check=True,
        )
    finally:
        product.engine_run("rm", container)
