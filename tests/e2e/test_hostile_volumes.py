"""A volume that the agent itself has made as hostile as its uid can, salvaged by the real container."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.product import Product, git, wait_for

pytestmark = pytest.mark.engine

_WORK = (
    "git switch -qc idea; echo i > idea.txt; git add .; git commit -qm idea; git switch -q demo/session-1;"
    "echo c > committed.txt; git add .; git commit -qm mine; echo u > uncommitted.txt;"
)
_HOSTILE = _WORK + (
    "git rev-parse HEAD > .git/shallow; mkdir -p .git/info; cp .git/shallow .git/info/grafts;"
    "mkfifo .gitattributes .git/commondir .git/objects/info/alternates .git/refs/heads/pipe;"
    "mkdir shut; echo x > shut/x; chmod 0 shut; echo s > secret; chmod 0 secret; mkdir sub; mkfifo sub/.gitignore;"
    "ln -s . .git/refs/heads/loop; ln -s .. .git/refs/heads/up; echo '[include] path = /dev/zero' >> .git/config;"
    "mv .git .real; ln -s .real .git;"
    'python3 -c \'import os\nfor _ in range(60): os.mkdir("d" * 200), os.chdir("d" * 200)\';'
    "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")';"
)
_BRANCHES = _WORK + (
    "for i in $(seq 150); do git update-ref refs/heads/b$i $(git commit-tree -p HEAD -m $i HEAD^{tree}); done;"
)


def salvaged(product: Product, repo: Path, script: str) -> str:
    """Launch `script`, kill it when it is done; the session's name once its volume is salvaged."""
    name = product.launch_detached(repo, f"{script} touch /tmp/ready; sleep 600")
    wait_for(lambda: product.exec(name, "test -e /tmp/ready", status=None).status == 0, "the agent's work")
    product.engine_run("kill", name)
    wait_for(lambda: product.state(name) == "stopped", "the end of the killed session", timeout_s=120.0)
    return name


def everything(product: Product, repo: Path, name: str) -> tuple[str, str]:
    """All refs here and in the relay."""
    return git(repo, "for-each-ref"), git(product.session_dir(name) / "relay.git", "for-each-ref")


@pytest.mark.alike
def test_what_an_agent_can_plant_keeps_no_work_away(product: Product, repo: Path) -> None:
    name = salvaged(product, repo, _HOSTILE)
    saved = product.session(name)["saved"]
    assert (saved["where"], saved["verified"]) == ("branch", True), saved
    assert git(repo, "show", "demo/session-1:committed.txt") == "c"
    assert git(repo, "show", "demo/session-1:uncommitted.txt") == "u"
    assert git(repo, "log", "--format=%s", "demo/session-1").splitlines()[1:] == ["mine", "first"]
    ref = f"refs/coding-agents/incoming/{product.session(name)['id']}-branches/idea"
    assert git(repo, "show", f"{ref}:idea.txt") == "i"
    assert {"secret", "shut/"} <= set(saved["left_out"])
    assert git(repo, "fsck", "--no-dangling") == ""
    product.run("remove", name)
    assert product.leftovers() == []


@pytest.mark.alike
def test_recovering_again_and_again_adds_nothing(product: Product, repo: Path) -> None:
    name = salvaged(product, repo, _BRANCHES)
    product.run("recover", name)
    first = everything(product, repo, name)
    wanted = {f"{one}" for one in range(1, 151)}
    assert wanted <= set(git(repo, "log", "--all", "--format=%s").splitlines())
    assert len(first[0].splitlines()) < 30
    for _ in range(3):
        product.run("recover", name)
        assert everything(product, repo, name) == first
    product.run("remove", name)
    assert wanted <= set(git(repo, "log", "--all", "--format=%s").splitlines())
