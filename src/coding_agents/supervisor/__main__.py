"""`python -m coding_agents.supervisor SESSION-DIRECTORY READY-FD`: start one session's supervisor."""

from __future__ import annotations

import gc
import sys

# What we load is no garbage, so nobody need look for any until it is loaded. And asyncio imports ssl where it
# can, a tenth of our start and 2 MB of memory: no TLS is spoken here.
gc.disable()
sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]

import asyncio
import os
import resource
import signal
import traceback
from contextlib import suppress
from pathlib import Path

from coding_agents.audit.log import open_log
from coding_agents.config.environ import read_environment
from coding_agents.errors import CodingAgentsError, StoreError
from coding_agents.store.files import locked
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.control import serving
from coding_agents.supervisor.disk import remove_host_side
from coding_agents.supervisor.journal import Journal, now_ms
from coding_agents.supervisor.process import Supervisor

# A hundred thousand rules are no garbage either: at the interpreter's own 700, reading them is a third search for it.
_GC_THRESHOLD = 50_000
_LOG_LIMIT = 1 << 20
# A predecessor that is leaving closes its channel first, which takes some seconds at most.
_LOCK_WAIT_S = 15.0


def main() -> int:
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    gc.enable()
    # Our memory holds the user's credentials for the model; no dump of it is to lie anywhere.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    directory, ready = Path(sys.argv[1]), int(sys.argv[2])
    _redirect_output(directory / "supervisor.log")
    try:
        env = read_environment()
        store = SessionStore(directory.parent.parent)
        session = SessionContext(env, store, store.load(directory.name))
        with locked(directory / "supervisor.lock", timeout_s=_LOCK_WAIT_S):
            asyncio.run(_serve(session, ready))
    except StoreError as error:
        # Another supervisor holds the lock: whoever started us finds that one.
        print(error.message, file=sys.stderr)
        return error.exit_status
    except CodingAgentsError as error:
        traceback.print_exc()
        print(error.message, error.details, sep="\n", file=sys.stderr)
        return error.exit_status
    return 0


async def _serve(session: SessionContext, ready: int) -> None:
    with open_log(session.audit_path, session=session.record.id, time_ms=now_ms()) as log:
        supervisor = Supervisor(session, Journal(log))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, supervisor.leave)
        loop.add_signal_handler(signal.SIGINT, supervisor.leave)
        path = session.store.control_socket(session.record.id)
        async with serving(path, supervisor.handle):
            os.write(ready, b"+")
            os.close(ready)
            await supervisor.run()
    if supervisor.removed:
        remove_host_side(session.store, session.record.id)


def _redirect_output(path: Path) -> None:
    """Our standard streams go to the session's own log, so that a traceback is not lost; it starts anew when long."""
    with suppress(OSError):
        if path.stat().st_size > _LOG_LIMIT:
            path.unlink()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
