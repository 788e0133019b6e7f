"""The container's first process: waits at the gate, prepares the workspace, runs the agent, saves its work.

It holds no policy and no secret. The agent has the same uid but cannot stop this process: the kernel ignores
its SIGKILL and SIGSTOP to the first process of a pid namespace, and it is not dumpable, so it cannot be
traced. Losing it would cost convenience only: the host salvages what it did not save.
"""

from __future__ import annotations

import selectors
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from coding_agents_guest.autosave import Autosaver
from coding_agents_guest.children import Signals, end_all_others, reap, taken_signals
from coding_agents_guest.eventlink import EventLink
from coding_agents_guest.events import (
    Autosave,
    Exit,
    Failed,
    Go,
    GuestConfig,
    Ready,
    Report,
    Running,
    Step,
)
from coding_agents_guest.gitwork import Git
from coding_agents_guest.place import Place
from coding_agents_guest.privileges import become_reaper, refuse_inspection
from coding_agents_guest.save import save
from coding_agents_guest.session import CommandSession, Session, SessionError, TmuxSession
from coding_agents_guest.steps import SESSION_STEP, STEPS, Setup, StepError
from coding_agents_guest.wire import WireError

OUR_FAILURE = 125  # as `docker run` reports a failure that is not the command's

_GATE_POLL_S = 0.025
_RECONNECT_S = 1.0
_START_BUDGET_S = 900.0  # of one step's git commands and downloads
# Together below the stop timeout of 120 s that launches give their containers.
_HANG_UP_S, _GRACE_S = 2.0, 10.0
_SAVE_BUDGET_S = 100.0


def main(arguments: Sequence[str]) -> int:
    """Run as the container's entry point; takes no arguments. Returns the agent's exit status."""
    if arguments:
        print("entrypoint: takes no arguments", file=sys.stderr)
        return 2
    return run(Place())


def run(place: Place) -> int:
    """The whole life of a container, with everything found at `place`."""
    refuse_inspection()
    become_reaper()
    with taken_signals() as signals:
        return EntryPoint(place, signals).run()


class EntryPoint:
    """One start of a container. `run` is called once."""

    def __init__(self, place: Place, signals: Signals) -> None:
        self._place = place
        self._signals = signals
        self._link: EventLink | None = None
        self._asked_at: float | None = None
        self._hung_up = False

    def run(self) -> int:
        """Returns the exit status: the agent's, 128+n when signal n came before it ran, or `OUR_FAILURE`."""
        try:
            config = self._wait_for_go()
            if config is None:
                return 128 + self._signals.requests[0]
            session = self._start(config)
            if session is None:
                return 128 + self._signals.requests[0] if self._signals.requests else OUR_FAILURE
            status = self._watch(session, config)
            session.close()
            end_all_others()
            self._report(save(config, self._place, deadline=_soon(_SAVE_BUDGET_S)))
            self._report(Exit(status))
            return status
        finally:
            self._drop_link()

    def _wait_for_go(self) -> GuestConfig | None:
        """Wait until the host opens the gate, however long; None when we are told to end before."""
        while not self._signals.requests:
            if self._link is None:
                if self._connect():
                    self._report(Ready())
                else:
                    self._wait(_GATE_POLL_S)
                continue
            for event in self._receive(self._link in self._wait(None)):
                if isinstance(event, Go):
                    return event.config
        return None

    def _start(self, config: GuestConfig) -> Session | None:
        """Take the steps and start the agent; None when one failed (which is reported) or we must end."""
        environment = {**self._place.environment(), **config.env}
        name = ""
        try:
            for step in STEPS:
                name, began = step.name, time.monotonic()
                git = Git(self._place.workspace, self._place.environment(), _soon(_START_BUDGET_S))
                added = step.take(Setup(config, self._place, git))
                environment.update(added)
                self._report(Step(name, _elapsed_ms(began)))
                if self._signals.requests:
                    return None
            name, began = SESSION_STEP, time.monotonic()
            kind = TmuxSession if config.mode == "tmux" else CommandSession
            session = kind(config.command, cwd=self._place.workspace, env=environment)
        except (StepError, SessionError) as error:
            print(f"coding-agents: {name}: {error}", file=sys.stderr, flush=True)
            self._report(Failed(name, str(error)))
            return None
        self._report(Step(name, _elapsed_ms(began)))
        self._report(Running())
        return session

    def _watch(self, session: Session, config: GuestConfig) -> int:
        """Until the agent has ended: reap, pass on signals, save when asked, find a lost host again."""
        autosaver = Autosaver(config, self._place)
        while (status := session.status) is None:
            self._pass_on_signals(session)
            if self._link is None and self._connect():
                self._report(Running())
            ready = self._wait(self._patience(), (*session.files, *autosaver.files))
            for event in self._receive(self._link in ready):
                if isinstance(event, Autosave):
                    autosaver.take(event)
            if not ready.isdisjoint(autosaver.files) and (report := autosaver.collect()) is not None:
                self._report(report)
            reap(session.processes)
        autosaver.stop()
        return status

    def _pass_on_signals(self, session: Session) -> None:
        """The first request to end is passed on as SIGTERM, after 2 s as SIGHUP; a second one, or 10 s, kills."""
        requests = len(self._signals.requests)
        if not requests:
            return
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            session.terminate()
        waited = time.monotonic() - self._asked_at
        if requests > 1 or waited >= _GRACE_S:
            session.kill()
        elif waited >= _HANG_UP_S and not self._hung_up:
            self._hung_up = True
            session.hang_up()

    def _patience(self) -> float | None:
        if self._asked_at is not None:
            waited = time.monotonic() - self._asked_at
            return max(0.05, (_HANG_UP_S if waited < _HANG_UP_S else _GRACE_S) - waited)
        return _RECONNECT_S if self._link is None else None

    def _wait(self, seconds: float | None, files: Sequence[int] = ()) -> set[object]:
        """Sleep until a signal, a message, one of `files` or the time; returns which of them is ready."""
        with selectors.DefaultSelector() as selector:
            for file in files:
                selector.register(file, selectors.EVENT_READ)
            selector.register(self._signals, selectors.EVENT_READ)
            if self._link is not None:
                selector.register(self._link, selectors.EVENT_READ)
            ready: set[object] = {key.fileobj for key, _ in selector.select(seconds)}
        self._signals.acknowledge()
        return ready

    def _receive(self, readable: bool) -> Sequence[object]:
        if readable and self._link is not None:
            try:
                return self._link.receive()
            except OSError:
                self._drop_link()
        return ()

    def _connect(self) -> bool:
        with suppress(OSError):
            self._link = EventLink.connect(self._place.events, owner_uid=self._place.bridge_uid)
        return self._link is not None

    def _report(self, report: Report) -> None:
        """Tell the host. Without it everything goes on: the agent must not depend on who listens."""
        if self._link is not None:
            try:
                self._link.send(report)
            except OSError:
                self._drop_link()
            except WireError as error:  # a repository that gives us what no event can carry
                print(f"coding-agents: unreported: {error}", file=sys.stderr, flush=True)

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def _soon(seconds: float) -> float:
    return time.monotonic() + seconds


def _elapsed_ms(began: float) -> int:
    return int((time.monotonic() - began) * 1000)
