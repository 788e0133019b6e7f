"""Steps of a use case: timed, undone in reverse order when a later one fails, run side by side when independent."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from coding_agents.errors import CodingAgentsError
from coding_agents.proc.runner import TURN_S, end_running

T = TypeVar("T")

_END_AGAIN_S = 0.1


class Timing(msgspec.Struct, frozen=True):
    """How long one step took, in milliseconds after the start of the use case."""

    name: str
    began_ms: int
    took_ms: int


class Trace(msgspec.Struct):
    """The timings of a use case's steps, in the order in which they ended."""

    began: float = msgspec.field(default_factory=time.monotonic)
    timings: list[Timing] = msgspec.field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a block; a failure inside it learns which step it was."""
        started = time.monotonic()
        try:
            yield
        except CodingAgentsError as error:
            if not getattr(error, "step", ""):
                error.step = name  # type: ignore[attr-defined]
                error.details = f"in step: {name}" + (f"\n{error.details}" if error.details else "")
            raise
        finally:
            ended = time.monotonic()
            timing = Timing(name, round((started - self.began) * 1000), round((ended - started) * 1000))
            self.timings.append(timing)


class Undo:
    """What has been made so far, each with the way to unmake it.

    Register the undo *before* the act: undoing what was never made must be harmless, and an
    interrupted act leaves nothing that nobody knows of.
    """

    def __init__(self) -> None:
        self._actions: list[tuple[str, Callable[[], object]]] = []

    def __enter__(self) -> Self:
        return self

    def add(self, what: str, action: Callable[[], object]) -> None:
        """Remember how to unmake `what`."""
        self._actions.append((what, action))

    def hold(self) -> Callable[[], None]:
        """From here on nothing is undone, unless what is returned is called: then all of it is again."""
        held, self._actions = self._actions, []

        def release() -> None:
            self._actions = [*held, *self._actions]

        return release

    @property
    def is_held(self) -> bool:
        """Whether there is nothing to undo."""
        return not self._actions

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or not self._actions:
            return
        with interrupts_held():
            while self._actions:
                what, action = self._actions.pop()
                try:
                    action()
                except CodingAgentsError as failure:
                    error.add_note(f"{what} could not be undone: {failure.message}")
                    if isinstance(error, CodingAgentsError):
                        error.details += f"\nleft behind: {what} ({failure.message})"


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Undoing is short and bounded by the engine's time limits; a second Ctrl-C must not leave half of it.

    In a thread there is nothing to hold: signals reach the first one, which waits for this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


class Step(Generic[T]):
    """One of the steps of `Parallel`."""

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def result(self) -> T:
        """What the step returns, when it has ended. Raises what it raised."""
        _await([self._future])
        return self._future.result()


def _await(futures: Sequence[Future[Any]]) -> None:
    """Wait for all of them, and for no signal longer than TURN_S (`proc.runner`)."""
    while wait(futures, timeout=TURN_S).not_done:
        pass


class Parallel:
    """Independent steps in threads. Leaving the block waits for all of them, also when one has failed.

    Ctrl-C, in the block and while leaving it, ends the processes that the steps are running, so that the wait
    is short; undoing what they had begun is the caller's `Undo`.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="step")
        self._futures: list[Future[object]] = []

    def __enter__(self) -> Self:
        return self

    def run(self, name: str, work: Callable[[], T]) -> Step[T]:
        """Start `work` as the step `name`."""

        def timed() -> T:
            with self._trace.step(name):
                return work()

        future = self._pool.submit(timed)
        self._futures.append(future)  # type: ignore[arg-type]
        return Step(future)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        interrupted = error is not None and not isinstance(error, Exception)
        try:
            if error is not None:
                self._cancel()
            if not interrupted:
                _await(self._futures)
        except BaseException:
            interrupted = True
            raise
        finally:
            if interrupted:
                self._end()
            self._pool.shutdown()
        if error is None:
            for future in self._futures:
                future.result()

    def _cancel(self) -> None:
        for future in self._futures:
            future.cancel()

    def _end(self) -> None:
        """End what the steps run, again until they are over: one may have been about to start a process."""
        with interrupts_held():
            self._cancel()
            while wait(self._futures, timeout=0).not_done:
                end_running()
                wait(self._futures, timeout=_END_AGAIN_S)
