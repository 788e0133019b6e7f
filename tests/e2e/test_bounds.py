"""What ends a session that does not end by itself: its time, and an engine's disk that is nearly full."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import EngineUnderTest
from support.escape import host_answers
from support.faults import fill, kill_supervisor, ready, small_ext4
from support.product import Product, git, wait_for
from support.second_engine import SecondEngine, second_engine

pytestmark = pytest.mark.engine

_WORK = "echo c > c.txt; git add c.txt; git commit -qm mine; echo u > u.txt; "


def _is_home(repo: Path) -> bool:
    """Both what the agent committed and what it had not."""
    return {"c.txt", "u.txt"} <= set(git(repo, "ls-tree", "--name-only", "demo/session-1").split())


@pytest.mark.alike
def test_time_is_up_whoever_looks(product: Product, repo: Path) -> None:
    """Its supervisor was killed, and nobody but a `list` comes by after the end of its time."""
    script = f"{_WORK} touch /tmp/ready; sleep 600"
    name = product.launch_detached(repo, script, "--time-limit", "1h")
    ready(product, name)
    path = product.session_dir(name) / "session.json"
    record = json.loads(path.read_text())
    left = record["deadline"]["boottime_ms"] - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10**6
    assert 3_500_000 < left <= 3_600_000
    kill_supervisor(product)
    record["deadline"]["boottime_ms"] -= 3_600_000
    path.write_text(json.dumps(record))
    product.run("list")
    wait_for(lambda: product.session(name)["phase"] == "stopped", "the end")
    assert _is_home(repo)
    ends = [one for one in product.audit(name) if one["type"] == "budget-used"]
    assert [one["subject"] for one in ends] == ["its time of 1h is up"]
    assert product.run("start", name).err
    assert product.session(name)["deadline"]["boottime_ms"] > record["deadline"]["boottime_ms"] + 3_500_000
    product.run("remove", "--force", name)


def test_a_disk_is_throttled_or_the_launch_is_refused(product: Product, repo: Path) -> None:
    """Read is what both versions of cgroups throttle; of version 1 it is known that it does not throttle all writes."""
    script = "head -c 16M /dev/zero > f; sync f; time -p dd if=f of=/dev/null iflag=direct bs=1M"
    options = ("--disk-read", "4m", "--disk-write", "512m")
    is_v1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()
    if is_v1:
        refused = product.launch(repo, *options, "--", "true", status=125)
        assert "disk-write is direct-only" in refused.err
        options = (*options, "--best-effort", "disk-write")
    done = product.launch(repo, *options, "--", "bash", "-c", script)
    assert "disk-read 4m" in done.err
    assert ("disk-write direct-only" if is_v1 else "disk-write 512m") in done.err
    (real,) = (
        float(line.split()[1]) for line in (done.out + done.err).splitlines() if line.startswith("real")
    )
    assert 3.0 < real < 20.0


@pytest.fixture(scope="module")
def small(engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondEngine]:
    if os.geteuid() != 0:
        pytest.skip("an engine of one's own needs root")
    with (
        small_ext4(Path("/var/tmp") / f"small-{os.getpid()}", "4G") as disk,
        second_engine(engine.name, below=disk) as made,
    ):
        yield made


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "hog",
    [
        "while :; do head -c 32M /dev/zero >> hog.bin || break; sleep 0.1; done; sleep 600",
        "fallocate -l 10G hog.bin; head -c 10G /dev/zero > hog.bin; sleep 600",
        "i=0; while mkdir d$i && touch d$i/$(seq -s ' d'$i'/' 500); do i=$((i+1)); sleep 0.1; done; sleep 600",
    ],
    ids=["slowly", "at once", "inodes"],
)
def test_a_full_disk_ends_a_session_and_costs_no_work(
    product: Product, repo: Path, small: SecondEngine, hog: str
) -> None:
    small.adopt(product)
    (repo / ".gitignore").write_text("hog.bin\nd*/\n")
    name = product.launch_detached(repo, f"{_WORK} {hog}")
    with host_answers(product.home):
        wait_for(lambda: product.session(name)["phase"] == "stopped", "the end", timeout_s=240)
    ends = [one["subject"] for one in product.audit(name) if one["type"] == "budget-used"]
    assert len(ends) == 1
    assert ends[0].startswith("the engine's disk has only ")
    assert _is_home(repo)
    product.run("remove", "--force", name)
    assert product.leftovers() == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_work_comes_home_from_a_disk_without_a_free_block(
    product: Product, repo: Path, small: SecondEngine
) -> None:
    """Somebody else takes all that is left, faster than anybody looks: no engine can make a container there."""
    small.adopt(product)
    name = product.launch_detached(repo, f"{_WORK} touch /tmp/ready; sleep 600")
    ready(product, name)
    hog = fill(small.directory.parent)
    try:
        with host_answers(product.home):
            wait_for(lambda: product.session(name)["phase"] == "stopped", "the end", timeout_s=240)
        assert _is_home(repo)
    finally:
        hog.unlink()
    product.run("remove", "--force", name)
    assert product.leftovers() == []
