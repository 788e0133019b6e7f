"""One suite for the fake, Docker and Podman: what the rest of the program relies on."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import BinaryIO

import pytest
from msgspec.structs import replace

from coding_agents.engine.cli import CliEngine
from coding_agents.engine.drift import drift
from coding_agents.errors import EngineError, InvariantError
from coding_agents.proc import runner
from coding_agents.sandbox.guest import PYTHON
from coding_agents.sandbox.spec import ContainerSpec, VolumeMount
from support.engines import EngineUnderTest

# `set -e` of the contract: SIGTERM must end these, as PID 1 has no default handlers.
_FOREVER = (
    "import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); signal.pause()"
)
_DEAF = (
    "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
)


@pytest.fixture
def run(contract_engine: EngineUnderTest) -> Callable[[ContainerSpec], str]:
    """Create and start a container, wait until it has printed something or ended."""

    def start(spec: ContainerSpec) -> str:
        container = contract_engine.api.create(spec)
        contract_engine.api.start(container)
        _wait(lambda: bool(contract_engine.api.logs(container)) or not _running(contract_engine, container))
        return container

    return start


def _running(under_test: EngineUnderTest, container: str) -> bool:
    state = under_test.api.inspect(container)
    return state is not None and state.running


def _wait(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


def _tar(files: Mapping[str, bytes]) -> Callable[[BinaryIO], None]:
    def write(stream: BinaryIO) -> None:
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o644, 1000, 1000
                archive.addfile(entry, io.BytesIO(content))

    return write


def test_life_of_a_container(contract_engine: EngineUnderTest, run: Callable[[ContainerSpec], str]) -> None:
    engine = contract_engine.api
    spec = contract_engine.python(_FOREVER)
    container = engine.create(spec)
    created = engine.inspect(container)
    assert created is not None
    assert (created.id, created.name, created.status) == (container, spec.name, "created")
    assert (created.running, created.started_at, created.pid) == (False, "", 0)
    assert drift(spec, created) == []

    engine.start(container)
    _wait(lambda: b"up" in engine.logs(container))
    started = engine.inspect(spec.name)
    assert started is not None
    assert started.running
    assert started.pid > 0
    assert started.started_at
    assert started.labels.items() >= dict(spec.labels).items()

    engine.stop(container, timeout_s=10)
    ended = engine.inspect(container)
    assert ended is not None
    assert not ended.running
    assert (ended.status, ended.exit_code) == ("exited", 7)

    engine.start(container)
    _wait(lambda: _running(contract_engine, container))
    again = engine.inspect(container)
    assert again is not None
    assert again.started_at != started.started_at

    engine.remove(container, force=True)
    assert engine.inspect(container) is None
    assert engine.inspect(spec.name) is None


def test_exit_status_and_log(contract_engine: EngineUnderTest, run: Callable[[ContainerSpec], str]) -> None:
    code = "import sys; print('one'); print('two', file=sys.stderr); print('three'); sys.exit(3)"
    container = run(contract_engine.python(code))
    _wait(lambda: not _running(contract_engine, container))
    state = contract_engine.api.inspect(container)
    assert state is not None
    assert state.exit_code == 3
    assert {b"one", b"two", b"three"} <= set(contract_engine.api.logs(container).split())
    assert len(contract_engine.api.logs(container, tail=1).split()) == 1


def test_stop_kills_after_its_timeout(
    contract_engine: EngineUnderTest, run: Callable[[ContainerSpec], str]
) -> None:
    container = run(contract_engine.python(_DEAF))
    contract_engine.api.stop(container, timeout_s=1)
    state = contract_engine.api.inspect(container)
    assert state is not None
    assert not state.running
    assert state.exit_code == 137


def test_kill(contract_engine: EngineUnderTest, run: Callable[[ContainerSpec], str]) -> None:
    container = run(contract_engine.python(_FOREVER))
    contract_engine.api.kill(container)
    _wait(lambda: not _running(contract_engine, container))
    state = contract_engine.api.inspect(container)
    assert state is not None
    assert state.exit_code == 137
    contract_engine.api.kill(container)  # has ended already


def test_wishes_about_what_is_missing_are_fulfilled(contract_engine: EngineUnderTest) -> None:
    engine, name = contract_engine.api, contract_engine.fresh_name()
    engine.stop(name, timeout_s=1)
    engine.kill(name)
    engine.remove(name)
    engine.remove(name, force=True)
    engine.remove_volume(name)
    engine.remove_network(name)
    engine.remove_image(f"{name}:local")
    assert engine.inspect(name) is None
    assert engine.image_id(f"{name}:local") is None
    assert engine.find_image(f"{name}:local") is None
    assert not engine.volume_exists(name)
    assert engine.network_subnets(name) == ()


def test_deeds_on_what_is_missing_fail(contract_engine: EngineUnderTest) -> None:
    engine, name = contract_engine.api, contract_engine.fresh_name()
    for deed in (
        lambda: engine.start(name),
        lambda: engine.logs(name),
        lambda: engine.copy_out(name, "/workspace"),
        lambda: engine.copy_in(name, "/workspace", _tar({"a": b"b"})),
        lambda: engine.tag(f"{name}:local", f"{name}:other"),
    ):
        with pytest.raises(EngineError):
            deed()
    assert not engine.exec(name, (PYTHON, "-c", ""), user="1000:1000").ok


def test_a_name_is_taken_once(contract_engine: EngineUnderTest) -> None:
    spec = contract_engine.python(_FOREVER)
    contract_engine.api.create(spec)
    with pytest.raises(EngineError, match=f"cannot create container {spec.name}"):
        contract_engine.api.create(spec)


def test_a_running_container_is_removed_only_by_force(
    contract_engine: EngineUnderTest, run: Callable[[ContainerSpec], str]
) -> None:
    container = run(contract_engine.python(_FOREVER))
    with pytest.raises(EngineError):
        contract_engine.api.remove(container)
    assert _running(contract_engine, container)
    contract_engine.api.remove(container, force=True)


def test_nothing_unsafe_reaches_the_engine(contract_engine: EngineUnderTest) -> None:
    spec = contract_engine.python(_FOREVER)
    for unsafe in (
        replace(spec, user="0:0"),
        replace(spec, volumes=(VolumeMount("/etc", "/workspace"),)),
        replace(spec, env=(("GH_TOKEN", "ghp_" + "a" * 36),)),
    ):
        with pytest.raises(InvariantError):
            contract_engine.api.create(unsafe)
    assert contract_engine.api.inspect(spec.name) is None


def test_an_image_that_is_not_there_is_not_pulled(contract_engine: EngineUnderTest) -> None:
    with pytest.raises(EngineError):
        contract_engine.api.create(replace(contract_engine.python(_FOREVER), image="sha256:" + "0" * 64))


def test_find_by_all_labels(contract_engine: EngineUnderTest) -> None:
    engine = contract_engine.api
    mark = contract_engine.fresh_name()
    specs = [contract_engine.python(_FOREVER) for _ in range(2)]
    ids = {engine.create(replace(one, labels=(*one.labels, ("test.mark", mark)))) for one in specs}
    assert {state.id for state in engine.find({"test.mark": mark})} == ids
    assert engine.find({"test.mark": mark, "test.other": "x"}) == ()
    with pytest.raises(EngineError):
        engine.find({})


def test_exec(contract_engine: EngineUnderTest, run: Callable[[ContainerSpec], str]) -> None:
    engine = contract_engine.api
    container = run(contract_engine.python(_FOREVER))
    code = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data[::-1]); sys.exit(5)"
    outcome = engine.exec(container, (PYTHON, "-c", code), user="1000:1000", stdin=b"\x00abc\xff")
    assert (outcome.status, outcome.stdout) == (5, b"\xffcba\x00")
    slow = engine.exec(
        container, (PYTHON, "-c", "import time; time.sleep(30)"), user="1000:1000", timeout_s=1
    )
    assert slow.timed_out
    assert not slow.ok
    command = engine.exec_command(container, (PYTHON, "-c", "print('x')"), user="1000:1000")
    assert runner.run(replace(command, timeout_s=30)).stdout == b"x\n"


def test_who_waits_learns_of_the_end(
    contract_engine: EngineUnderTest, run: Callable[[ContainerSpec], str]
) -> None:
    container = run(contract_engine.python(_FOREVER))
    command = contract_engine.api.wait_command(container)
    assert runner.run(replace(command, timeout_s=0.5)).timed_out
    contract_engine.api.kill(container)
    assert runner.run(replace(command, timeout_s=30)).ok


def test_files_go_into_a_volume_of_a_created_container_and_out_again(
    contract_engine: EngineUnderTest,
) -> None:
    engine = contract_engine.api
    volume = contract_engine.volume()
    mount = VolumeMount(volume, "/opt/coding-agents", writable=True)
    filler = engine.create(contract_engine.python("pass", volumes=(mount,)))
    content = bytes(range(256)) * 1024
    engine.copy_in(filler, "/opt/coding-agents", _tar({"guest.pyz": content, "other": b"x"}))
    assert engine.read_file(filler, "/opt/coding-agents/guest.pyz") == content
    engine.remove(filler)
    reader = engine.create(
        contract_engine.python("pass", volumes=(VolumeMount(volume, "/opt/coding-agents"),))
    )
    assert engine.read_file(reader, "/opt/coding-agents/guest.pyz") == content
    with pytest.raises(EngineError, match="larger than"):
        engine.copy_out(reader, "/opt/coding-agents/guest.pyz", max_bytes=1000)
    with pytest.raises(EngineError, match="not one regular file"):
        engine.read_file(reader, "/opt/coding-agents")
    with pytest.raises(EngineError):
        engine.read_file(reader, "/opt/coding-agents/none")


def test_no_file_with_what_went_in_stays_on_the_host(
    contract_engine: EngineUnderTest, tmp_path: Path
) -> None:
    """Podman 4.3 keeps what `cp` reads from its standard input, a login among it, in a file in TMPDIR."""
    mount = VolumeMount(contract_engine.volume(), "/opt/coding-agents", writable=True)
    filler = contract_engine.api.create(contract_engine.python("pass", volumes=(mount,)))
    engine = copy(contract_engine.api)
    if isinstance(engine, CliEngine):
        engine._env = {**engine._env, "TMPDIR": str(tmp_path)}
    engine.copy_in(filler, "/opt/coding-agents", _tar({"login": b"a secret"}))
    assert engine.read_file(filler, "/opt/coding-agents/login") == b"a secret"
    assert list(tmp_path.iterdir()) == []


def test_a_program_is_fed_and_must_end_well(
    contract_engine: EngineUnderTest, run: Callable[[ContainerSpec], str]
) -> None:
    engine = contract_engine.api
    container = run(contract_engine.python(_FOREVER))
    told = bytes(range(256)) * 8192  # 2 MiB: more than any pipe holds
    check = (
        "import hashlib, os, sys; data = sys.stdin.buffer.read(); print(os.geteuid(), file=sys.stderr);"
        f"sys.exit(hashlib.sha256(data).hexdigest() != '{hashlib.sha256(told).hexdigest()}')"
    )
    engine.feed(container, (PYTHON, "-c", check), lambda out: out.write(told) and None, user="1000:1000")
    with pytest.raises(EngineError, match=f"cannot run {PYTHON} in "):
        engine.feed(
            container, (PYTHON, "-c", check), lambda out: out.write(told[1:]) and None, user="1000:1000"
        )
    with pytest.raises(EngineError) as ended_early:
        engine.feed(
            container,
            (PYTHON, "-c", "raise SystemExit('no, thanks')"),
            lambda out: out.write(told * 4) and None,
            user="1000:1000",
        )
    assert "no, thanks" in ended_early.value.details
    engine.remove(container, force=True)
    with pytest.raises(EngineError):
        engine.feed(container, (PYTHON, "-c", ""), lambda out: None, user="1000:1000")


def test_a_writer_that_fails_is_heard(contract_engine: EngineUnderTest) -> None:
    mount = VolumeMount(contract_engine.volume(), "/opt/coding-agents", writable=True)
    container = contract_engine.api.create(contract_engine.python("pass", volumes=(mount,)))

    def broken(stream: BinaryIO) -> None:
        stream.write(b"x" * 10)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        contract_engine.api.copy_in(container, "/opt/coding-agents", broken)


def test_volumes(contract_engine: EngineUnderTest) -> None:
    engine = contract_engine.api
    name = contract_engine.fresh_name()
    labels = {**contract_engine.labels, "test.mark": name}
    engine.create_volume(name, labels=labels)
    assert engine.volume_exists(name)
    assert engine.list_volumes({"test.mark": name}) == (name,)
    with suppress(EngineError):  # Podman refuses, Docker keeps what is there
        engine.create_volume(name, labels={**contract_engine.labels, "test.mark": "other"})
    assert engine.volume_labels([name, f"{name}-none"]) == {name: labels}
    container = engine.create(contract_engine.python("pass", volumes=(VolumeMount(name, "/workspace"),)))
    with pytest.raises(EngineError, match=f"cannot remove volume {name}"):
        engine.remove_volume(name)
    engine.remove(container)
    assert engine.volume_exists(name)  # a volume outlives its containers
    engine.remove_volume(name)
    assert not engine.volume_exists(name)
    assert engine.list_volumes({"test.mark": name}) == ()


def test_networks(contract_engine: EngineUnderTest) -> None:
    engine = contract_engine.api
    name = contract_engine.fresh_name()
    labels = {**contract_engine.labels, "test.mark": name}
    engine.create_network(name, labels=labels)
    assert engine.list_networks({"test.mark": name}) == (name,)
    assert len(engine.network_subnets(name)) == 1
    with pytest.raises(EngineError, match=f"cannot create network {name}"):
        engine.create_network(name, labels=labels)
    engine.remove_network(name)
    assert engine.list_networks({"test.mark": name}) == ()


def test_images_are_built_from_a_context_and_known_by_label(
    contract_engine: EngineUnderTest, tmp_path: Path
) -> None:
    engine = contract_engine.api
    tag = f"{contract_engine.fresh_name()}:local"
    (tmp_path / "file").write_text("x")
    (tmp_path / "Dockerfile.other").write_text("FROM scratch\nARG WHAT\nCOPY file /file\nLABEL own=$WHAT\n")
    lines: list[str] = []
    mark = contract_engine.fresh_name()
    image = engine.build(
        tmp_path, tag=tag, dockerfile="Dockerfile.other", build_args={"WHAT": "y"},
        labels={"test.mark": mark},
        on_line=lines.append,
    )  # fmt: skip
    try:
        assert lines
        assert not any("\n" in line for line in lines)
        assert engine.image_id(tag) == image
        assert image.startswith("sha256:")
        found = engine.find_image(tag)
        assert found is not None
        assert found.labels["test.mark"] == mark
        assert found.size_bytes >= 1
        none = f"{mark}:local"
        assert engine.find_images([tag, image]) == (found, found)
        assert engine.find_images([none, tag]) == (None, found)
        assert engine.find_images([tag, none]) == (found, None)
        assert [one.id for one in engine.list_images(f"test.mark={mark}") if one.tags] == [image]
        assert engine.list_images("test.mark=none") == ()
        other = tag.replace(":local", ":other")
        engine.tag(image, other)
        engine.remove_image(tag)
        assert engine.image_id(tag) is None
        assert engine.image_id(other) == image
        engine.remove_image(other)
        assert engine.image_id(image) is None
    finally:
        for left in engine.list_images(f"test.mark={mark}"):
            engine.remove_image(left.id)


def test_a_failing_build_says_why(contract_engine: EngineUnderTest, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("NONSENSE\n")
    tag = f"{contract_engine.fresh_name()}:local"
    with pytest.raises(EngineError, match=f"cannot build {tag}") as caught:
        contract_engine.api.build(tmp_path, tag=tag, on_line=lambda _line: None)
    assert caught.value.details
    assert contract_engine.api.image_id(tag) is None


def test_images_are_imported_from_a_root_file_system(
    contract_engine: EngineUnderTest, tmp_path: Path
) -> None:
    engine = contract_engine.api
    tag = f"{contract_engine.fresh_name()}:local"
    with (tmp_path / "root.tar").open("wb") as file:
        _tar({"etc/os-release": b"NAME=x\n"})(file)
    image = engine.import_image(tmp_path / "root.tar", tag=tag, changes=("LABEL test.mark=here",))
    try:
        assert engine.image_id(tag) == image
        found = engine.find_image(image)
        assert found is not None
        assert found.labels["test.mark"] == "here"
    finally:
        engine.remove_image(tag)


def test_a_container_on_our_own_streams(contract_engine: EngineUnderTest) -> None:
    code = "import sys; print(sys.stdin.read()[::-1], end='', flush=True)"
    container = contract_engine.api.create(contract_engine.python(code, interactive=True))
    command = contract_engine.api.start_attached_command(container)
    outcome = runner.run(replace(command, stdin=b"abc", timeout_s=60))
    assert outcome.stdout == b"cba"


def test_following_a_log(contract_engine: EngineUnderTest, run: Callable[[ContainerSpec], str]) -> None:
    container = run(contract_engine.python("print('line')"))
    command = contract_engine.api.logs_command(container, follow=False, tail=10)
    assert runner.run(replace(command, timeout_s=60)).stdout == b"line\n"
