"""The tests' own engines: they work, live side by side, and end without a trace, also when their owner has died."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_TOOL = Path(__file__).resolve().parents[2] / "tools" / "test-engine"
_RUN = Path("/run/coding-agents-test")

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces of the machine take root"),
]


def tool(*args: str) -> None:
    subprocess.run([str(_TOOL), *args], check=True, capture_output=True, timeout=120)


def out(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout


@contextmanager
def engines(*args: str) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="coding-agents-engine.", dir="/var/tmp"))
    tool("up", str(directory), *args)
    try:
        yield directory
    finally:
        if directory.exists():
            tool("down", str(directory))


def traces(name: str, directory: Path) -> list[str]:
    """Everything on the machine that still bears the name."""
    found = [
        what
        for what in (out("ip", "netns"), out("ip", "-o", "link"), out("nft", "list", "tables"))
        if name in what
    ]
    found += [
        line
        for line in Path("/proc/self/mounts").read_text().splitlines()
        if name in line or str(directory) in line
    ]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"{_RUN}/{name}/".encode() in process.read_bytes():
                found.append(str(process))
        except OSError:
            continue
    return found + [str(path) for path in (_RUN / name, directory) if path.exists()]


def test_two_side_by_side_and_then_no_trace() -> None:
    with engines() as one, engines() as other:
        names = [(one / "name").read_text().strip(), (other / "name").read_text().strip()]
        assert len(set(names)) == 2
        for directory in (one, other):
            shown = out(
                "sh",
                "-c",
                f". {directory}/env; docker info --format '{{{{.DockerRootDir}}}}'; command -v podman",
            )
            assert shown.split() == [f"{directory}/docker", f"{directory}/bin/podman"]
        assert traces(names[0], one)
    assert [traces(name, directory) for name, directory in zip(names, (one, other), strict=True)] == [[], []]


def test_the_uplink_can_be_cut() -> None:
    with engines() as directory:
        name = (directory / "name").read_text().strip()
        gateway = (_RUN / name / "net").read_text().strip() + ".1"
        connect = f"import socket; socket.create_connection(('{gateway}', 9), 2)"
        ping = ["nsenter", f"--net=/run/netns/{name}", "python3", "-c", connect]
        assert _refused_soon(ping)
        tool("uplink", str(directory), "off")
        assert "refused" not in subprocess.run(ping, capture_output=True, text=True).stderr
        tool("uplink", str(directory), "on")
        assert _refused_soon(ping)


def _refused_soon(ping: list[str]) -> bool:
    """Whether the gateway answers (by refusing); the kernel remembers for a moment that nobody did."""
    for _ in range(20):
        if "refused" in subprocess.run(ping, capture_output=True, text=True).stderr:
            return True
        time.sleep(0.5)
    return False


def test_engines_whose_owner_died_are_ended_by_the_next() -> None:
    owner = subprocess.Popen(["sleep", "300"])
    try:
        with engines("--owner", str(owner.pid)) as orphan:
            name = (orphan / "name").read_text().strip()
            owner.kill()
            owner.wait()
            with engines("--owner", str(os.getpid())):
                assert traces(name, orphan) == []
    finally:
        owner.kill()
        owner.wait()
