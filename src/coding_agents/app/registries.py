"""The registries of a session in network mode `squid`: what package managers of its image and of this host use.

The image is asked in a container of it without a network, once: its answer is kept by the image's id. Programs of the
host are not asked, and files of the repository are not read.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path

import msgspec

from coding_agents import __version__
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.errors import CodingAgentsError, EngineError, StoreError
from coding_agents.images.apt import parse_deb822, parse_list
from coding_agents.images.data import data_dir
from coding_agents.images.recipes import NPM_REF
from coding_agents.network.registries import (
    Discovered,
    Place,
    config_files,
    further_files,
    places_in_environment,
    places_in_file,
    registry_rules,
)
from coding_agents.sandbox.invariants import check_spec
from coding_agents.sandbox.plan import plan_asking
from coding_agents.store.files import make_dir, read_record, write_atomic

_FORMAT = 1  # of what is kept: raise it when an image would be asked or read differently
_KEPT = 8  # images of an agent
_MAX_FILE = 1 << 20
_MAX_ANSWER = 4 << 20
_ASK_S = 60.0
_POLL_S = 0.05
_MARK = b"coding-agents-registries: "
_GUEST_HOME = Path("/home/agentuser")
_MACHINES = ("/etc/", "/usr/")  # where root alone writes


class Registries(msgspec.Struct, frozen=True):
    """Rules of the source `registry`, and what could not be read, for people."""

    rules: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    """What images/registries/ask.py prints: files as (manager, path, text), and what programs have compiled in."""

    files: list[tuple[str, str, str]]
    own: dict[str, list[str]]


class _Kept(msgspec.Struct, frozen=True):
    """What images of one agent have answered, by their ids, the latest last."""

    format: int
    images: dict[str, Discovered]


def session_registries(
    env: HostEnvironment, engine: Engine, image: str, agent: str, *, managed: bool
) -> Registries:
    """The registries of a session of `agent` in `image` (an id). What cannot be read is left out and told.

    Where an organisation manages the list of hosts (`managed`), nothing of the user's own counts.
    """
    kept = _read_kept(env, agent)
    if image in kept:
        return _registries(env, kept[image], managed=managed)
    try:
        found = _asked(engine, image)
    except CodingAgentsError as error:
        problem = f"the image could not be asked for its registries: {error.message}"
        return _registries(env, Discovered(problems=(problem,)), managed=managed)
    with suppress(StoreError):  # it is asked again, then
        _keep(env, agent, dict([*kept.items(), (image, found)][-_KEPT:]))
    return _registries(env, found, managed=managed)


def known_registries(env: HostEnvironment, agent: str, *, managed: bool) -> Registries:
    """The same without an engine, with what the latest image of `agent` that was asked has answered."""
    kept = next(reversed(_read_kept(env, agent).values()), Discovered())
    return _registries(env, kept, managed=managed)


def host_registries(env: HostEnvironment, *, managed: bool = False) -> Discovered:
    """What the files and variables of this host's user say, and the machine's own files; `managed`: these alone."""
    environ = {} if managed else env.environ
    patterns = config_files(env.home, config_home=env.config_home).items()
    named = [
        (manager, path)
        for manager, several in patterns
        for one in several
        if not managed or one.startswith(_MACHINES)
        for path in sorted(Path("/").glob(one.lstrip("/")))
    ]
    named += [(manager, Path(path)) for manager, path in further_files(environ)]
    found = [_read_file(manager, path, environ) for manager, path in dict.fromkeys(named)]
    return _joined([Discovered(tuple(places_in_environment(environ))), *found])


def _read_file(manager: str, path: Path, environ: Mapping[str, str]) -> Discovered:
    try:
        text = read_record(path.resolve(), limit=_MAX_FILE).decode("utf-8")
    except FileNotFoundError:
        return Discovered()
    except (OSError, RuntimeError, StoreError, UnicodeDecodeError):
        return Discovered(problems=(f"{path} cannot be read: {manager}'s registries in it are left out",))
    return _places(manager, str(path), text, str(path), environ)


def _places(manager: str, path: str, text: str, where: str, environ: Mapping[str, str]) -> Discovered:
    def apt(lines: str) -> Iterator[str]:
        read = {".list": parse_list, ".sources": parse_deb822}.get(Path(path).suffix)
        return (source.uri for source in (read(lines) if read is not None else ()))

    return places_in_file(manager, where, text, environ=environ, apt=apt)


def _registries(env: HostEnvironment, of_image: Discovered, *, managed: bool) -> Registries:
    found = _joined((of_image, host_registries(env, managed=managed)))
    rules, left = registry_rules(found.places)
    return Registries(rules, (*found.problems, *left))


def _joined(several: Iterable[Discovered]) -> Discovered:
    several = tuple(several)
    return Discovered(
        tuple(chain.from_iterable(one.places for one in several)),
        tuple(chain.from_iterable(one.problems for one in several)),
    )


def _asked(engine: Engine, image: str) -> Discovered:
    """What the package managers in `image`, and the npm of our own builds, use. Raises EngineError."""
    npm = engine.image_id(NPM_REF)
    return _joined(_ask(engine, one) for one in dict.fromkeys(filter(None, (image, npm))))


def _ask(engine: Engine, image: str) -> Discovered:
    script = (data_dir("images") / "registries/ask.py").read_text()
    argument = json.dumps(config_files(_GUEST_HOME))
    name = f"coding-agents-registries-{secrets.token_hex(6)}"
    spec = plan_asking(name=name, image=image, script=script, argument=argument, version=__version__)
    check_spec(spec)
    container = engine.create(spec)
    try:
        engine.start(container)
        _await_end(engine, container)
        said = engine.logs(container)
    finally:
        with suppress(EngineError):
            engine.remove(container, force=True)
    return _understood(said)


def _await_end(engine: Engine, container: str) -> None:
    end = time.monotonic() + _ASK_S
    while (state := engine.inspect(container)) is not None and state.running:
        if time.monotonic() > end:
            raise EngineError(f"it did not answer within {_ASK_S:.0f} s")
        time.sleep(_POLL_S)


def _understood(said: bytes) -> Discovered:
    """The answer in the log of the container: text of an image, which is believed in nothing but names of hosts."""
    line = next((one for one in said.splitlines() if one.startswith(_MARK)), b"")
    try:
        answer = msgspec.json.decode(line[len(_MARK) : _MAX_ANSWER], type=_Answer)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise EngineError("its answer is not understood") from error
    known = config_files(_GUEST_HOME)
    own = [Place(manager, url, "its own") for manager in known for url in answer.own.get(manager, ())]
    files = [
        _places(manager, path, text, f"{manager}'s configuration in the image", {})
        for manager, path, text in answer.files
        if manager in known
    ]
    return _joined((Discovered(tuple(own)), *files))


def _kept_file(env: HostEnvironment, agent: str) -> Path:
    return env.data_dir / "registries" / f"{agent}.json"


def _read_kept(env: HostEnvironment, agent: str) -> dict[str, Discovered]:
    try:
        kept = msgspec.json.decode(read_record(_kept_file(env, agent)), type=_Kept)
    except (OSError, StoreError, msgspec.MsgspecError):
        return {}
    return kept.images if kept.format == _FORMAT else {}


def _keep(env: HostEnvironment, agent: str, images: dict[str, Discovered]) -> None:
    path = _kept_file(env, agent)
    make_dir(path.parent)
    write_atomic(path, msgspec.json.encode(_Kept(_FORMAT, images)))
