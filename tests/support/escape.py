"""Sessions to attack from inside: the guest is hostile, the host judges by what the kernel answered it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from coding_agents.verify import program
from coding_agents.verify.program import PACKAGE
from support.product import TIMEOUT_S, Product, Result, git, make_repo

AGENT = "1000:1000"
# How the kernel says no. Not EINVAL or EFAULT: then the call was allowed and only badly worded.
DENIED = frozenset({"EPERM", "EACCES", "EROFS", "ENOSYS"})
SOCKETS = ("credential.sock", "events.sock", "relay.sock", "tools.sock")

T = TypeVar("T")


@dataclass(frozen=True)
class Captive:
    """One running session. `launched` is how its launch ended, with the banner in `launched.err`."""

    product: Product
    name: str
    repo: Path
    launched: Result = field(repr=False)

    @property
    def branch(self) -> str:
        return str(self.product.session(self.name)["branch"])

    @property
    def holder(self) -> str:
        return f"{self.name}-holder"

    def attack(self, function: Callable[..., T], *arguments: object) -> T:
        """What a function of an attack returns when the agent runs it, by `coding-agents exec`."""
        return _answer_of(self.product.run("exec", self.name, "--", *attack_argv(function, *arguments)).out)

    def attack_behind_the_gate(
        self, function: Callable[..., T], *arguments: object, container: str = ""
    ) -> T:
        """The same by the engine's own means, which the gate does not stop."""
        argv = attack_argv(function, *arguments)
        return _answer_of(self.product.engine_run("exec", "-u", AGENT, container or self.name, *argv))

    def as_root(self, *argv: str, container: str = "") -> str:
        """What the engine's owner sees: a command as root in the container (no capabilities in the agent's)."""
        return self.product.engine_run("exec", "-u", "0:0", container or self.name, *argv)

    def inspect(self, name: str = "") -> dict[str, Any]:
        """The engine's account of one of the session's containers."""
        inspected: dict[str, Any] = json.loads(self.product.engine_run("inspect", name or self.name))[0]
        return inspected

    def is_alive(self) -> bool:
        """Whether the container runs and has never been started again."""
        record = self.product.session(self.name)
        return bool(self.inspect()["State"]["Running"]) and record["phase"] == "running"

    def guest_digest(self) -> str:
        """SHA-256 of the guest's program as the engine holds it."""
        argv = (self.product.engine, "cp", f"{self.name}:/opt/coding-agents/guest.pyz", "-")
        done = subprocess.run(
            argv,
            env=self.product.env,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
            cwd=self.product.home,
        )
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            member = archive.extractfile("guest.pyz")
            assert member is not None
            return hashlib.sha256(member.read()).hexdigest()

    def supervisor_pid(self) -> int:
        """The process on the host that serves this session."""
        wanted = self.product.session(self.name)["id"].encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if b"coding_agents.supervisor" in words and any(wanted in word for word in words):
                    return int(path.parent.name)
        raise AssertionError(f"no supervisor of {self.name}")

    def stop(self) -> None:
        self.product.run("stop", self.name)

    def returned(self, path: str) -> str:
        """The content of a file on the branch that came back to the user's repository."""
        return git(self.repo, "show", f"{self.branch}:{path}")

    def assert_saves(self) -> None:
        """The session still brings work back: a new file is in the relay after a save."""
        mark = f"work-{uuid.uuid4().hex[:8]}.txt"
        self.product.exec(self.name, f"echo done > {mark}")
        assert mark in self.product.run("diff", self.name, "--stat").out


@contextmanager
def host_answers(place: Path, *, within_s: float = 5.0) -> Iterator[None]:
    """Whatever happens in the block: the host starts programs, and writes files, without waiting long for it."""
    slowest, done = [0.0], threading.Event()

    def try_again() -> None:
        while not done.wait(0.2):
            began = time.monotonic()
            assert subprocess.run(("true",), check=False).returncode == 0
            (place / "answers").write_bytes(b"x" * 4096)
            (place / "answers").unlink()
            slowest[0] = max(slowest[0], time.monotonic() - began)

    with ThreadPoolExecutor(1) as pool:
        trying = pool.submit(try_again)
        try:
            yield
        finally:
            done.set()
    trying.result()
    assert 0 < slowest[0] < within_s


def capture(
    product: Product, repo: Path, *options: str, script: str = "sleep 3000", **changes: Any
) -> Captive:
    """Launch a session that runs `script` in the background; restricted unless `options` choose a network."""
    launched = product.launch(repo, "-d", *options, "--", "sh", "-c", script, **changes)
    return Captive(product, launched.out.strip(), repo, launched)


def fresh_repo(product: Product, **changes: Any) -> Path:
    """A repository whose name no other test has: sessions are named after it, and tests share the engine."""
    return make_repo(product.home / f"x{uuid.uuid4().hex[:8]}", **changes)


def denied(answers: dict[str, str]) -> dict[str, str]:
    """The answers that are not a plain no; a test wants none of them."""
    return {name: answer for name, answer in answers.items() if answer not in DENIED}


def attack_argv(function: Callable[..., object], *arguments: object) -> tuple[str, ...]:
    """The command that runs a function of `coding_agents.attacks`, or of a module like them, in a container."""
    module = function.__module__
    ours = module.startswith(f"{PACKAGE}.")
    more = {} if ours else {module: Path(function.__code__.co_filename).read_text()}
    return program.attack_argv(module, function.__name__, arguments, more=more)


def _answer_of(output: str) -> Any:
    return json.loads(output.splitlines()[-1])
