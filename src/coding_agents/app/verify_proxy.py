"""A session of mode `squid` is attacked: its proxy is asked by a hostile program, and so are the ways past it.

No packet leaves the machine: the names that its rules allow are private ones, which lead to somebody of this
verification's, and nobody is asked for any other.
"""

from __future__ import annotations

import time
from typing import Any, Final

from msgspec.structs import replace

from coding_agents.app.images import build_settings
from coding_agents.app.verify_host import guard_evidence, looked
from coding_agents.app.verify_inside import attempt, attempt_all
from coding_agents.app.verify_place import Place
from coding_agents.app.verify_sessions import launch_session
from coding_agents.app.verify_targets import StandIns
from coding_agents.config.load import load_settings
from coding_agents.engine.cli import CliEngine
from coding_agents.errors import CodingAgentsError
from coding_agents.images.api import ImageRef
from coding_agents.images.build import ensure_proxy_image
from coding_agents.model.audit import RecordType, decode_record
from coding_agents.supervisor.context import SessionContext
from coding_agents.verify.checks_proxy import SQUID, listed_names, tricks
from coding_agents.verify.model import Attempt, Evidence, Found

_LIMIT_S: Final = 20.0
_RECORDED_S: Final = 3.0
_SQUID_USER: Final = "13:13"
_CONNECT: Final = (
    "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2); print('open')"
)


def attack_proxied(
    engine: CliEngine, place: Place, base: ImageRef, stand_ins: StandIns | None, say: Any
) -> Evidence:
    """Evidence of mode `squid`; that it could not be had, where nobody is there to knock at."""
    target = (
        next((one for one in stand_ins.targets if one.kind == "host"), None)
        if stand_ins is not None
        else None
    )
    if target is None:
        return {"interfaces": Found(error="nobody on this machine could be knocked at")}
    try:
        ensure_proxy_image(engine, build_settings(place.env, load_settings(place.env), say))
        listed, private = listed_names()
        opened = ",".join(f"{name}={target.address}:{target.port}" for name in (listed, private))
        environ = {**place.env.environ, "CODING_AGENTS_NETWORK_PRIVATE": opened,
                   "CODING_AGENTS_NETWORK_ALLOW": f"{private}:{target.port % 65535 + 1}"}  # fmt: skip
        env = replace(place.env, environ=environ)
        session = launch_session(env, (base, base), branch=SQUID, network=SQUID)
    except CodingAgentsError as error:
        return {"interfaces": Found(error=f"the session did not start: {error.message}")}
    session.engine = engine
    asked = tricks(target.port, target.address)
    told = attempt(
        engine,
        session.record.container_id,
        Attempt("egress", "ask", (list(asked.values()),)),
        limit_s=_LIMIT_S,
    )
    addresses = [target.address, "192.168.255.254", "fd00::1"]
    found = {
        **_each(told, list(asked)),
        **attempt_all(engine, session.record.container_id, {
            "interfaces": Attempt("network", "interfaces"),
            "direct": Attempt("egress", "without_the_proxy", ([listed_names()[0], "example.com"], addresses)),
        }, limit_s=_LIMIT_S),
        **guard_evidence(engine, session),
        "proxy squid user": looked(lambda: _as_squid(engine, session, target.address, target.port)),
        "proxy recorded": looked(lambda: _unrecorded(session, list(asked))),
    }  # fmt: skip
    direct = found.pop("direct")
    worked = [name for name, answer in (direct.value or {}).items() if answer == "done"]
    found["proxy direct"] = direct if direct.error else Found(worked, ms=direct.ms)
    return found


def _each(told: Found, names: list[str]) -> dict[str, Found]:
    if told.error or not isinstance(told.value, list) or len(told.value) != len(names):
        return {f"proxy {name}": Found(error=told.error or "no answer") for name in names}
    return {
        f"proxy {name}": Found(answer, ms=told.ms // len(names))
        for name, answer in zip(names, told.value, strict=True)
    }


def _as_squid(engine: CliEngine, session: SessionContext, address: str, port: int) -> str:
    """What comes of a connection by squid's user; ValueError when the proxy's own does not get through either."""
    argv = ("python3", "-IS", "-c", _CONNECT, address, str(port))
    if b"open" not in engine.exec(session.record.holder_id, argv, user="1002:1002").stdout:
        raise ValueError("the proxy's own user does not get through either")
    return (
        engine.exec(session.record.holder_id, argv, user=_SQUID_USER)
        .stdout.decode("utf-8", "replace")
        .strip()
    )


def _unrecorded(session: SessionContext, names: list[str]) -> list[str]:
    """How many requests lack a record, a moment after they were made: squid's own refusals are in its own log."""
    wanted = len(names) - 3
    deadline = time.monotonic() + _RECORDED_S
    while True:
        lines = session.audit_path.read_bytes().splitlines()
        told = sum(decode_record(line).type is RecordType.EGRESS for line in lines)
        if told >= wanted or time.monotonic() > deadline:
            return [] if told >= wanted else [f"{wanted - told} of {wanted}"]
        time.sleep(0.1)
