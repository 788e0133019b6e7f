"""Faults for the tests that break things: an engine that stalls, killed processes, full disks, and what must hold."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from support.product import Product, Result, git, wait_for

ORDINARY_UID = 1234

# The call is made and then hangs, so that what it made exists and nobody was told of it.
_STALLING = """#!/bin/sh
case "$*" in
{pattern})
    if mkdir {once} 2>/dev/null; then
        {first}
        touch {stalled}
        i=0; while test -e {stalled} && test $i -lt 1200; do i=$((i + 1)); sleep 0.1; done
    fi;;
esac
exec {program} "$@"
"""


@dataclass(frozen=True)
class StallingEngine:
    """An engine whose first command line that matches a shell pattern hangs, before or after it is carried out."""

    directory: Path

    @classmethod
    def make(cls, product: Product, pattern: str, *, after: bool) -> StallingEngine:
        program = shutil.which(product.engine)
        assert program is not None
        engine = cls(product.home.parent / f"{product.home.name}-engine")
        engine.directory.mkdir()
        script = engine.directory / product.engine
        script.write_text(
            _STALLING.format(
                pattern=pattern,
                once=engine.directory / "once",
                first=f'{program} "$@" >/dev/null' if after else ":",
                stalled=engine.directory / "stalled",
                program=program,
            )
        )
        script.chmod(0o755)
        return engine

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": f"{self.directory}:{os.environ['PATH']}"}

    def wait(self) -> None:
        """Until the command line hangs."""
        wait_for((self.directory / "stalled").exists, "the engine to stall")

    def release(self) -> None:
        """Let what hangs go on."""
        (self.directory / "stalled").unlink()


@contextmanager
def ordinary_user(engine: str) -> Iterator[Product]:
    """A user who is not root, with uid ORDINARY_UID, and who may use the engine's socket as a member of its group."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    socket = Path(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
    if engine != "docker" or not socket.is_socket():
        pytest.skip("needs a Docker socket of this machine")
    identity = (
        "setpriv",
        f"--reuid={ORDINARY_UID}",
        f"--regid={ORDINARY_UID}",
        f"--groups={socket.stat().st_gid}",
    )
    # Not under pytest's own directory, which is root's alone; a name in letters that a session's name keeps.
    home = Path(tempfile.gettempdir(), f"ca-ordinary-{uuid.uuid4().hex[:8]}")
    home.mkdir(0o700)
    os.chown(home, ORDINARY_UID, ORDINARY_UID)
    product = Product(engine, home, prefix=identity)
    # The Python of the tests may lie in root's home; the system's can have its packages, too.
    product.python = "/usr/bin/python3"
    product.extra["PYTHONPATH"] = os.pathsep.join(
        (product.env["PYTHONPATH"], str(Path(click.__file__).parents[1]))
    )
    try:
        probe = (*identity, product.python, "-c", "import click, msgspec")
        if subprocess.run(probe, env=product.env, check=False).returncode:
            pytest.skip("the system's Python does not take the packages of this one")
        yield product
    finally:
        product.clean_up()
        shutil.rmtree(home)


def supervisors(product: Product) -> list[int]:
    """The process ids of this user's supervisors, by the session directory in their command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"coding_agents.supervisor" in words and os.fsencode(product.home) in b"\0".join(words):
                    parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                    found[int(entry.name)] = int(parent)
    # A program that a supervisor is just starting has its command line until it is executed.
    return [pid for pid, parent in found.items() if parent not in found]


def kill_supervisor(product: Product) -> None:
    """SIGKILL for the one supervisor of this user; returns when it is gone."""
    (pid,) = supervisors(product)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in supervisors(product), "the end of the killed supervisor")


def refs(repo: Path) -> str:
    """All refs of a repository, HEAD, and its status: what a launch that was undone must not have changed."""
    return "\n".join(
        (git(repo, "for-each-ref"), git(repo, "symbolic-ref", "HEAD"), git(repo, "status", "--porcelain"))
    )


def assert_nothing_left(product: Product) -> None:
    """No session, no engine object, no supervisor."""
    wait_for(
        lambda: not list(product.sessions_dir.glob("*")), "the session's directory to go", timeout_s=10.0
    )
    assert product.leftovers() == []
    wait_for(lambda: supervisors(product) == [], "the supervisor to leave", timeout_s=10.0)


def assert_refused(result: Result, *, status: int, code: str, says: str) -> dict[str, Any]:
    """A refusal as the design has it under `--json`: one error line that names what is wrong, and no traceback."""
    assert "Traceback" not in result.out + result.err, result
    error = result.error
    assert (result.status, error["exit_status"], error["code"]) == (status, status, code), result
    assert says in error["message"], error
    assert result.out == "", result
    return error


def ready(product: Product, name: str) -> None:
    """Wait until the script of a session has made /tmp/ready."""
    wait_for(lambda: product.exec(name, "test -e /tmp/ready", status=None).status == 0, "the agent's work")


def state_becomes(product: Product, name: str, state: str) -> None:
    wait_for(lambda: product.state(name) == state, f"{name} to be {state}", timeout_s=120.0)


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A tmpfs of `size` at `path` (needs root)."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)), check=True)
    try:
        yield path
    finally:
        deadline = time.monotonic() + 20.0
        while subprocess.run(("umount", str(path)), capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                subprocess.run(
                    ("umount", "--lazy", str(path)), check=True
                )  # later test runs must not trip over it
                raise AssertionError(f"{path} stays busy")
            time.sleep(0.1)


@contextmanager
def small_ext4(path: Path, size: str) -> Iterator[Path]:
    """An ext4 of `size` in a file beside `path`, mounted there (needs root): with a disk's own rules, unlike tmpfs."""
    image = path.with_suffix(".img")
    path.mkdir(parents=True)
    subprocess.run(("truncate", "-s", size, str(image)), check=True)
    subprocess.run(("mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", str(image)), check=True)
    subprocess.run(("mount", "-o", "loop", str(image), str(path)), check=True)
    try:
        yield path
    finally:
        subprocess.run(("umount", "--lazy", str(path)), check=True)
        image.unlink()
        path.rmdir()


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make the directory `path` a read-only mount of itself (needs root: modes do not bind root)."""
    subprocess.run(("mount", "--bind", str(path), str(path)), check=True)
    try:
        subprocess.run(("mount", "-o", "remount,bind,ro", str(path)), check=True)
        yield
    finally:
        subprocess.run(("umount", "--lazy", str(path)), check=True)


def fill(directory: Path) -> Path:
    """Use up all space of the file system of `directory`; removing the returned file gives it back."""
    hog = directory / "hog"
    with hog.open("ab", buffering=0) as file, suppress(OSError):
        free = os.statvfs(directory)
        with suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)  # most of it in no time
        while True:
            file.write(b"\0" * 4096)
    return hog
