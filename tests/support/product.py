"""The real command line, run as a user would: in a home directory of its own, on a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.engines import engine_environ

ROOT = Path(__file__).resolve().parents[2]
# Generous: the machine may be busy with other tests. A hanging product fails here, not at the test's own limit.
TIMEOUT_S = 240.0


@dataclass(frozen=True)
class Result:
    """How a command of the product ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error line of `--json`."""
        line = next(line for line in self.err.splitlines() if line.startswith('{"error"'))
        error: dict[str, Any] = json.loads(line)["error"]
        return error


@dataclass
class Product:
    """One user of the product. `engine` is docker or podman; `home` is the user's, with all XDG places in it."""

    engine: str
    home: Path
    extra: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()  # runs what follows as somebody else
    python: str = sys.executable

    @property
    def env(self) -> dict[str, str]:
        """The user's environment: nothing of the test's own but what finds programs and the engine."""
        kept = ("PATH", "LANG", "SSL_CERT_FILE", "CONTAINERS_STORAGE_CONF")
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            **engine_environ(),
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT / "src"),
            "CODING_AGENTS_ENGINE": self.engine,
            "GIT_CONFIG_GLOBAL": str(self.home / ".gitconfig"),
            **self.extra,
        }

    @property
    def sessions_dir(self) -> Path:
        return self.home / ".local/state/coding-agents/sessions"

    @property
    def kept_logs(self) -> Path:
        """Where the audit logs of removed sessions are."""
        return self.home / ".local/state/coding-agents/audit"

    def start(
        self, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start `coding-agents ARGS` in a process group of its own."""
        return subprocess.Popen(
            (*self.prefix, self.python, "-m", "coding_agents", *args),
            cwd=cwd or self.home,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            start_new_session=True,
        )

    def run(
        self,
        *args: str,
        cwd: Path | None = None,
        status: int | None = 0,
        env: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Result:
        """Run `coding-agents ARGS` to its end and require its exit status (None: any)."""
        process = self.start(*args, cwd=cwd, env=env)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"{args} did not end in {timeout_s} s\n{out}\n{err}") from None
        result = Result(process.returncode, out, err)
        assert status is None or result.status == status, f"{args}: {result}"
        return result

    def launch(self, repo: Path, *args: str, status: int | None = 0, **options: Any) -> Result:
        """`launch REPO --agent demo ARGS`; restricted unless ARGS choose a network."""
        network = () if "--network-proxy" in args else ("--network-proxy", "restricted")
        return self.run("launch", str(repo), "--agent", "demo", *network, *args, status=status, **options)

    def launch_detached(self, repo: Path, script: str, *args: str) -> str:
        """Launch `sh -c SCRIPT` in the background; returns the session's name."""
        result = self.launch(repo, "-d", *args, "--", "sh", "-c", script)
        return result.out.strip()

    def session(self, name: str) -> dict[str, Any]:
        """The session's own record on disk."""
        for path in self.sessions_dir.glob("*/session.json"):
            record: dict[str, Any] = json.loads(path.read_text())
            if record["name"] == name:
                return record
        raise AssertionError(f"no session {name}")

    def session_dir(self, name: str) -> Path:
        return self.sessions_dir / self.session(name)["id"]

    def state(self, name: str) -> str:
        """The session's state as `list` shows it."""
        listed = self.run("list", "-a", "--json").json
        return next(str(one["state"]) for one in listed if one["name"] == name)

    def audit(self, name: str) -> list[dict[str, Any]]:
        """The session's audit records."""
        lines = (self.session_dir(name) / "audit.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def engine_run(self, *args: str, check: bool = True) -> str:
        """Run the engine's own command line; its standard output."""
        done = subprocess.run(
            (self.engine, *args), env=self.env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert not check or done.returncode == 0, f"{args}: {done.stderr}"
        return done.stdout

    def exec(self, name: str, script: str, *, status: int | None = 0) -> Result:
        """Run a shell script as the agent's user in a running session."""
        return self.run("exec", name, "--", "sh", "-c", script, status=status)

    def screen(self, name: str) -> str:
        """The screen of a session's agent, as text."""
        return self.exec(name, "tmux capture-pane -p -t agent").out

    def leftovers(self) -> list[str]:
        """Everything in the engine that belongs to this user's sessions, by the label of their repositories' home."""
        found = []
        for kind, args in (
            ("container", ("ps", "-a", "--format", "{{.Names}}")),
            ("volume", ("volume", "ls", "--format", "{{.Name}}")),
            ("network", ("network", "ls", "--format", "{{.Name}}")),
        ):
            for label in self._labels():
                listed = self.engine_run(*args, "--filter", f"label={label}").split()
                found += [f"{kind} {name}" for name in listed]
        return found

    def _labels(self) -> Sequence[str]:
        return [
            f"coding-agents.repo-path={path}"
            for path in sorted(self.home.glob("*"))
            if (path / ".git").exists()
        ]

    def clean_up(self) -> None:
        """Remove what the test left, whatever state it is in."""
        for line in self.leftovers():
            kind, name = line.split()
            args = ("rm", "-f", name) if kind == "container" else (kind, "rm", name)
            self.engine_run(*args, check=False)


def wait_for(condition: Any, what: str, *, timeout_s: float = 60.0) -> Any:
    """Poll until `condition()` is true; returns its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)
    return value


def git(repo: Path, *args: str, check: bool = True, stdin: str | None = None) -> str:
    """Run git in a repository of a test, free of the developer's configuration."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(repo.parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z",
        "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
    }
    done = subprocess.run(
        ("git", *args), cwd=repo, env=env, input=stdin, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, f"git {args}: {done.stderr}"
    return done.stdout.strip()


def make_repo(path: Path, files: Mapping[str, str] | None = None) -> Path:
    """A real repository with one commit on main."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main")
    git(path, "config", "user.name", "Uma User")
    git(path, "config", "user.email", "uma@example.invalid")
    for name, content in (files or {"README.md": "hello\n", "src/app.py": "print('hi')\n"}).items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message", "first")
    return path


@contextmanager
def user_of(engine: str, home: Path) -> Iterator[Product]:
    """A user of the product whose sessions are all gone afterwards."""
    product = Product(engine, home)
    try:
        yield product
    finally:
        product.clean_up()
