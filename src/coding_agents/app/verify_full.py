"""What a quick verification leaves out: bombs, in a small session that is made of a hostile image."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from coding_agents.app.stop import stop
from coding_agents.app.verify_bounds import bounds_for, throttled
from coding_agents.app.verify_host import looked
from coding_agents.app.verify_inside import attempt
from coding_agents.app.verify_place import Place
from coding_agents.app.verify_sessions import launch_session
from coding_agents.engine.cli import CliEngine
from coding_agents.engine.unguarded import addresses_of
from coding_agents.errors import CodingAgentsError
from coding_agents.images.api import ImageRef
from coding_agents.model.limits import GIB
from coding_agents.sandbox.spec import AGENT_USER, LABEL
from coding_agents.supervisor.context import SessionContext
from coding_agents.verify.model import Attempt, Evidence, Found

_DOCKERFILE: Final = f"""\
ARG BASE
FROM ${{BASE}}
LABEL {LABEL}session=another {LABEL}nonce=0000
HEALTHCHECK --interval=1s CMD touch /workspace/health-check
ENTRYPOINT ["sh", "-c", "touch /workspace/entry-point; sleep 3000"]
"""
_BOMB_S: Final = 25.0


def attack_small(
    engine: CliEngine, place: Place, base: ImageRef, neighbour: SessionContext
) -> tuple[Evidence, Found]:
    """Evidence of the small session, and what became of `neighbour`'s attempts to reach it."""
    image = _hostile_image(engine, place, base)
    try:
        session = launch_session(place.env, (base, image), branch="small", network="allow-all",
                                 memory="256m", pids="100",
                                 bounds=bounds_for(place.env, "small"))  # fmt: skip
    except CodingAgentsError as error:
        why = Found(error=f"the small session did not start: {error.message}")
        return {name: why for name in _EVIDENCE}, why
    session.engine = engine
    container = session.record.container_id
    other = looked(lambda: _reach(engine, neighbour, session))
    found = {
        "image entry point": attempt(engine, container, _exists("/workspace/entry-point")),
        "image health check": looked(lambda: _health(engine, container)),
        "image labels": looked(lambda: _labels(engine, session)),
    }
    engine.exec(container, ("sh", "-c", "echo work > /workspace/work.txt"), user=AGENT_USER)
    found |= throttled(engine, session, neighbour)
    found |= _bombs(engine, container)
    found["bombed work"] = looked(lambda: _comes_home(session, place))
    return found, other


_EVIDENCE: Final = (
    "image entry point", "image health check", "image labels", "bomb", "memory bomb",
    "host answers", "bombed work", "disk read", "disk write",
)  # fmt: skip


def _hostile_image(engine: CliEngine, place: Place, base: ImageRef) -> ImageRef:
    """An image on top of the base whose settings would run, replace or claim something; `clear_images` removes it."""
    context = place.env.home / "image"
    context.mkdir()
    (context / "Dockerfile").write_text(_DOCKERFILE, "utf-8")
    ref = f"coding-agents-verify:{secrets.token_hex(4)}"
    labels = {f"{LABEL}repo-path": str(place.repo)}
    image = engine.build(
        context, tag=ref, build_args={"BASE": base.ref}, labels=labels, on_line=lambda _line: None
    )
    return ImageRef(image, ref)


def _exists(path: str) -> Attempt:
    return Attempt("files", "existing", ([path],))


def _health(engine: CliEngine, container: str) -> list[str]:
    document = engine.inspect_one("container", container) or {}
    test = ((document.get("Config") or {}).get("Healthcheck") or {}).get("Test") or ["NONE"]
    ran = attempt(engine, container, _exists("/workspace/health-check")).value
    return [*(map(str, test) if test[0] != "NONE" else ()), *ran]


def _labels(engine: CliEngine, session: SessionContext) -> list[str]:
    """Labels of the image that are the session's now, where they would be believed."""
    state = engine.inspect(session.record.container_id)
    if state is None:
        raise LookupError("the container is gone")
    wanted = {f"{LABEL}session": session.record.id, f"{LABEL}nonce": session.record.nonce}
    return [name for name, value in wanted.items() if state.labels.get(name) != value]


def _reach(engine: CliEngine, neighbour: SessionContext, session: SessionContext) -> dict[str, Any]:
    """Knocks of one session at a listener in the other, which that one itself reaches."""
    container = session.record.container_id
    address = next(iter(addresses_of(engine, session.record.holder_id).values()))
    port = attempt(engine, container, Attempt("standin", "serve_aside", (30,))).value
    target = Attempt("network", "knock_side_by_side", ([[one, address, port] for one in ("tcp", "udp")], 1.0))
    own = attempt(engine, container, target).value
    if not own or any(answer[0] != "open" for answer in own.values()):
        raise ValueError("nobody listens in the other session")
    value = attempt(engine, neighbour.record.container_id, target).value
    if not isinstance(value, dict):
        raise ValueError("the session did not knock")
    return value


def _bombs(engine: CliEngine, container: str) -> dict[str, Found]:
    """Both bombs, one after the other, and the longest that the engine took to answer meanwhile, in seconds."""
    bombs = {
        "bomb": Attempt("resources", "bomb", (1000, 2.0)),
        "memory bomb": Attempt("resources", "end_by_memory", (GIB,)),
    }
    found: dict[str, Found] = {}
    slowest = 0.0
    with ThreadPoolExecutor(1) as pool:
        for name, one in bombs.items():
            under_way = pool.submit(attempt, engine, container, one, limit_s=_BOMB_S)
            while not under_way.done():
                began = time.monotonic()
                engine.inspect(container)
                slowest = max(slowest, time.monotonic() - began)
                time.sleep(0.2)
            found[name] = under_way.result()
    return {**found, "host answers": Found(slowest)}


def _comes_home(session: SessionContext, place: Place) -> bool:
    stop(session, timeout_s=20)
    return f"refs/heads/{session.record.branch}" in place.refs_now()
