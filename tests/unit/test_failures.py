"""Engines' own words, as they were seen, and what we make of them."""

from __future__ import annotations

import pytest

from coding_agents.engine.failures import failure, is_missing
from coding_agents.engine.features import DOCKER, PODMAN
from coding_agents.errors import EngineError, EngineForbiddenError, EngineStoppedError
from coding_agents.proc.runner import Outcome


def _said(text: str, *, timed_out: bool = False) -> Outcome:
    return Outcome(("docker", "x"), 1, b"", text.encode(), 0.1, timed_out)


@pytest.mark.parametrize(
    "text",
    [
        "Error response from daemon: No such container: nope",
        "Error: No such object: nope",
        "Error: inspecting object: no such container nope",
        'Error: no container with name or ID "nope" found: no such container',
        "Error response from daemon: get nope: no such volume",
        "Error: inspecting object: no such volume nope",
        "Error response from daemon: no such image: nope: No such image: nope:latest",
        "Error: inspecting object: nope: image not known",
        "Error response from daemon: network nope not found",
        "Error: nope: unable to find network with name or ID nope: network not found",
    ],
)
def test_missing(text: str) -> None:
    assert is_missing(_said(text))


@pytest.mark.parametrize("text", ["", "Error: boom", "permission denied", "no space left on device"])
def test_not_missing(text: str) -> None:
    assert not is_missing(_said(text))


@pytest.mark.parametrize(
    "text",
    [
        "permission denied while trying to connect to the Docker daemon socket at "
        "unix:///var/run/docker.sock: Get x: dial unix /var/run/docker.sock: connect: permission denied",
        "Got permission denied while trying to connect to the Docker daemon socket",
        "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock",
    ],
)
def test_forbidden(text: str) -> None:
    error = failure("x", _said(text), DOCKER)
    assert isinstance(error, EngineForbiddenError)
    assert "podman" in error.hint


@pytest.mark.parametrize(
    "text",
    [
        "Cannot connect to the Docker daemon at unix:///nope.sock. Is the docker daemon running?",
        "error during connect: Get http://x: EOF",
        "Cannot connect to Podman. Please verify your connection to the Linux system",
        "failed to connect to the docker API at unix:///x; check if the path is correct",
    ],
)
def test_stopped(text: str) -> None:
    assert isinstance(failure("x", _said(text), DOCKER), EngineStoppedError)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("write /var/lib/docker/x: no space left on device", "disk is full"),
        ('Conflict. The container name "/x" is already in use by container "y"', "left over"),
        ("error setting rlimit type 7: operation not permitted", "hard limits"),
        ("Error: cgroups in hybrid mode not supported, drop all controllers from cgroupv2", "runc"),
        ("Error response from daemon: unknown or invalid runtime name: runsc", "runtime"),
        (
            "runc create failed: unable to start container process: error during container init: unable to apply "
            "apparmor profile: apparmor failed to apply profile: write /proc/self/attr/apparmor/exec: no such file",
            "doctor --fix",
        ),
        ("Error: something new", EngineError.advice),
    ],
)
def test_hints(text: str, hint: str) -> None:
    error = failure("create container x", _said(text), DOCKER)
    assert type(error) is EngineError
    assert error.message == "cannot create container x"
    assert text in error.details
    assert hint
    assert hint in error.hint
    assert (error.hint == EngineError.advice) == (hint == EngineError.advice)


def test_a_program_in_the_container_that_cannot_connect_is_not_a_stopped_engine() -> None:
    error = failure(
        "build x", _said("curl: (7) Failed to connect to example.org: Connection refused"), DOCKER
    )
    assert type(error) is EngineError


def test_an_engine_that_does_not_answer_in_time() -> None:
    error = failure("start container x", _said("", timed_out=True), PODMAN)
    assert "did not answer in time" in error.message
    assert "podman info" in error.hint
