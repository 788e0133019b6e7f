"""The sessions that `verify` attacks: made by the real launch, for a throw-away user, and removed without a trace."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from coding_agents.app.gather import gathering
from coding_agents.app.launch import Launch
from coding_agents.app.launch_request import LaunchOptions, parse_request
from coding_agents.app.narrate import Narrator
from coding_agents.app.steps import Trace
from coding_agents.app.trial import clear_away
from coding_agents.app.verify_place import AGENT
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.errors import CodingAgentsError
from coding_agents.images.api import ImageRef
from coding_agents.images.rootfs import is_scratch
from coding_agents.model.session import SessionRecord
from coding_agents.sandbox.spec import LABEL
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.removal import remove_engine_objects, remove_labelled

_LOOK_AGAIN_S: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
_ENDED: Final = ("exited", "dead")
_COMMAND: Final = ("sleep", "3000")


class Silent:
    """Nobody waits for a session that is attacked."""

    def say(self, text: str) -> None: ...

    def progress(self, text: str) -> None: ...

    def confirm(self, question: str) -> bool:  # noqa: ARG002 - of the protocol
        return False


class Bounds(msgspec.Struct, frozen=True):
    """Flags of a launch, None for what is not asked for."""

    time_limit: str | None = None
    bandwidth: str | None = None
    disk_read: str | None = None
    disk_write: str | None = None
    best_effort: tuple[str, ...] = ()


NO_BOUNDS: Final = Bounds()


def launch_session(
    env: HostEnvironment,
    images: tuple[ImageRef, ImageRef],
    *,
    branch: str,
    network: str,
    memory: str | None = None,
    pids: str | None = None,
    bounds: Bounds = NO_BOUNDS,
    narrator: Narrator | None = None,
) -> SessionContext:
    """A running session on `env`'s repository, as anybody's; only its images are given. Raises what launches raise."""
    options = LaunchOptions(
        agent=AGENT, command=_COMMAND, branch=branch, network=network, memory=memory, pids=pids, force=True,
        time_limit=bounds.time_limit, bandwidth=bounds.bandwidth, disk_read=bounds.disk_read,
        disk_write=bounds.disk_write, best_effort=bounds.best_effort,
    )  # fmt: skip
    trace, telling = Trace(), narrator or Silent()
    request = parse_request(env, options)
    with gathering(request, env, trace, telling) as facts:
        pass
    store = SessionStore(env.state_dir)
    session = Launch(request, env, store, telling, replace(facts(), images=images), trace).run().session
    if session is None:
        raise AssertionError("a launch that is no dry run gives a session")
    return session


def clear_sessions(env: HostEnvironment, repo: Path | None = None) -> None:
    """Remove the sessions on the repository `repo`; without one those of verifications that were killed."""
    store = SessionStore(env.state_dir)
    ours = [
        SessionContext(env, store, one)
        for one in store.list()
        if isinstance(one, SessionRecord) and one.agent == AGENT and _is_ours(one, repo)
    ]
    with ThreadPoolExecutor(max(1, len(ours))) as pool:
        list(pool.map(lambda session: clear_away(session, keep_log=False), ours))


def _is_ours(record: SessionRecord, repo: Path | None) -> bool:
    place = Path(record.repo.path)
    return place == repo if repo is not None else is_scratch(place) and not place.exists()


def clear_leftovers(engine: Engine, repo: Path, *, cut_short: bool) -> None:
    """Remove what launches left that were cut short, whose records are gone: `repo` was this verification's alone.

    An engine may still carry out what a client that was `cut_short` had asked for: then it is looked again.
    """
    mine = {f"{LABEL}repo-path": str(repo)}
    for pause_s in _LOOK_AGAIN_S:
        time.sleep(pause_s)
        look_again = cut_short and pause_s == _LOOK_AGAIN_S[0]
        with suppress(CodingAgentsError):
            remove_labelled(engine, mine)
            left = engine.find(mine) or engine.list_networks(mine) or engine.list_volumes(mine)
            if not left and not look_again:
                return


def stand_in_labels(nonce: str, repo: Path) -> dict[str, str]:
    """What the stand-ins of one verification carry, and nothing else does."""
    return {f"{LABEL}type": "stand-in", f"{LABEL}nonce": nonce, f"{LABEL}repo-path": str(repo)}


def clear_stand_ins(engine: Engine, nonce: str) -> None:
    """Remove them, their networks and volumes; what the engine does not let go stays for `clear_abandoned`."""
    with suppress(CodingAgentsError):
        remove_engine_objects(engine, nonce)


def clear_images(engine: Engine, repo: Path | None = None) -> None:
    """Remove the images made for a verification on `repo`; without one those of verifications that were killed."""
    with suppress(CodingAgentsError):
        for image in engine.list_images(f"{LABEL}repo-path"):
            place = Path(image.labels.get(f"{LABEL}repo-path", ""))
            if place == repo if repo is not None else is_scratch(place) and not place.exists():
                for tag in image.tags:
                    engine.remove_image(tag)


def clear_abandoned(engine: Engine) -> None:
    """Remove what killed verifications left: images, and stand-ins, which end by themselves."""
    clear_images(engine)
    with suppress(CodingAgentsError):
        ended = [one for one in engine.find({f"{LABEL}type": "stand-in"}) if one.status in _ENDED]
        for nonce in {one.labels.get(f"{LABEL}nonce", "") for one in ended} - {""}:
            clear_stand_ins(engine, nonce)
