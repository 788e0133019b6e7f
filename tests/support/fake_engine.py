"""An engine without isolation: containers are child processes, volumes directories. Passes the contract.

For tests of what *uses* an engine. It judges each spec as the real ones do, and gives the same states,
errors and None for what is missing.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from coding_agents.engine.api import (
    MAX_COPY_OUT,
    ContainerConfig,
    ContainerState,
    EngineInfo,
    ImageState,
    Mounted,
    OnLine,
)
from coding_agents.engine.argv import create_argv, network_text
from coding_agents.engine.cli import single_file
from coding_agents.engine.features import DOCKER
from coding_agents.errors import EngineError
from coding_agents.proc import runner
from coding_agents.proc.runner import Command, Outcome
from coding_agents.sandbox.invariants import check_argv
from coding_agents.sandbox.seccomp import profile
from coding_agents.sandbox.spec import ContainerSpec

_STARTED = "2026-01-01T00:00:{:02d}.000000000Z"
# Our own child stays a zombie until the fake looks at it.
_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass
class _Container:
    id: str
    spec: ContainerSpec
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int:
        if self.process is None or self.process.returncode is None:
            return 0
        status = self.process.returncode
        return 128 - status if status < 0 else status


@dataclass
class FakeEngine:
    """See `engine.api.Engine`. `failing` maps a method's name to the error that its next call raises."""

    directory: Path
    failing: dict[str, Exception] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    _containers: dict[str, _Container] = field(default_factory=dict)
    _volumes: dict[str, dict[str, str]] = field(default_factory=dict)
    _networks: dict[str, dict[str, str]] = field(default_factory=dict)
    _images: dict[str, ImageState] = field(default_factory=dict)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            name="docker", title="Fake", version="99.0", rootless=False, cgroup_version=2,
            security_options=("seccomp",),
            runtimes=("runc",), default_runtime="runc", data_root=str(self.directory),
            os="linux", arch="x86_64",
            cpus=2, memory_bytes=16 << 30, identity=str(self.directory),
        )  # fmt: skip

    def add_image(self, ref: str, labels: Mapping[str, str] | None = None, *, content: bytes = b"") -> str:
        """Make an image out of nothing; its id."""
        image = (
            "sha256:"
            + hashlib.sha256(
                ref.encode() + content + repr(sorted((labels or {}).items())).encode()
            ).hexdigest()
        )
        known = self._images.get(image)
        self.remove_image(ref)
        tags = (*(known.tags if known else ()), ref)
        self._images[image] = ImageState(image, tags, 1000, _STARTED.format(0), dict(labels or {}))
        return image

    # containers

    def create(self, spec: ContainerSpec) -> str:
        self._called("create")
        check_argv(create_argv(spec, DOCKER), role=spec.role)
        if self._find(spec.name) is not None:
            raise EngineError(f"cannot create container {spec.name}", details="the name is already in use")
        if spec.image not in self._images:
            raise EngineError(f"cannot create container {spec.name}", details="no such image")
        network = network_text(spec.network)
        if network != "none" and not network.startswith("container:") and network not in self._networks:
            raise EngineError(f"cannot create container {spec.name}", details="no such network")
        for volume in spec.volumes:
            self._volumes.setdefault(volume.volume, {})
            self._volume_path(volume.volume).mkdir(parents=True, exist_ok=True)
        made = _Container(hashlib.sha256(f"{spec.name}{len(self.calls)}".encode()).hexdigest(), spec)
        self._containers[made.id] = made
        return made.id

    def start(self, container: str) -> None:
        self._called("start")
        found = self._required(container, "start")
        if found.running:
            return
        with self._log_path(found).open("ab") as log:
            found.process = subprocess.Popen(
                found.spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_ENV,
                start_new_session=True,
            )
        found.starts += 1

    def stop(self, container: str, *, timeout_s: int) -> None:
        self._called("stop")
        found = self._find(container)
        if found is None or not found.running or found.process is None:
            return
        found.process.terminate()
        try:
            found.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill(container)

    def kill(self, container: str) -> None:
        self._called("kill")
        found = self._find(container)
        if found is not None and found.running and found.process is not None:
            found.process.kill()
            found.process.wait()

    def remove(self, container: str, *, force: bool = False) -> None:
        self._called("remove")
        found = self._find(container)
        if found is None:
            return
        if found.running and not force:
            raise EngineError(f"cannot remove container {container}", details="it is running")
        self.kill(container)
        del self._containers[found.id]

    def inspect(self, container: str) -> ContainerState | None:
        found = self._find(container)
        return None if found is None else self._state(found)

    def find(self, labels: Mapping[str, str]) -> tuple[ContainerState, ...]:
        if not labels:
            raise EngineError("cannot list containers without a label")
        chosen = (one for one in self._containers.values() if labels.items() <= dict(one.spec.labels).items())
        return tuple(self._state(one) for one in chosen)

    def copy_in(
        self, container: str, path: str, write: Callable[[BinaryIO], None], *, timeout_s: float = 600.0
    ) -> None:
        self._called("copy_in")
        found = self._required(container, "copy into")
        target = self._inside(found, path, writable=True)
        stream = io.BytesIO()
        write(stream)
        stream.seek(0)
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                archive.extractall(target, filter="data")
        except tarfile.TarError as error:
            raise EngineError(f"cannot copy into {container}:{path}", details=str(error)) from error

    def feed(
        self,
        container: str,
        argv: Sequence[str],
        write: Callable[[BinaryIO], None],
        *,
        user: str,
        timeout_s: float = 600.0,
    ) -> None:
        self._called("feed")
        stream = io.BytesIO()
        write(stream)
        outcome = self.exec(container, argv, user=user, timeout_s=timeout_s, stdin=stream.getvalue())
        if not outcome.ok:
            raise EngineError(f"cannot run {argv[0]} in {container}", details=outcome.describe())

    def copy_out(self, container: str, path: str, *, max_bytes: int = MAX_COPY_OUT) -> bytes:
        self._called("copy_out")
        source = self._inside(self._required(container, "copy from"), path)
        if not source.exists():
            raise EngineError(f"cannot copy {container}:{path}", details="no such file")
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            archive.add(source, arcname=source.name)
        if stream.tell() > max_bytes:
            raise EngineError(f"{container}:{path} is larger than {max_bytes} bytes")
        return stream.getvalue()

    def read_file(self, container: str, path: str, *, max_bytes: int = MAX_COPY_OUT) -> bytes:
        return single_file(self.copy_out(container, path, max_bytes=max_bytes + (1 << 20)), path)

    def logs(self, container: str, *, tail: int | None = None) -> bytes:
        lines = (
            self._log_path(self._required(container, "read the log of"))
            .read_bytes()
            .splitlines(keepends=True)
        )
        return b"".join(lines if tail is None else lines[-tail:])

    def exec(
        self, container: str, argv: Sequence[str], *, user: str, timeout_s: float = 60.0, stdin: bytes = b""
    ) -> Outcome:
        self._called("exec")
        found = self._find(container)
        if found is None or not found.running:
            return Outcome(tuple(argv), 1, b"", b"Error: No such container", 0.0)
        return runner.run(Command(tuple(argv), env=_ENV, stdin=stdin or None, timeout_s=timeout_s))

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
        self._required(container, "exec in")
        return Command(tuple(argv), env={**_ENV, **dict(env)})

    def start_attached_command(self, container: str) -> Command:
        return Command(self._required(container, "start").spec.argv, env=_ENV)

    def wait_command(self, container: str) -> Command:
        process = self._required(container, "wait for").process
        return Command(("tail", f"--pid={process.pid if process else 0}", "-f", "/dev/null"), env=_ENV)

    def logs_command(self, container: str, *, follow: bool, tail: int | None = None) -> Command:
        path = self._log_path(self._required(container, "read the log of"))
        return Command(
            ("tail", *(("-f",) if follow else ()), "-n", "+1" if tail is None else str(tail), str(path)),
            env=_ENV,
        )

    # volumes and networks

    def create_volume(self, name: str, *, labels: Mapping[str, str], place: str = "") -> None:
        self._called("create_volume")
        if name in self._volumes:
            raise EngineError(f"cannot create volume {name}: it already exists")
        self._volumes[name] = dict(labels)
        self._volume_path(name).mkdir(parents=True)

    def remove_volume(self, name: str) -> None:
        self._called("remove_volume")
        if any(volume.volume == name for one in self._containers.values() for volume in one.spec.volumes):
            raise EngineError(f"cannot remove volume {name}", details="volume is in use")
        self._volumes.pop(name, None)

    def list_volumes(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(name for name, have in self._volumes.items() if labels.items() <= have.items())

    def volume_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        return {name: dict(self._volumes[name]) for name in names if name in self._volumes}

    def volume_exists(self, name: str) -> bool:
        return name in self._volumes

    def create_network(self, name: str, *, labels: Mapping[str, str]) -> None:
        self._called("create_network")
        if name in self._networks:
            raise EngineError(f"cannot create network {name}", details="it already exists")
        self._networks[name] = dict(labels)

    def remove_network(self, name: str) -> None:
        self._called("remove_network")
        if any(network_text(one.spec.network) == name for one in self._containers.values() if one.running):
            raise EngineError(f"cannot remove network {name}", details="it has active endpoints")
        self._networks.pop(name, None)

    def list_networks(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(name for name, have in self._networks.items() if labels.items() <= have.items())

    def network_subnets(self, name: str) -> tuple[str, ...]:
        return ("172.30.0.0/16",) if name in self._networks else ()

    # images

    def image_id(self, ref: str) -> str | None:
        return next(
            (image.id for image in self._images.values() if ref == image.id or ref in image.tags), None
        )

    def find_image(self, ref: str) -> ImageState | None:
        found = self.image_id(ref)
        return self._images[found] if found else None

    def find_images(self, refs: Sequence[str]) -> tuple[ImageState | None, ...]:
        return tuple(self.find_image(ref) for ref in refs)

    def list_images(self, label: str) -> tuple[ImageState, ...]:
        key, _, value = label.partition("=")
        return tuple(
            image
            for image in self._images.values()
            if key in image.labels and value in ("", image.labels[key])
        )

    def tag(self, image: str, ref: str) -> None:
        found = self.image_id(image)
        if found is None:
            raise EngineError(f"cannot tag {image} as {ref}", details="no such image")
        self._retag(found, (*(tag for tag in self._images[found].tags if tag != ref), ref))

    def remove_image(self, ref: str) -> None:
        found = self.image_id(ref)
        if found is None:
            return
        tags = tuple(tag for tag in self._images[found].tags if tag != ref)
        if tags and ref != found:
            self._retag(found, tags)
        elif any(one.spec.image == found for one in self._containers.values()):
            raise EngineError(f"cannot remove image {ref}", details="a container uses it")
        else:
            del self._images[found]

    def build(
        self,
        context: Path,
        *,
        tag: str,
        dockerfile: str = "Dockerfile",
        build_args: Mapping[str, str] = {},
        labels: Mapping[str, str] = {},
        on_line: OnLine,
    ) -> str:
        self._called("build")
        path = context / dockerfile
        on_line(f"Step 1 : {tag}")
        if not path.is_file() or not path.read_text().startswith("FROM"):
            raise EngineError(f"cannot build {tag}", details="no Dockerfile that begins with FROM")
        return self.add_image(
            tag, labels, content=path.read_bytes() + repr(sorted(build_args.items())).encode()
        )

    def import_image(self, tar: Path, *, tag: str, changes: Sequence[str] = ()) -> str:
        self._called("import_image")
        labels = dict(one.removeprefix("LABEL ").split("=", 1) for one in changes if one.startswith("LABEL "))
        return self.add_image(tag, labels, content=tar.read_bytes())

    def pull(self, ref: str, *, on_line: OnLine) -> bool:
        self._called("pull")
        on_line(f"Pulling {ref}")
        return False

    # inside

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if (error := self.failing.pop(method, None)) is not None:
            raise error

    def _find(self, container: str) -> _Container | None:
        return next((one for one in self._containers.values() if container in (one.id, one.spec.name)), None)

    def _required(self, container: str, verb: str) -> _Container:
        found = self._find(container)
        if found is None:
            raise EngineError(f"cannot {verb} container {container}", details="no such container")
        return found

    def _retag(self, image: str, tags: tuple[str, ...]) -> None:
        old = self._images[image]
        self._images[image] = ImageState(old.id, tags, old.size_bytes, old.created, old.labels)

    def _volume_path(self, name: str) -> Path:
        return self.directory / "volumes" / name

    def _log_path(self, container: _Container) -> Path:
        path = self.directory / f"{container.id}.log"
        path.touch()
        return path

    def _inside(self, container: _Container, path: str, *, writable: bool = False) -> Path:
        wanted = PurePosixPath(path)
        for volume in container.spec.volumes:
            if wanted == PurePosixPath(volume.path) or PurePosixPath(volume.path) in wanted.parents:
                if writable and not volume.writable:
                    break
                return self._volume_path(volume.volume) / wanted.relative_to(volume.path)
        raise EngineError(f"cannot copy at {path}", details="the root file system is read-only")

    def _state(self, container: _Container) -> ContainerState:
        spec = container.spec
        started = container.process is not None
        return ContainerState(
            id=container.id, name=spec.name, image=spec.image, labels=dict(spec.labels),
            status="running" if container.running else "exited" if started else "created",
            running=container.running, paused=False,
            started_at=_STARTED.format(container.starts) if started else "",
            pid=container.process.pid if container.running and container.process else 0,
            exit_code=container.exit_code, oom_killed=False, error="", config=_config(spec),
        )  # fmt: skip


def _config(spec: ContainerSpec) -> ContainerConfig:
    limits, runs = spec.limits, {True: "exec", False: "noexec"}
    return ContainerConfig(
        argv=spec.argv, user=spec.user, env=dict(spec.env), workdir=spec.workdir,
        mounts=frozenset(Mounted("volume", one.volume, one.path, one.writable) for one in spec.volumes),
        tmpfs={
            one.path: frozenset({"nosuid", "nodev", f"size={one.size_bytes}", runs[one.executable]})
            for one in spec.tmpfs
        },
        network=network_text(spec.network), dns=spec.dns, capabilities=frozenset(spec.capabilities),
        read_only=True, privileged=False, devices=0,
        security_options=frozenset({"no-new-privileges", profile(spec.seccomp).option}),
        namespaces={}, memory_bytes=limits.memory_bytes, memory_swap_bytes=limits.memory_bytes,
        cpus=limits.cpus,
        pids=limits.pids, shm_bytes=limits.shm_bytes, restart="no", auto_remove=False,
        stop_timeout_s=spec.stop_timeout_s, apparmor="", runtime=spec.runtime or "runc",
    )  # fmt: skip
