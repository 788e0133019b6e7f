"""The check of an agent's new version, end to end: a task in a session as any user's, with a model that is scripted.

Launch, walls, channel and model broker are the real ones. What the new program says and does is hostile: it is asked
for one sentence that it can only have from the model, and for nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from coding_agents.app.gather import gathering
from coding_agents.app.launch import Launch
from coding_agents.app.launch_request import LaunchOptions, parse_request
from coding_agents.app.steps import Trace
from coding_agents.app.stop import Ended, stop, wait
from coding_agents.app.trial_place import has_marker, trial_place
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.errors import AnswerLostError, CodingAgentsError, ImageUpdateError
from coding_agents.images.api import ImageRef
from coding_agents.images.rootfs import is_scratch
from coding_agents.images.scripted_model import ScriptedModel, scripted_model
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.session import SessionRecord
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.disk import remove_host_side
from coding_agents.supervisor.removal import remove_engine_objects

TIME_LIMIT_S: Final = 240.0
_REPOSITORY: Final = "check-"
_STOP_S = 5
_SHOWN_LINES = 40
_SHOWN_BYTES = 8000


class _Silent:
    """Nobody waits for a session that is a check, nor is asked by it."""

    def say(self, text: str) -> None: ...

    def progress(self, text: str) -> None: ...

    def confirm(self, question: str) -> bool:  # noqa: ARG002 - of the protocol
        return False


def require_checkable(manifest: AgentManifest) -> None:
    """Raise ImageUpdateError for an agent that cannot be given a task, or has no model to be scripted."""
    if manifest.model is None or not manifest.command.headless:
        lacks = "headless command" if manifest.model is not None else "[model] table"
        raise ImageUpdateError(
            f"agent {manifest.name!r} cannot be checked: its manifest has no {lacks}",
            hint="Write the new version into its manifest yourself.",
        )


def try_agent(
    env: HostEnvironment,
    engine: Engine,
    manifest: AgentManifest,
    images: tuple[ImageRef, ImageRef],
    *,
    time_limit_s: float = TIME_LIMIT_S,
) -> None:
    """Run one task with `images`, those of the base and of the agent. Raises ImageUpdateError, with what it printed."""
    require_checkable(manifest)
    _clear_killed(env, manifest.name)
    repository = _REPOSITORY + secrets.token_hex(4)
    says, word, key = (secrets.token_hex(12) for _ in range(3))
    variable = _key_variable(manifest)
    with scripted_model(says=says, word=word, credential=key if variable else "") as model:
        environ = {"CODING_AGENTS_MODEL_UPSTREAM": model.url, "CODING_AGENTS_ENGINE": engine.info.name}
        environ |= {variable: key} if variable else {}
        with trial_place(env, name=repository, environ=environ) as trial:
            session = _launch(trial, manifest, images, f"Say hello, and use no tool. ({word})")
            try:
                _judge(session, model, time_limit_s)
            finally:
                clear_away(session)


def _key_variable(manifest: AgentManifest) -> str:
    """The host's variable that the agent's key is read from; "" where there is none."""
    keys = (login.env[0] for login in manifest.login if login.kind == "api-key" and login.env)
    return next(keys, "")


def _launch(
    env: HostEnvironment,
    manifest: AgentManifest,
    images: tuple[ImageRef, ImageRef],
    task: str,
) -> SessionContext:
    options = LaunchOptions(agent=manifest.name, prompt=task, network="restricted")
    trace = Trace()
    try:
        request = parse_request(env, options)
        with gathering(request, env, trace, _Silent()) as facts:
            pass
        gathered = replace(facts(), manifest=manifest, images=images)
        store = SessionStore(env.state_dir)
        session = Launch(request, env, store, _Silent(), gathered, trace).run().session
    except CodingAgentsError as error:
        raise ImageUpdateError(
            f"a session with the new version does not start: {error.message}",
            details=error.details,
            hint=error.hint,
        ) from error
    if session is None:
        raise AssertionError("a launch that is no dry run gives a session")
    return session


def _judge(session: SessionContext, model: ScriptedModel, time_limit_s: float) -> None:
    """Raise ImageUpdateError unless the task was done: asked, answered, ended well, and nothing beside it."""
    try:
        ended = wait(session, timeout_s=time_limit_s)
        problem = "" if ended.exit_status == 0 else f"it ended with status {ended.exit_status}"
    except AnswerLostError:
        ended = stop(session, timeout_s=_STOP_S)
        problem = f"it did not end in {time_limit_s:.0f} s"
    printed = session.engine.logs(session.record.container_id)
    problem = problem or next(_problems(session, model, ended, printed), "")
    if problem:
        lines = printed[-_SHOWN_BYTES:].decode("utf-8", "replace").splitlines()[-_SHOWN_LINES:]
        raise ImageUpdateError(
            f"the new version fails its check: {problem}",
            details="\n".join(lines),
            hint="The version in use stays. Try again with the next one.",
        )


def _problems(session: SessionContext, model: ScriptedModel, ended: Ended, printed: bytes) -> Iterator[str]:
    if not model.asked:
        yield "it did not ask its model"
    if not model.heard:
        yield "its model was not asked the task as it was given, with the host's key"
    if model.says.encode() not in printed:
        yield "what it printed is not what its model said"
    if ended.saved.where not in ("none", "branch"):
        yield f"what it left is not in the repository: {ended.saved.note}"
    if has_marker(session.env, session.record.branch):
        yield "it ran a program that the repository lists"


def _clear_killed(env: HostEnvironment, agent: str) -> None:
    """Remove what checks of this agent left that were killed: there is one at a time, so none is under way."""
    store = SessionStore(env.state_dir)
    for record in store.list():
        if isinstance(record, SessionRecord) and record.agent == agent and is_check(record):
            clear_away(SessionContext(env, store, record))


def is_check(record: SessionRecord) -> bool:
    """Whether a session is on a repository of ours, which was made for it and is gone."""
    place = Path(record.repo.path)
    return place.name.startswith(_REPOSITORY) and is_scratch(place) and not place.exists()


def clear_away(session: SessionContext, *, keep_log: bool = True) -> None:
    """Remove the session with its work, which nobody wants. What hinders that is left to `remove`."""
    with suppress(CodingAgentsError), session.store.lock(session.record.id):
        session.supervisor().quit()  # first: one that sees the container end would begin to salvage it
        for container in (session.record.container_id, session.record.holder_id):
            if container:
                session.engine.kill(container)  # Podman would let it save its work first
        remove_engine_objects(session.engine, session.record.nonce)
        remove_host_side(session.store, session.record.id, keep_log=keep_log)
