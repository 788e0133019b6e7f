"""Engines for tests: which to use, names of nobody else, removal of exactly what this run has made."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coding_agents.engine.api import Engine
from coding_agents.engine.find import find_engine
from coding_agents.errors import CodingAgentsError
from coding_agents.sandbox.guest import PYTHON
from coding_agents.sandbox.spec import HelperSpec
from support.fake_engine import FakeEngine
from support.specs import helper

RUN_LABEL = "coding-agents.test-run"
IMAGES = ("coding-agents-base:local", "ca-scratch:dev")


def engine_environ() -> dict[str, str]:
    """Where tests look for an engine; CODING_AGENTS_TEST_DOCKER_HOST chooses the daemon."""
    environ = dict(os.environ)
    if host := environ.get("CODING_AGENTS_TEST_DOCKER_HOST"):
        environ["DOCKER_HOST"] = host
    return environ


def real_engines(chosen: str) -> list[str]:
    """Parameters for the fixture `engine`."""
    return ["docker", "podman"] if chosen in ("all", "none") else [chosen]


def contract_engines(chosen: str) -> list[Any]:
    """Parameters for `contract_engine`: the fake always, real ones as tests marked `engine`."""
    return ["fake", *(pytest.param(name, marks=pytest.mark.engine) for name in real_engines(chosen))]


def find_missing(name: str) -> str:
    """Why an engine cannot be used, empty when it can."""
    if name == "fake":
        return ""
    try:
        found = find_engine(name, engine_environ())
    except CodingAgentsError as error:
        return error.message
    if not any(found.image_id(ref) for ref in IMAGES):
        return f"{name} has no base image: run `coding-agents images build base`"
    return ""


@dataclass
class EngineUnderTest:
    """An engine, an image with python3 in it, and the label that marks all this run makes."""

    name: str
    api: Engine
    image: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @property
    def labels(self) -> Mapping[str, str]:
        return {RUN_LABEL: self.run}

    def fresh_name(self) -> str:
        """A name that nothing else has, on any machine."""
        return f"ca-test-{uuid.uuid4().hex[:12]}"

    def python(self, code: str, *arguments: str, **changes: Any) -> HelperSpec:
        """A walled container that runs `code`."""
        spec = helper(
            name=self.fresh_name(), image=self.image, argv=(PYTHON, "-c", code, *arguments), **changes
        )
        return _labelled(spec, self.run)

    def volume(self) -> str:
        """A new empty volume."""
        name = self.fresh_name()
        self.api.create_volume(name, labels=self.labels)
        return name

    def reap(self) -> None:
        """Remove what carries this run's label, and nothing else."""
        for container in sorted(self.api.find(self.labels), key=lambda one: one.config.network, reverse=True):
            self.api.remove(container.id, force=True)
        for volume in self.api.list_volumes(self.labels):
            self.api.remove_volume(volume)
        for network in self.api.list_networks(self.labels):
            self.api.remove_network(network)


def connect_for_tests(name: str, *, directory: Path | None = None) -> EngineUnderTest:
    """The engine `name`, which `find_missing` has found to be usable."""
    if name == "fake":
        assert directory is not None
        fake = FakeEngine(directory)
        return EngineUnderTest(name, fake, fake.add_image("python:local"))
    found = find_engine(name, engine_environ())
    image = next(image for ref in IMAGES if (image := found.image_id(ref)) is not None)
    return EngineUnderTest(name, found, image)


def _labelled(spec: HelperSpec, run: str) -> HelperSpec:
    return replace(spec, labels=(*spec.labels, (RUN_LABEL, run)))
