"""A session whose commits are signed: its relay and its broker on sockets, and a guest's git with the real programs."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import coding_agents_guest
from coding_agents.audit.log import open_log
from coding_agents.model.audit import AuditRecord, decode_record
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.git_settings import commit_settings, git_settings
from coding_agents.supervisor.journal import Journal, now_ms
from coding_agents.supervisor.signing_access import SigningAccess
from coding_agents_guest.mux import Stream
from support.fake_engine import FakeEngine
from support.relay_server import URL, RelayServer, SocketStream, serving
from support.supervised import make_session

# /usr/lib/coding-agents/sign-* and commit-trailers, on a socket of ours.
_SHIM = """#!{python} -IS
import sys
sys.path.insert(0, {source!r})
from coding_agents_guest.{module} import main
sys.exit(main({words}))
"""


@dataclass
class SignedSession:
    """`guest` is the work tree of the guest's git, `env` its environment; `sign` the socket of the broker."""

    session: SessionContext
    guest: Path
    env: dict[str, str]
    sign: Path
    relay: RelayServer

    def git(self, *words: str, check: bool | None = True, stdin: bytes = b"", **env: str) -> str:
        """What the guest's git prints, on both ways; `check` says whether it is to do its work, None for either."""
        done = subprocess.run(
            ["git", *words],
            cwd=self.guest,
            env={**self.env, **env},
            input=stdin,
            capture_output=True,
            check=False,
        )
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        assert check is None or check == (done.returncode == 0), said
        return said

    def commit(self, name: str, *words: str, check: bool = True, **env: str) -> str:
        """Change a file and commit it; what git says."""
        (self.guest / name).write_text(f"{name}\n")
        self.git("add", ".")
        return self.git("commit", "-q", "-m", f"Add {name}", *words, check=check, **env)

    def ask(self, payload: bytes) -> bytes:
        """What the broker answers to these bytes, asked by no program of ours."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(30)
            link.connect(str(self.sign))
            with suppress(OSError):
                link.sendall(payload)
                link.shutdown(socket.SHUT_WR)
            answer = b""
            with suppress(ConnectionResetError):
                while data := link.recv(65536):
                    answer += data
        return answer

    def records(self, *kinds: str) -> list[AuditRecord]:
        found = map(decode_record, self.session.audit_path.read_bytes().splitlines())
        return [record for record in found if record.type.value in kinds]


def signing_session(tmp_path: Path, *, mode: str, kind: str, key: str, **environ: str) -> SessionContext:
    """A session of Ada's whose commits are signed, as a launch would leave its record."""
    (tmp_path / "engine").mkdir()
    session = make_session(tmp_path, FakeEngine(tmp_path / "engine"))
    session.env = session.env.__class__(
        environ={**session.env.environ, **environ}, home=session.env.home, uid=session.env.uid,
        gid=session.env.gid, cwd=session.env.cwd, platform="linux",
    )  # fmt: skip
    session.update(
        author_name="Ada", author_email="ada@example.test", committer_name="Ada (Demo)",
        committer_email="ada@example.test", signing=mode, signing_format=kind, signing_key=key,
        trailers=("Agent: Demo", f"Session: {session.record.id}"), created_ms=now_ms(),
    )  # fmt: skip
    return session


@contextmanager
def signed_session(session: SessionContext, tmp_path: Path) -> Iterator[SignedSession]:
    """The session at work until the block is left."""
    guest, settings = tmp_path / "guest", tmp_path / "gitconfig"
    with (
        tempfile.TemporaryDirectory(prefix="cs-") as short,
        open_log(session.audit_path, session=session.record.id, time_ms=0) as log,
        serving(session.relay, tmp_path / "serving") as relay,
        _broker(SigningAccess(session, Journal(log)), Path(short, "s")) as sign,
    ):
        text = commit_settings(session)
        for name, module, words in (
            ("sign-openpgp", "sign_client", f"'openpgp', sys.argv[1:], {str(sign)!r}"),
            ("sign-ssh", "sign_client", f"'ssh', sys.argv[1:], {str(sign)!r}"),
            ("commit-trailers", "trailers", "sys.argv[1:]"),
        ):
            text = text.replace(f"/usr/lib/coding-agents/{name}", str(_shim(tmp_path / name, module, words)))
        (tmp_path / "gitconfig-commits").write_text(text)
        general = git_settings(session).replace("/run/coding-agents/", f"{tmp_path}/")
        settings.write_text(general.replace("gitdir:/workspace/", f"gitdir:{guest}/"))
        env = relay.guest_env(
            {
                "PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "guest-home"), "LC_ALL": "C.UTF-8",
                "GIT_CONFIG_SYSTEM": str(settings),
            }
        )  # fmt: skip
        guest.mkdir()
        made = SignedSession(session, guest, env, sign, relay)
        made.git("init", "-q")
        (guest / ".git/hooks/prepare-commit-msg").symlink_to(tmp_path / "commit-trailers")
        made.git("fetch", "-q", URL)
        made.git("checkout", "-q", "-B", session.record.branch, session.record.base)
        yield made


def _shim(path: Path, module: str, words: str) -> Path:
    source = str(Path(coding_agents_guest.__file__).parent.parent)
    path.write_text(_SHIM.format(python=sys.executable, source=source, module=module, words=words))
    path.chmod(0o755)
    return path


@contextmanager
def _broker(access: SigningAccess, path: Path) -> Iterator[Path]:
    """The broker on a Unix socket, in a thread."""
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    failures: list[BaseException] = []
    running: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        running.add(task)
        try:
            await access.serve(cast("Stream", SocketStream(reader, writer)))
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            writer.close()
            running.discard(task)

    async def main() -> None:
        server: Any = await asyncio.start_unix_server(handle, str(path))
        started.set()
        async with server:
            await stop.wait()
        if running:  # whoever was refused may have gone before all was written down
            await asyncio.wait(running)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert started.wait(10)
    try:
        yield path
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        assert failures == []
