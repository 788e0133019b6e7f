"""Finding an engine, with stub programs on PATH that answer as real ones were seen to."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from coding_agents.engine import find
from coding_agents.engine.features import DOCKER, PODMAN
from coding_agents.engine.find import engine_environment, find_engine, known_engine, rlimit_ceiling
from coding_agents.errors import (
    CodingAgentsError,
    EngineError,
    EngineForbiddenError,
    EngineNotFoundError,
    EngineStoppedError,
    EngineTooOldError,
    InvariantError,
    UsageError,
)
from coding_agents.sandbox.spec import Network
from support.specs import sandbox

_DATA = Path(__file__).parent.parent / "unit" / "data" / "engine"
_DOCKER_INFO = json.loads((_DATA / "docker-info.json").read_text())
_PODMAN_INFO = json.loads((_DATA / "podman-info.json").read_text())

_STOPPED = "Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?"
_FORBIDDEN = "permission denied while trying to connect to the Docker daemon socket at unix:///x.sock"


class Host:
    """A PATH with stub engines that log how they are called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "calls"
        self.environ: dict[str, str] = {"PATH": str(directory), "HOME": str(directory)}

    def install(
        self, name: str, *, info: Mapping[str, object] | None = None, error: str = "", body: str = ""
    ) -> None:
        """A program `name` whose `info` prints JSON, or fails with `error`."""
        answer = self.directory / f"{name}.json"
        answer.write_text("" if info is None else json.dumps(info))
        path = self.directory / name
        path.write_text(
            "#!/bin/sh\n"
            f'printf "%s\\n" "{name} $*" >> {self.log}\n'
            f"{body}\n"
            f"[ -s {answer} ] && /bin/cat {answer}\n"
            + (f'printf "%s\\n" "{error}" >&2\nexit 1\n' if error else "exit 0\n")
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def error(self, choice: str) -> CodingAgentsError:
        with pytest.raises(CodingAgentsError) as caught:
            find_engine(choice, self.environ)
        return caught.value


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_known_engine_is_asked_about_itself_only_when_that_matters(host: Host) -> None:
    host.install("docker", info=_DOCKER_INFO)
    engine = known_engine("docker", host.environ)
    assert host.calls() == []
    assert engine.info.version == _DOCKER_INFO["ServerVersion"]
    assert engine.info.name == "docker"
    assert host.calls() == ["docker info --format={{json .}}"]


def test_a_known_engine_that_is_gone_or_silent_says_so(host: Host) -> None:
    with pytest.raises(EngineNotFoundError):
        known_engine("docker", host.environ)
    host.install("docker", error=_STOPPED)
    engine = known_engine("docker", host.environ)
    for question in (lambda: engine.info, lambda: engine.inspect("x"), lambda: engine.stop("x", timeout_s=1)):
        with pytest.raises(EngineStoppedError):
            question()


def test_nothing_installed(host: Host) -> None:
    for choice in ("auto", "docker", "podman"):
        assert isinstance(host.error(choice), EngineNotFoundError)


def test_docker_is_preferred(host: Host) -> None:
    host.install("docker", info=_DOCKER_INFO)
    host.install("podman", info=_PODMAN_INFO)
    assert find_engine("auto", host.environ).info.name == "docker"
    assert find_engine("podman", host.environ).info.name == "podman"


@pytest.mark.parametrize("error", [_STOPPED, _FORBIDDEN])
def test_podman_when_docker_does_not_answer(host: Host, error: str) -> None:
    host.install("docker", error=error)
    host.install("podman", info=_PODMAN_INFO)
    assert find_engine("auto", host.environ).info.name == "podman"


@pytest.mark.parametrize(
    ("error", "kind"), [(_STOPPED, EngineStoppedError), (_FORBIDDEN, EngineForbiddenError)]
)
def test_what_is_wrong_with_the_only_engine(host: Host, error: str, kind: type[CodingAgentsError]) -> None:
    host.install("docker", error=error)
    for choice in ("auto", "docker"):
        caught = host.error(choice)
        assert type(caught) is kind
        assert error in caught.details
        assert caught.hint


def test_a_client_that_reports_a_stopped_daemon_with_status_0(host: Host) -> None:
    host.install("docker", info={"ServerVersion": "", "ServerErrors": [_STOPPED]})
    assert isinstance(host.error("docker"), EngineStoppedError)
    host.install("docker", info={"ServerErrors": [_FORBIDDEN]})
    assert isinstance(host.error("docker"), EngineForbiddenError)


def test_a_daemon_that_hangs(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "ANSWER_S", 0.3)
    host.install("docker", body="exec /bin/sleep 60")
    assert isinstance(host.error("docker"), EngineStoppedError)


def test_podman_that_fails(host: Host) -> None:
    host.install("podman", error="Error: database is broken")
    caught = host.error("podman")
    assert isinstance(caught, EngineStoppedError)
    assert "database is broken" in caught.details


@pytest.mark.parametrize("version", ["19.03.15", "1.13.1", "20.9.0"])
def test_docker_too_old(host: Host, version: str) -> None:
    host.install("docker", info={**_DOCKER_INFO, "ServerVersion": version})
    caught = host.error("docker")
    assert isinstance(caught, EngineTooOldError)
    assert "20.10" in caught.hint
    assert version in caught.message


def test_podman_too_old(host: Host) -> None:
    host.install("podman", info={**_PODMAN_INFO, "version": {"Version": "3.4.4"}})
    assert isinstance(host.error("podman"), EngineTooOldError)


@pytest.mark.parametrize("choice", ["", "Docker", "lxc", "/usr/bin/docker", "docker;id"])
def test_unknown_engine(host: Host, choice: str) -> None:
    host.install("docker", info=_DOCKER_INFO)
    assert isinstance(host.error(choice), UsageError)
    assert host.calls() == []


@pytest.mark.parametrize("answer", ["", "[]", "null", '"x"', "{", "{}"])
def test_nonsense_is_an_expected_error(host: Host, answer: str) -> None:
    for name in ("docker", "podman"):
        host.install(name, body=f"printf '%s' '{answer}'; exit 0")
        assert host.error(name).exit_status in range(30, 40)


def test_runc_on_cgroup_v1_when_podman_would_take_crun(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crun = json.loads(json.dumps(_PODMAN_INFO))
    crun["host"]["ociRuntime"]["name"] = "crun"
    monkeypatch.setattr(find, "_SYSTEM_PATH", str(tmp_path))
    host.install("podman", info=crun)
    assert find_engine("podman", host.environ).info.default_runtime == "crun"
    host.install("runc")
    engine = find_engine("podman", host.environ)
    assert engine.info.default_runtime == "runc"
    assert engine.info.runtimes == ("crun", "runc")
    engine.kill("x")
    assert "podman --runtime=runc container kill x" in host.calls()
    crun["host"]["cgroupVersion"] = "v2"
    host.install("podman", info=crun)
    assert find_engine("podman", host.environ).info.default_runtime == "crun"


def test_a_chosen_runtime(host: Host) -> None:
    crun = json.loads(json.dumps(_PODMAN_INFO))
    crun["host"]["ociRuntime"]["name"] = "crun"
    host.install("podman", info=crun)
    engine = find_engine("podman", host.environ, runtime="crun")
    assert engine.info.default_runtime == "crun"
    assert host.calls()[-1].startswith("podman --runtime=crun info")


def test_podmans_gvisor_gets_no_network_of_its_own(host: Host) -> None:
    """Also where it is Podman's own choice."""
    gvisor = json.loads(json.dumps(_PODMAN_INFO))
    gvisor["host"]["ociRuntime"]["name"] = "runsc"
    host.install("podman", info=gvisor)
    for runtime in ("runsc", ""):
        find_engine("podman", host.environ, runtime=runtime).kill("x")
        assert host.calls()[-1] == "podman --runtime=runsc --runtime-flag=network=none container kill x"
    with suppress(EngineError):  # of the stub, which makes no image
        find_engine("podman", host.environ, runtime="runsc").build(
            host.directory, tag="x:local", on_line=print
        )
    assert any(call.startswith("podman build --force-rm --tag=x:local") for call in host.calls())


def test_a_runtime_that_the_engine_does_not_know(host: Host) -> None:
    host.install("docker", info=_DOCKER_INFO)
    host.install("podman", error='Error: default OCI runtime "runsc" not found: invalid argument')
    for name, hint in (("docker", "daemon.json"), ("podman", "containers.conf")):
        with pytest.raises(EngineError, match=rf"(?i){name} does not know the runtime runsc") as caught:
            find_engine(name, host.environ, runtime="runsc")
        assert hint in caught.value.hint
    assert find_engine("docker", host.environ, runtime="runc").info.default_runtime == "runc"


def test_the_client_gets_only_what_it_needs(host: Host, tmp_path: Path) -> None:
    host.install("docker", info=_DOCKER_INFO, body=f"/usr/bin/env > {tmp_path}/env")
    host.environ |= {
        "DOCKER_CONTEXT": "remote",
        "https_proxy": "http://proxy:3128",
        "SSH_AUTH_SOCK": "/run/agent",
        "ANTHROPIC_API_KEY": "x",
        "LD_PRELOAD": "/tmp/evil.so",
    }
    find_engine("docker", host.environ)
    passed = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert {"DOCKER_CONTEXT", "https_proxy", "SSH_AUTH_SOCK", "HOME", "PATH"} <= passed.keys()
    assert not {"ANTHROPIC_API_KEY", "LD_PRELOAD"} & passed.keys()


def test_environment_is_filtered_by_name() -> None:
    kept = {"DOCKER_HOST": "a", "CONTAINER_HOST": "b", "XDG_RUNTIME_DIR": "c", "NO_PROXY": "d", "TMPDIR": "e"}
    assert engine_environment({**kept, "DOCKERHOST": "x", "AWS_PROFILE": "x", "PYTHONPATH": "x"}) == kept


def test_an_unsafe_container_never_reaches_the_program(host: Host) -> None:
    host.install("docker", info=_DOCKER_INFO)
    engine = find_engine("docker", host.environ)
    before = host.calls()
    with pytest.raises(InvariantError):
        engine.create(sandbox(mode=Network.RESTRICTED, user="0:0"))
    assert host.calls() == before


def test_rlimits_of_this_process() -> None:
    assert rlimit_ceiling(DOCKER).nofile is None
    ceiling = rlimit_ceiling(PODMAN)
    assert ceiling.nproc is None or ceiling.nproc <= int(Path("/proc/sys/kernel/pid_max").read_text())
    assert os.sysconf("SC_OPEN_MAX") > 0
