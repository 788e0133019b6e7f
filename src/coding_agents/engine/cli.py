"""Docker and Podman through their command lines: one class, `features` holds what differs.

The command line and not the API: it honours contexts, ssh hosts and proxies as the user set them, it is
the same for both engines, and each call can be pasted into a terminal.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO, cast

from msgspec.structs import replace

from coding_agents.engine.api import MAX_COPY_OUT, ContainerState, EngineInfo
from coding_agents.engine.argv import NO_CEILING, RlimitCeiling, create_argv
from coding_agents.engine.failures import failure, is_missing
from coding_agents.engine.features import Features
from coding_agents.engine.images import ImageVerbs
from coding_agents.engine.inspect import parse_container
from coding_agents.engine.program import QUICK_S, SLOW_S, label_flags, runtime_flags
from coding_agents.errors import EngineError
from coding_agents.proc import runner
from coding_agents.proc.runner import Command, Outcome
from coding_agents.sandbox.invariants import check_argv, check_volume
from coding_agents.sandbox.spec import ContainerSpec

_FOREVER_S = 20 * 86400.0  # of commands that the caller ends; poll(2) takes no longer than 24 days
_CHUNK = 256 * 1024
_COPY = "coding-agents-copy-"


class CliEngine(ImageVerbs):
    """An engine. Made by `engine.find`; see `engine.api.Engine` for the contract.

    `info` may be a question that is asked when its answer is needed.
    """

    def __init__(
        self,
        features: Features,
        *,
        info: EngineInfo | Callable[[], EngineInfo],
        env: Mapping[str, str],
        program: str = "",
        runtime: str = "",
        ceiling: RlimitCeiling = NO_CEILING,
    ) -> None:
        super().__init__(features, env=env, program=program, runtime=runtime)
        self._info = info
        self._ceiling = ceiling

    @property
    def info(self) -> EngineInfo:
        if not isinstance(self._info, EngineInfo):
            self._info = self._info()
        return self._info

    def create(self, spec: ContainerSpec) -> str:
        """Create a container; its id. Raises InvariantError before the engine hears of anything unsafe."""
        argv = create_argv(spec, self.features, ceiling=self._ceiling)
        check_argv(argv, role=spec.role)
        command = self.command(argv, prefix=runtime_flags(self.features, spec.runtime))
        outcome = runner.run(command)
        if not outcome.ok:
            raise failure(f"create container {spec.name}", outcome, self.features)
        return outcome.text().split()[-1]

    def start(self, container: str) -> None:
        """Start a created or stopped container."""
        self.run(f"start container {container}", ("container", "start", container))

    def stop(self, container: str, *, timeout_s: int) -> None:
        """SIGTERM, and SIGKILL after `timeout_s`; returns when the container has ended."""
        self._look_up_for(
            f"stop container {container}",
            ("container", "stop", "-t", str(timeout_s), container),
            timeout_s=timeout_s + QUICK_S,
        )

    def kill(self, container: str) -> None:
        """SIGKILL to everything in the container; no failure when it does not run."""
        outcome = runner.run(self.command(("container", "kill", container)))
        if outcome.ok or is_missing(outcome):
            return
        state = self.inspect(container)
        if state is not None and state.running:
            raise failure(f"kill container {container}", outcome, self.features)

    def remove(self, container: str, *, force: bool = False) -> None:
        """Remove a container, its anonymous volumes never; `force` kills it first."""
        args = ("container", "rm", *(("--force",) if force else ()), container)
        self._look_up_for(f"remove container {container}", args, timeout_s=2 * QUICK_S)

    def inspect(self, container: str) -> ContainerState | None:
        """The container's state now, None when there is none of this name or id."""
        document = self.inspect_one("container", container)
        return None if document is None else parse_container(document)

    def find(self, labels: Mapping[str, str]) -> tuple[ContainerState, ...]:
        """All containers, running or not, that carry all `labels`."""
        ids = self.list_names("container", labels, field="ID")
        return tuple(parse_container(document) for document in self.inspect_all("container", ids))

    def copy_in(
        self, container: str, path: str, write: Callable[[BinaryIO], None], *, timeout_s: float = SLOW_S
    ) -> None:
        """Unpack at `path` the tar that `write` writes; owners are as in the tar.

        Works on a created container, into volumes only when its root is read-only.
        """
        # Podman would give everything to the container's user.
        words = ("container", "cp", "--archive=false", "-", f"{container}:{path}")
        with self._copy_env() as env:
            command = self.command(words, timeout_s=timeout_s, env=env)
            self._write_to(command, write, what=f"copy into {container}:{path}")

    @contextmanager
    def _copy_env(self) -> Iterator[tuple[tuple[str, str], ...]]:
        """What a copy needs in its environment, so that no file with what it reads, a login among it, outlives it."""
        if not self.features.leaves_copies:
            yield ()
            return
        import shutil

        from coding_agents.proc.scratch import left_scratches, make_scratch, scratch_parent

        parent = scratch_parent(self._env)
        for leftover in left_scratches(parent, _COPY):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            place = make_scratch(parent, _COPY)
        except OSError as error:
            raise EngineError(
                f"cannot make a directory for a copy below {parent}: {error.strerror}",
                hint="Set TMPDIR to a directory that you can write to.",
            ) from error
        try:
            yield (("TMPDIR", os.fspath(place)),)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def feed(
        self,
        container: str,
        argv: Sequence[str],
        write: Callable[[BinaryIO], None],
        *,
        user: str,
        timeout_s: float = SLOW_S,
    ) -> None:
        """Run a program in a running container to a good end, on what `write` writes to its standard input."""
        command = self.exec_command(container, argv, user=user, interactive=True)
        what = f"run {argv[0]} in {container}"
        self._write_to(replace(command, timeout_s=timeout_s), write, what=what)

    def _write_to(self, command: Command, write: Callable[[BinaryIO], None], *, what: str) -> None:
        broken: BrokenPipeError | None = None
        with runner.streaming(command) as stream:
            try:
                write(cast(BinaryIO, stream.stdin))
            except BrokenPipeError as error:  # the engine ended first and has said why
                broken = error
            outcome = stream.finish()
        if not outcome.ok or broken is not None:
            raise failure(what, outcome, self.features) from broken

    def copy_out(self, container: str, path: str, *, max_bytes: int = MAX_COPY_OUT) -> bytes:
        """A tar of `path`. Raises EngineError when it is missing or longer than `max_bytes`."""
        command = self.command(("container", "cp", f"{container}:{path}", "-"), timeout_s=SLOW_S)
        pieces: list[bytes] = []
        size = 0
        with runner.streaming(command) as stream:
            while piece := stream.stdout.read(_CHUNK):
                size += len(piece)
                if size > max_bytes:
                    raise EngineError(f"{container}:{path} is larger than {max_bytes} bytes")
                pieces.append(piece)
            outcome = stream.finish()
        if not outcome.ok:
            raise failure(f"copy {container}:{path}", outcome, self.features)
        return b"".join(pieces)

    def read_file(self, container: str, path: str, *, max_bytes: int = MAX_COPY_OUT) -> bytes:
        """The content of one regular file. Raises EngineError when it is missing or something else."""
        return single_file(self.copy_out(container, path, max_bytes=max_bytes + _CHUNK), path)

    def logs(self, container: str, *, tail: int | None = None) -> bytes:
        """What the container wrote to both its outputs: hostile bytes, at most what the engine keeps."""
        outcome = self.run(f"read the log of {container}", _logs_args(container, tail), timeout_s=SLOW_S)
        return outcome.stdout + outcome.stderr

    def exec(
        self,
        container: str,
        argv: Sequence[str],
        *,
        user: str,
        timeout_s: float = QUICK_S,
        stdin: bytes = b"",
    ) -> Outcome:
        """Run a program in a running container to its end; its status is the outcome's.

        When the time is over only the client ends: the program goes on until the container does.
        """
        flags = ("--interactive",) if stdin else ()
        args = ("container", "exec", *flags, f"--user={user}", container, *argv)
        return runner.run(self.command(args, timeout_s=timeout_s, stdin=stdin or None))

    def exec_command(
        self,
        container: str,
        argv: Sequence[str],
        *,
        user: str,
        interactive: bool = False,
        tty: bool = False,
        workdir: str = "",
        env: Sequence[tuple[str, str]] = (),
    ) -> Command:
        """The command that runs `argv` in a running container on the caller's own streams or terminal."""
        flags = [f"--user={user}"]
        flags += ["--interactive"] if interactive else []
        flags += ["--tty"] if tty else []
        flags += [f"--workdir={workdir}"] if workdir else []
        flags += [f"--env={name}={value}" for name, value in env]
        return self.command(("container", "exec", *flags, container, *argv), timeout_s=_FOREVER_S)

    def start_attached_command(self, container: str) -> Command:
        """The command that starts a container made `interactive`, its standard streams the command's own."""
        args = ("container", "start", "--attach", "--interactive", container)
        return self.command(args, timeout_s=_FOREVER_S)

    def wait_command(self, container: str) -> Command:
        """The command that ends when the container has ended."""
        return self.command(("container", "wait", container), timeout_s=_FOREVER_S)

    def logs_command(self, container: str, *, follow: bool, tail: int | None = None) -> Command:
        """The command that prints a container's log, and goes on with it when `follow`."""
        return self.command(_logs_args(container, tail, follow=follow), timeout_s=_FOREVER_S)

    def create_volume(self, name: str, *, labels: Mapping[str, str], place: str = "") -> None:
        """Make a volume, which is the directory `place` of a session's own file system where that is given.

        Where there is one of that name, Podman raises EngineError; Docker keeps it, with the labels that it has
        (`volume_labels`). Raises InvariantError for any other directory of the host.
        """
        check_volume(name, place)
        options = (f"--opt={one}" for one in ("type=none", "o=bind", f"device={place}") if place)
        self.run(f"create volume {name}", ("volume", "create", *options, *label_flags(labels), name))

    def remove_volume(self, name: str) -> None:
        """Remove a volume and what it holds. Raises EngineError while a container has it."""
        self._look_up_for(f"remove volume {name}", ("volume", "rm", name), timeout_s=SLOW_S)

    def list_volumes(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Names of the volumes that carry all `labels`."""
        return self.list_names("volume", labels, field="Name")

    def volume_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """The labels of those of `names` that are volumes."""
        found = self.inspect_all("volume", names)
        return {str(volume["Name"]): dict(volume.get("Labels") or {}) for volume in found}

    def volume_exists(self, name: str) -> bool:
        """Whether there is a volume of this name."""
        return self.inspect_one("volume", name) is not None

    def create_network(self, name: str, *, labels: Mapping[str, str]) -> None:
        """Make a bridge network of its own."""
        args = (
            "network",
            "create",
            "--driver=bridge",
            *self.features.network_flags,
            *label_flags(labels),
            name,
        )
        self.run(f"create network {name}", args)

    def remove_network(self, name: str) -> None:
        """Remove a network. Raises EngineError while a container stands on it."""
        self._look_up_for(f"remove network {name}", ("network", "rm", name), timeout_s=QUICK_S)

    def list_networks(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Names of the networks that carry all `labels`."""
        return self.list_names("network", labels, field="Name")

    def network_subnets(self, name: str) -> tuple[str, ...]:
        """The address ranges of a network, as `a.b.c.d/n`; empty when it does not exist."""
        document = self.inspect_one("network", name) or {}
        docker = (document.get("IPAM") or {}).get("Config") or ()
        podman = document.get("subnets") or ()
        return tuple(str(one.get("Subnet") or one.get("subnet")) for one in (*docker, *podman))

    def _look_up_for(self, what: str, args: Sequence[str], *, timeout_s: float) -> None:
        outcome = runner.run(self.command(args, timeout_s=timeout_s))
        if not outcome.ok and not is_missing(outcome):
            raise failure(what, outcome, self.features)


def single_file(tar: bytes, path: str) -> bytes:
    """The content of the one regular file that `tar` holds. Raises EngineError for anything else."""
    import tarfile  # no launch reads a file back

    try:
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            members = archive.getmembers()
            stream = archive.extractfile(members[0]) if len(members) == 1 and members[0].isreg() else None
            if stream is not None:
                return stream.read()
    except tarfile.TarError as error:
        raise EngineError(f"the engine's copy of {path} is unreadable", details=str(error)) from error
    raise EngineError(f"{path} is not one regular file")


def _logs_args(container: str, tail: int | None, *, follow: bool = False) -> tuple[str, ...]:
    flags = (("--follow",) if follow else ()) + ((f"--tail={tail}",) if tail is not None else ())
    return ("container", "logs", *flags, container)
