"""A session with a disk of its own (`--disk`): the kernel's bound inside, and nothing left of it on the host."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents.model.limits import MIB
from coding_agents.quota.image import Image
from coding_agents.quota.window import loops_of
from support.disks import await_let_go
from support.faults import ORDINARY_UID, StallingEngine, assert_nothing_left, kill_supervisor, ready
from support.product import Product, git, make_repo

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root"),
]

SIZE = 64 * MIB
_WORK = "echo c > c.txt; git add c.txt; git commit -qm mine; echo u > u.txt; echo hog > .gitignore"
# All ways to take room that an agent has, in both of its volumes; then all names that are left.
_FILL = """
tried() { echo "$1" >> /tmp/taken; }
exec 2>> /tmp/errors
fallocate -l 1G hog && tried 'fallocate'
truncate -s 10G holes && head -c 128M /dev/urandom | dd of=holes conv=notrunc status=none && tried 'a hole'
rm holes
head -c 40M /dev/urandom > ~/hog
head -c 128M /dev/urandom > hog && tried 'the workspace'
head -c 128M /dev/urandom >> ~/hog && tried 'home'
i=0
while touch ~/a-name-of-some-length-$i; do i=$((i + 1)); test $i -lt 10000 || { tried 'names'; break; }; done
touch /tmp/ready
sleep 600
"""


@pytest.fixture(autouse=True)
def _nothing_stays_mounted(tmp_path: Path) -> Iterator[None]:
    """Also where the product leaves something, which its test has told by then."""
    yield
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if (place := line.split()[4]).startswith(f"{tmp_path}/"):
            subprocess.run(("umount", "--lazy", place), check=False)


def _is_home(repo: Path) -> bool:
    """Both what the agent committed and what it had not."""
    return {"c.txt", "u.txt"} <= set(git(repo, "ls-tree", "--name-only", "demo/session-1").split())


def _image(product: Product, name: str) -> Image:
    return Image(product.session_dir(name))


def test_a_full_disk_is_the_sessions_own_and_its_work_comes_home(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, f"{_WORK}; {_FILL}", "--disk", "64m")
    ready(product, name)
    image = _image(product, name)

    # The kernel held it, in every way that was tried, and the host gave no more.
    assert product.exec(name, "cat /tmp/taken", status=None).out == ""
    errors = product.exec(name, "cat /tmp/errors").out
    assert errors.count("No space left on device") >= 5
    assert product.session(name)["enforced"]["disk"] == "kernel quota (ext4 on a loop device, 64m)"
    assert image.path.stat().st_size == SIZE
    assert image.path.stat().st_blocks * 512 <= SIZE
    assert len(loops_of(image)) == 1
    assert not os.path.ismount(image.mount_point)

    # It goes on, is saved without room to save in, and leaves no loop device behind.
    assert product.state(name) == "running"
    product.run("stop", name)
    assert _is_home(repo)
    await_let_go(image)

    # Nobody gets an empty volume in its place by starting the container past us.
    assert product.engine_run("start", name, check=False).strip() != name
    assert product.state(name) != "running"

    # As after a restart of the machine: nothing is attached. It is full as before.
    product.run("start", name)
    ready(product, name)
    product.exec(name, "rm hog ~/hog; echo later > later.txt; git add later.txt; git commit -qm later")
    kill_supervisor(product)
    product.engine_run("kill", name)

    # Its volumes are names for what the image holds: the work is not lost with them.
    product.engine_run("rm", "-f", name)
    for volume in product.session(name)["volumes"].values():
        if volume:
            product.engine_run("volume", "rm", "-f", volume)
    product.run("remove", name)
    assert "later.txt" in git(repo, "log", "--all", "--format=", "--name-only").split()
    assert_nothing_left(product)
    await_let_go(image)


def test_who_cannot_mount_is_refused_before_anything_is_made_or_goes_without(ordinary: Product) -> None:
    repo = make_repo(ordinary.home / f"{ordinary.home.name}-u")
    for path in (repo, *repo.rglob("*")):
        os.chown(path, ORDINARY_UID, ORDINARY_UID)
    refused = ordinary.launch(repo, "--disk", "1g", "-d", "--json", "--", "true", status=36)
    assert (
        refused.error["message"] == "a disk of 1g cannot be enforced here: mounting a file system takes root"
    )
    assert "--best-effort disk" in refused.error["hint"]
    planned = ordinary.launch(repo, "--disk", "1g", "--best-effort", "disk", "--dry-run")
    assert "no quota for the disk: mounting a file system takes root" in planned.err
    assert "kernel quota" not in planned.out
    assert_nothing_left(ordinary)


def test_a_launch_that_is_killed_while_the_disk_is_mounted_is_removed_whole(
    product: Product, repo: Path
) -> None:
    stalling = StallingEngine.make(product, "'container start '*", after=False)
    process = product.start(
        "launch", str(repo), "--agent", "demo", "--network-proxy", "restricted", "--disk", "64m", "-d", "--", "true",
        env=stalling.env,
    )  # fmt: skip
    stalling.wait()
    (directory,) = product.sessions_dir.iterdir()
    image = Image(directory)
    assert os.path.ismount(image.mount_point)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    product.run("remove", f"demo-{repo.name}-session-1")
    stalling.release()
    assert not os.path.ismount(image.mount_point)
    assert_nothing_left(product)
    await_let_go(image)
