"""One engine's program: how its commands are spelled, timed and judged. The base of `engine.cli`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coding_agents.engine.failures import failure, is_missing
from coding_agents.engine.features import Features
from coding_agents.engine.inspect import parse_json
from coding_agents.errors import EngineError
from coding_agents.model.runtimes import is_gvisor
from coding_agents.proc import runner
from coding_agents.proc.runner import Command, Outcome

QUICK_S = 60.0  # an engine under load takes seconds for what takes milliseconds
SLOW_S = 600.0  # moves data


class EngineProgram:
    """`docker` or `podman` with its global options and the environment it runs in."""

    def __init__(
        self, features: Features, *, env: Mapping[str, str], program: str = "", runtime: str = ""
    ) -> None:
        self.features = features
        self._env = dict(env)
        bare = (program or features.name,)
        self._prefix = (*bare, *runtime_flags(features, runtime))
        self._build_prefix = bare if is_gvisor(runtime) else self._prefix

    def command(
        self,
        args: Sequence[str],
        *,
        timeout_s: float = QUICK_S,
        stdin: bytes | None = None,
        env: Iterable[tuple[str, str]] = (),
        prefix: Sequence[str] = (),
    ) -> Command:
        """`ENGINE ARGS` with the user's engine settings as environment."""
        return Command(
            argv=(*self._prefix, *prefix, *args),
            env={**self._env, **dict(env)},
            stdin=stdin,
            timeout_s=timeout_s,
        )

    def build_command(
        self, args: Sequence[str], *, timeout_s: float, env: Iterable[tuple[str, str]]
    ) -> Command:
        """The same for what builds an image: not in gVisor, which has no network."""
        return Command(argv=(*self._build_prefix, *args), env={**self._env, **dict(env)}, timeout_s=timeout_s)

    def run(self, what: str, args: Sequence[str], *, timeout_s: float = QUICK_S) -> Outcome:
        """Run to a good end. `what` completes "cannot …" in the error that is raised otherwise."""
        outcome = runner.run(self.command(args, timeout_s=timeout_s))
        if not outcome.ok:
            raise failure(what, outcome, self.features)
        return outcome

    def look_up(self, what: str, args: Sequence[str]) -> Outcome | None:
        """Run a command that may find nothing: None then, and an error for anything else that failed."""
        outcome = runner.run(self.command(args))
        if outcome.ok:
            return outcome
        if is_missing(outcome):
            return None
        raise failure(what, outcome, self.features)

    def inspect_one(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """The JSON that `ENGINE KIND inspect NAME` gives for one object, None when it does not exist."""
        found = self.look_up(f"look at {kind} {name}", (kind, "inspect", name))
        return None if found is None else _objects(found.stdout)[0]

    def list_names(self, kind: str, labels: Mapping[str, str], *, field: str) -> tuple[str, ...]:
        """Names (or ids) of the objects that carry all `labels`; refuses to list without any."""
        if not labels:
            raise EngineError(f"cannot list {kind}s without a label")
        filters = tuple(f"--filter=label={key}={value}" for key, value in sorted(labels.items()))
        every = ("--all", "--no-trunc") if kind == "container" else ()
        out = self.run(f"list {kind}s", (kind, "ls", *every, *filters, f"--format={{{{.{field}}}}}")).text()
        return tuple(dict.fromkeys(out.split()))

    def inspect_all(self, kind: str, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """Like `inspect_one` for many at once; those that vanished in the meantime are left out."""
        if not names:
            return []
        outcome = runner.run(self.command((kind, "inspect", *names)))
        if not outcome.ok and not is_missing(outcome):
            raise failure(f"look at {kind}s", outcome, self.features)
        return _objects(outcome.stdout) if outcome.stdout.strip() else []


def runtime_flags(features: Features, runtime: str) -> tuple[str, ...]:
    """The options of the engine's program that choose the runtime, where that is an option of it."""
    if not runtime or not features.global_runtime:
        return ()
    return (f"--runtime={runtime}", *(features.gvisor_flags if is_gvisor(runtime) else ()))


def label_flags(labels: Mapping[str, str]) -> tuple[str, ...]:
    """`--label=KEY=VALUE` for each."""
    return tuple(f"--label={key}={value}" for key, value in labels.items())


def _objects(document: bytes) -> list[Mapping[str, Any]]:
    objects = parse_json(document)
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        raise EngineError("the engine's answer is not a list of objects")
    return objects
