"""`verify`: sessions of a throw-away user are attacked from inside, and the host judges what came of it.

No packet leaves the machine: whoever is knocked at is a container of this verification's own, or an address of the
engine's machine, at a port where such a container listens.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import msgspec

from coding_agents.app.images import build_settings
from coding_agents.app.narrate import Narrator
from coding_agents.app.steps import Parallel, Step, Trace, interrupts_held
from coding_agents.app.verify_baseline import contrast
from coding_agents.app.verify_bounds import bounds_for, flooded
from coding_agents.app.verify_full import attack_small
from coding_agents.app.verify_home import bring_home
from coding_agents.app.verify_host import guard_evidence, keeps, looked, session_evidence
from coding_agents.app.verify_inside import attempt, attempt_all
from coding_agents.app.verify_place import Place, verify_place
from coding_agents.app.verify_proxy import attack_proxied
from coding_agents.app.verify_sessions import (
    clear_abandoned,
    clear_images,
    clear_leftovers,
    clear_sessions,
    clear_stand_ins,
    launch_session,
    stand_in_labels,
)
from coding_agents.app.verify_targets import StandIns, knock, knocked, start_stand_ins
from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import load_settings
from coding_agents.engine.cli import CliEngine
from coding_agents.engine.find import find_engine
from coding_agents.engine.unguarded import addresses_of
from coding_agents.errors import CodingAgentsError
from coding_agents.images.api import ImageRef
from coding_agents.images.build import ensure_image
from coding_agents.supervisor.context import SessionContext
from coding_agents.verify.catalogue import all_checks
from coding_agents.verify.checks_proxy import SQUID
from coding_agents.verify.model import Attempt, Check, Evidence, Found, Report, Result, judge
from coding_agents.verify.scene import Scene, Target, attempts, noise, ways_home

RESTRICTED, ALLOW_ALL, SMALL = "restricted", "allow-all", "small"
PROTOCOLS: Final = ("tcp", "udp", "icmp")
_LISTENS_S: Final = 60

OnSession = Callable[[str, SessionContext], None]
"""Is told of each session, with its mode, before it is attacked: by which a test breaks a wall."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted: `quick` leaves the bombs out, `baseline` adds the contrast.

    `engine` is auto, docker or podman, None as it is set.
    """

    quick: bool = False
    baseline: bool = False
    engine: str | None = None


def verify(
    env: HostEnvironment, options: Options, narrator: Narrator, *, on_session: OnSession | None = None
) -> Report:
    """Attack and judge. Raises what launches and engines raise; whatever was made is gone in every case."""
    settings = load_settings(env, flags={"engine": options.engine})
    engine = find_engine(settings.engine, env.environ)
    base = ensure_image(engine, None, build_settings(env, settings, narrator.progress))
    with verify_place(env, engine=engine.info.name, branch="verify/restricted") as place:
        clear_sessions(env)  # of killed ones, whose places are gone by now
        clear_abandoned(engine)
        run = _Run(engine, base, place, narrator, on_session or (lambda _mode, _session: None), options)
        with run.cleared():
            evidence = run.attack()
    checks = [one for one in all_checks(place.scene) if not (options.quick and one.full)]
    arms = {name: results_of(name, checks, found) for name, found in run.contrasts.items()}
    judged = results(checks, evidence)
    return Report(engine.info.title, engine.info.version, judged, arms if options.baseline else None)


def results(checks: list[Check], evidence: Mapping[str, Evidence]) -> tuple[Result, ...]:
    """Each check in each of its modes."""
    return tuple(judge(one, mode, evidence.get(mode, {})) for one in checks for mode in one.modes)


def results_of(arm: str, checks: list[Check], evidence: Evidence) -> tuple[Result, ...]:
    """The checks that make sense without our walls, of a session with a network, in an arm of the baseline."""
    return tuple(judge(one, arm, evidence) for one in checks if one.baseline and ALLOW_ALL in one.modes)


class _Aim(msgspec.Struct):
    """Whom sessions knock at, and (when it is known) which of them somebody without a guard reaches, by protocol."""

    stand_ins: StandIns
    targets: tuple[Target, ...]
    control: Step[dict[str, set[str]]]


class _Run(msgspec.Struct):
    """One verification under way."""

    engine: CliEngine
    base: ImageRef
    place: Place
    narrator: Narrator
    on_session: OnSession
    options: Options
    contrasts: dict[str, Evidence] = msgspec.field(default_factory=dict)
    nonce: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))

    @contextmanager
    def cleared(self) -> Iterator[None]:
        """Whatever was made in the block is gone after it."""
        cut_short = True
        try:
            yield
            cut_short = False
        finally:
            with interrupts_held():
                self.narrator.progress("removing what was made")
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(clear_stand_ins, self.engine, self.nonce)
                    clear_sessions(self.place.env, self.place.repo)
                    clear_leftovers(self.engine, self.place.repo, cut_short=cut_short)
                clear_images(self.engine, self.place.repo)

    def attack(self) -> dict[str, Evidence]:
        """Launch, attack, bring home; evidence by mode."""
        self.narrator.progress("starting sessions to attack")
        sessions, stand_ins = self._start()
        self.narrator.progress("attacking from inside")
        with Parallel(Trace()) as steps:
            aim = self._take_aim(steps, stand_ins, sessions[ALLOW_ALL]) if stand_ins is not None else None
            restricted = steps.run("restricted", lambda: self._attack_restricted(sessions[RESTRICTED], aim))
            allow_all = steps.run("allow-all", lambda: self._attack(ALLOW_ALL, sessions[ALLOW_ALL], aim))
            evidence: dict[str, Evidence] = {RESTRICTED: restricted.result(), ALLOW_ALL: allow_all.result()}
        if self.options.baseline:
            self.narrator.progress("trying the same without these walls")
            self.contrasts = contrast(self.engine, self.base.id, self.place, stand_ins, self._labels)
        if not self.options.quick:
            self.narrator.progress("asking the proxy of a third session")
            proxied = attack_proxied(self.engine, self.place, self.base, stand_ins, self.narrator.progress)
            evidence[SQUID] = proxied
            self.narrator.progress("setting off bombs in a small session")
            small, other = attack_small(self.engine, self.place, self.base, sessions[ALLOW_ALL])
            evidence[SMALL] = small
            evidence[ALLOW_ALL] = {**evidence[ALLOW_ALL], "other session": other}
        return evidence

    @property
    def _labels(self) -> dict[str, str]:
        return stand_in_labels(self.nonce, self.place.repo)

    def _start(self) -> tuple[dict[str, SessionContext], StandIns | None]:
        with Parallel(Trace()) as steps:
            launched = {
                mode: steps.run(mode, lambda mode=mode: self._launch(mode))  # type: ignore[misc]
                for mode in (RESTRICTED, ALLOW_ALL)
            }
            stand_ins = steps.run("stand-ins", self._stand_ins)
            return {mode: one.result() for mode, one in launched.items()}, stand_ins.result()

    def _stand_ins(self) -> StandIns | None:
        """None, and a word about it, where this engine does not have them: all else can still be judged."""
        name = f"coding-agents-verify-{self.nonce[:8]}"
        try:
            return start_stand_ins(self.engine, self.base.id, name=name, labels=self._labels)
        except CodingAgentsError as error:
            self.narrator.say(f"nobody to knock at: {error.message}")
            return None

    def _take_aim(self, steps: Parallel, stand_ins: StandIns, session: SessionContext) -> _Aim:
        targets = stand_ins.aimed_at(self.engine.network_subnets(f"{session.record.name}-net"))
        control = steps.run("control", lambda: {one: stand_ins.reached(targets, one) for one in PROTOCOLS})
        return _Aim(stand_ins, targets, control)

    def _launch(self, mode: str) -> SessionContext:
        session = launch_session(self.place.env, (self.base, self.base), branch=mode, network=mode,
                                 bounds=bounds_for(self.place.env, mode))  # fmt: skip
        session.engine = self.engine
        self.on_session(mode, session)
        return session

    def _attack(self, mode: str, session: SessionContext, aim: _Aim | None) -> dict[str, Found]:
        """Everything that the session is attacked with while it runs, and the looks of the host after it."""
        scene, container = self.place.scene, session.record.container_id
        with Parallel(Trace()) as steps:
            knocking = steps.run("knocks", lambda: self._knocks(session, aim) if aim is not None else {})
            inside = dict(attempt_all(self.engine, container, attempts(scene)))
            found = {**inside, **knocking.result()}
        if mode == ALLOW_ALL:
            found |= guard_evidence(self.engine, session)
            if aim is not None:
                host = aim.stand_ins.host
                found["incoming"] = looked(lambda: self._incoming(session, host))
                near = next(one for one in aim.targets if one.kind in ("gateway", "neighbour"))
                found["flood"] = flooded(self.engine, session, near)  # last: what is flooded knocks no more
        else:
            ways = ways_home(_for(scene, session))
            found |= attempt_all(self.engine, container, ways, at_once=3, limit_s=4.0)
            found["host origin"] = looked(self.place.origin_changes)
            first = attempt(self.engine, container, Attempt("repository", "rewrite"), limit_s=10.0)
            found["host old tip"] = (
                first if first.error else looked(lambda: keeps(session, self.place, first.value))
            )
        found |= attempt_all(self.engine, container, noise())
        found["works"] = attempt(self.engine, container, Attempt("repository", "works"), limit_s=10.0)
        return {**found, **session_evidence(self.engine, session, self.place)}

    def _attack_restricted(self, session: SessionContext, aim: _Aim | None) -> dict[str, Found]:
        found = self._attack(RESTRICTED, session, aim)
        return {**found, **bring_home(self.engine, session, self.place)}

    def _knocks(self, session: SessionContext, aim: _Aim) -> Evidence:
        wanted = {one: knock(one, aim.targets) for one in PROTOCOLS}
        answers = attempt_all(self.engine, session.record.container_id, wanted)
        return knocked(answers, aim.control.result(), aim.targets)

    def _incoming(self, session: SessionContext, host: str) -> dict[str, list[object]]:
        """Knocks of the engine's machine at a listener in the session, which the session itself reaches."""
        container, holder = session.record.container_id, session.record.holder_id
        address = next(iter(addresses_of(self.engine, holder).values()))
        port = attempt(self.engine, container, Attempt("standin", "serve_aside", (_LISTENS_S,))).value
        target = Attempt("network", "knock_side_by_side", ([["tcp", address, port]], 1.0))
        own = attempt(self.engine, container, target).value
        if not own or any(answer[0] != "open" for answer in own.values()):
            raise ValueError("nobody listens in the session")
        value = attempt(self.engine, host, target).value
        if not isinstance(value, dict):
            raise ValueError("the engine's machine did not knock")
        return value


def _for(scene: Scene, session: SessionContext) -> Scene:
    try:
        body = (session.directory / "signing-key").read_text("ascii").splitlines()
    except OSError:
        body = []
    # Of a key's file the first line says what it is, and the next three are public for the most part.
    return msgspec.structs.replace(scene, branch=session.record.branch, signing_key="".join(body[4:5]))
