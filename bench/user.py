"""A user of the product for one measurement: a home directory of its own, and the real command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

_KEPT = ("PATH", "LANG", "TMPDIR", "SSL_CERT_FILE", "DOCKER_HOST", "CONTAINER_HOST", "CONTAINERS_STORAGE_CONF",
         "CONTAINERS_CONF", "XDG_RUNTIME_DIR")  # fmt: skip
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class User:
    """`engine` is docker or podman. Sessions are named after the repository, so `repository` names are unique."""

    engine: str
    home: Path
    env: Mapping[str, str]

    def command(self, *args: str) -> subprocess.Popen[bytes]:
        """`coding-agents ARGS`, started; both outputs are pipes."""
        return self._start((sys.executable, "-m", "coding_agents", *args))

    def run(self, *args: str) -> str:
        """`coding-agents ARGS` to a good end; its output."""
        process = self.command(*args)
        out, err = process.communicate(timeout=_TIMEOUT_S)
        return _checked(args, process, out, err)

    def engine_run(self, *args: str, stdin: bytes | None = None) -> str:
        """`ENGINE ARGS` to a good end; its output."""
        process = self._start(
            (self.engine, *args), stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE
        )
        out, err = process.communicate(stdin, timeout=_TIMEOUT_S)
        return _checked(args, process, out, err)

    def launch(self, repo: Path, *args: str) -> str:
        """Launch `demo` on `repo`; the output of its command."""
        return self.run("launch", str(repo), "--agent", "demo", "--engine", self.engine, *args)

    def first_byte_ms(
        self,
        repo: Path,
        *args: str,
        keep: bool = False,
        agent: str = "demo",
        command: tuple[str, ...] = ("echo", "hello"),
    ) -> float:
        """From the start of `launch` to the first byte that a command in the session writes.

        The session is removed at once, or with `keep` at the end of the user.
        """
        began = time.perf_counter()
        end = () if keep else ("--rm",)
        launch = ("launch", str(repo), "--agent", agent, "--engine", self.engine, *end, *args)
        process = self.command(*launch, "--", *command)
        if process.stdout is None:
            raise AssertionError("the output is a pipe")
        first = process.stdout.read(1)
        took = (time.perf_counter() - began) * 1000
        out, err = process.communicate(timeout=_TIMEOUT_S)
        _checked(launch, process, first + out, err)
        return took

    def repository(self, files: Mapping[str, bytes]) -> Path:
        """A new repository with one commit that holds `files`."""
        path = self.home / f"bench-{uuid.uuid4().hex[:8]}"
        for name, content in files.items():
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        self._git(path, "init", "--quiet", "--initial-branch=main")
        self._git(path, "add", "--all")
        self._git(path, "-c", "gc.auto=0", "commit", "--quiet", "--message", "first")
        self._git(path, "repack", "-a", "-d", "--quiet")  # as a clone has it: one pack, no loose objects
        return path

    def _git(self, repo: Path, *args: str) -> None:
        identity = ("-c", "user.name=Bench", "-c", "user.email=bench@example.invalid")
        subprocess.run(("git", *identity, *args), cwd=repo, env=self.env, check=True)

    def _start(self, argv: tuple[str, ...], *, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv,
            cwd=self.home,
            env=self.env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


def _checked(args: tuple[str, ...], process: subprocess.Popen[bytes], out: bytes, err: bytes) -> str:
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(args)} failed with status {process.returncode}:\n{err.decode()}")
    return out.decode()


@contextmanager
def new_user(engine: str, environ: Mapping[str, str], directory: Path) -> Iterator[User]:
    """A user with an empty home in `directory`; what is left of its sessions is removed at the end."""
    with TemporaryDirectory(dir=directory) as home:
        kept = {name: environ[name] for name in _KEPT if name in environ}
        user = User(engine, Path(home), {**kept, "HOME": home})
        try:
            yield user
        finally:
            for name in _session_names(user):
                user.run("remove", "--force", name)


def _session_names(user: User) -> list[str]:
    return [session["name"] for session in json.loads(user.run("list", "--all", "--json"))]
