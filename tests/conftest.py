"""Real engines for the tests that need one, and what must hold for every test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from support.engines import EngineUnderTest, connect_for_tests, contract_engines, find_missing, real_engines

# A loaded machine must not fail a property by its clock, and every run tries the same examples;
# `pytest --hypothesis-profile=fuzz` looks for new ones.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("fuzz", deadline=None, max_examples=20_000)
settings.load_profile("steady")


def pytest_configure() -> None:
    # Where a shell has started us in the background it is ignored, and would be in all that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("engines")
    group.addoption(
        "--engine",
        choices=("none", "docker", "podman", "all"),
        default="none",
        help="real engines to run the tests marked `engine` on (default: none, these tests are skipped)",
    )
    group.addoption(
        "--require-engine",
        action="store_true",
        help="a chosen engine that does not answer fails its tests, not skips them (CI=true implies it)",
    )
    group.addoption(
        "--guest",
        metavar="DIRECTORY",
        help="a guest to emulate (tools/emulated_guest.py) for tests/emulated (default: none, they are skipped)",
    )


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    both = config.getoption("--engine") == "all"
    for item in items:
        if both and item.get_closest_marker("alike") and _engine_of(item) == "podman":
            item.add_marker(pytest.mark.slow)
    if config.getoption("--engine") == "none":
        skip = pytest.mark.skip(reason="needs --engine=docker|podman|all")
        for item in items:
            if item.get_closest_marker("engine"):
                item.add_marker(skip)


def _engine_of(item: pytest.Item) -> object:
    return (
        item.callspec.params.get("engine")
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else None
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = str(metafunc.config.getoption("--engine"))
    if "engine" in metafunc.fixturenames:
        marked = [pytest.param(name, marks=pytest.mark.engine) for name in real_engines(chosen)]
        metafunc.parametrize("engine", marked, indirect=True, scope="session")
    if "contract_engine" in metafunc.fixturenames:
        metafunc.parametrize("contract_engine", contract_engines(chosen), indirect=True, scope="session")


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[EngineUnderTest]:
    """A real engine; what carries this test run's label is removed at the end. Marks its tests `engine`."""
    require = bool(request.config.getoption("--require-engine")) or os.environ.get("CI") == "true"
    if problem := find_missing(request.param):
        if require:
            pytest.fail(f"{request.param} is required: {problem}")
        pytest.skip(problem)
    under_test = connect_for_tests(request.param)
    yield under_test
    under_test.reap()


@pytest.fixture(scope="session")
def contract_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EngineUnderTest]:
    """The fake or a real engine: all must pass the same suite."""
    require = bool(request.config.getoption("--require-engine")) or os.environ.get("CI") == "true"
    if problem := find_missing(request.param):
        if require:
            pytest.fail(f"{request.param} is required: {problem}")
        pytest.skip(problem)
    under_test = connect_for_tests(request.param, directory=tmp_path_factory.mktemp("fake-engine"))
    yield under_test
    under_test.reap()


@pytest.fixture(autouse=True)
def _unchanged_environment() -> Iterator[None]:
    """No test may leave the environment changed (pytest's own variable aside)."""
    before = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    yield
    after = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    assert after == before
