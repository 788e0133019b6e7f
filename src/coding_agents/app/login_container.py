"""A login made by the agent's own program, in a session of its own that is thrown away afterwards.

The program never runs on the host, and what it wrote beside its login goes with the container. The tokens are then
coding-agents' own: nobody else renews them (docs/adr/0018).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from coding_agents.app.callback import forwarding
from coding_agents.app.gather import gathering
from coding_agents.app.launch import Launch
from coding_agents.app.launch_request import LaunchOptions, parse_request
from coding_agents.app.narrate import Narrator
from coding_agents.app.remove import remove
from coding_agents.app.steps import Trace
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.errors import CredentialError, EngineError
from coding_agents.gitsync.clone import drop_empty_repository
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.provider import Login
from coding_agents.model.runtimes import AUTO
from coding_agents.proc.runner import Command
from coding_agents.proc.terminal import run_on_terminal
from coding_agents.sandbox.guest import guest_argv
from coding_agents.sandbox.spec import AGENT_USER, HOME
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.terminal.filter import TerminalFilter

_LONGEST_S = 1800  # somebody looks for a password, a second device, a colleague
_MOST = 1 << 18  # bytes of a file of logins


def container_login(manifest: AgentManifest) -> Login | None:
    """The login of this agent that can be made in a container, if there is one."""
    return next((login for login in manifest.login if login.command), None)


def log_in_inside(
    manifest: AgentManifest, login: Login, env: HostEnvironment, store: SessionStore, narrator: Narrator
) -> bytes:
    """Run the agent's own login on our terminal; returns the file that it has written.

    Nothing is left of the session then. Raises CredentialError when the program gave up or wrote nothing, UsageError
    when the callback's port is taken, and whatever keeps a session from starting.
    """
    with _throw_away_session(manifest, env, store, narrator) as session:
        engine, container = session.engine, session.record.container_id

        def dial() -> Command:
            words = guest_argv(session.record.guest_digest, "dial", str(login.callback))
            return engine.exec_command(container, words, user=AGENT_USER, interactive=True)

        callback = forwarding(login.callback, dial) if login.callback else nullcontext()
        term = ("TERM", "xterm-256color")
        command = engine.exec_command(
            container,
            login.command,
            user=AGENT_USER,
            interactive=True,
            tty=True,
            workdir=HOME,
            env=(("HOME", HOME), ("LANG", "C.UTF-8"), ("NO_PROXY", "127.0.0.1,localhost"), term),
        )
        with callback:
            status = run_on_terminal(command, TerminalFilter())
        if status:
            raise CredentialError(
                f"`{' '.join(login.command)}` ended with status {status}: there is no login",
                hint=f"Try again, or give a key: `coding-agents login {manifest.name} --api-key`.",
            )
        return _written(engine, container, manifest, login)


def _written(engine: Engine, container: str, manifest: AgentManifest, login: Login) -> bytes:
    try:
        return engine.read_file(container, f"{HOME}/{login.file}", max_bytes=_MOST)
    except EngineError as error:
        raise CredentialError(
            f"{manifest.title} has written no login into ~/{login.file}",
            details=error.message,
            hint="Go through it to its end, then try again.",
        ) from error


@contextmanager
def _throw_away_session(
    manifest: AgentManifest, env: HostEnvironment, store: SessionStore, narrator: Narrator
) -> Iterator[SessionContext]:
    """A session with the agent's image, the internet, an empty repository, and nothing of the user's."""
    name = f"login-{os.urandom(4).hex()}"
    options = LaunchOptions(
        empty=True,
        agent=manifest.name,
        name=name,
        network="allow-all",
        runtime=AUTO,  # gVisor has no network yet, and what logs in is the agent's own program, untouched by any task
        command=("sleep", str(_LONGEST_S)),
        detach=True,
    )
    request, trace = parse_request(env, options), Trace()
    narrator.say(f"{manifest.title} logs in inside a container that is thrown away afterwards")
    try:
        with gathering(request, env, trace, narrator) as facts:
            pass
        session = Launch(request, env, store, narrator, facts(), trace).run().session
        if session is None:
            raise AssertionError("a launch that is no dry run gives a session")
        try:
            yield session
        finally:
            remove(session, force=True)
    finally:
        drop_empty_repository(env.data_dir, name)
