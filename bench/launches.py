"""What a launch costs until the agent's command runs: for a small repository, and for one with many files."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

from bench.rows import Row, in_turn, milliseconds
from bench.user import User, new_user

BASE_IMAGE = "coding-agents-base:local"
_COUNT = 5
_COPIES = 3
_RULES = 100_000
_FILE_BYTES = 10_000
_FILES_IN_DIRECTORY = 100
# ext4 without a journal gives no inode away within a minute of its deletion, and looks at every such one for each file
# that is made: after 10,000 deletions `cp -a` of 10,000 files takes ten times as long, as does everything else.
_SETTLED_S = 61.0
# `restricted` has no network to set up; allow-all sets up one and its guard.
_NETWORKS = (("restricted", 2.0), ("allow-all", 2.8), ("squid", 3.5))


def measure_warm(user: User) -> Iterator[Row]:
    """Against a container without walls, repository or network of its own."""
    repo = user.repository({"README.md": b"hello\n", "src/app.py": b"print('hello')\n"})

    def bare() -> float:
        return milliseconds(lambda: user.engine_run("run", "--rm", BASE_IMAGE, "true"))

    def launch(network: str) -> float:
        return user.first_byte_ms(repo, "--network-proxy", network)

    launch("restricted")  # the guest's volume, and everything into the page cache
    for network, ratio in _NETWORKS:
        value, baseline = in_turn(_COUNT, partial(launch, network), bare)
        yield Row(
            what=f"launch to the command's first byte, {network}",
            value=value,
            unit="ms",
            against=f"`{user.engine} run --rm IMAGE true`",
            baseline=baseline,
            max_ratio=ratio,
        )


def measure_guard(user: User) -> Iterator[Row]:
    """What a network behind the guard adds to a launch, against the engine's bare part of it."""
    repo = user.repository({"README.md": b"hello\n"})
    names = (f"bench-{number}" for number in count())

    def bridge_and_container() -> float:
        name = next(names)

        def make() -> None:
            user.engine_run("network", "create", name)
            user.engine_run("run", "--rm", f"--network={name}", BASE_IMAGE, "true")

        try:
            return milliseconds(make)
        finally:
            user.engine_run("network", "rm", name)

    user.first_byte_ms(repo, "--network-proxy", "restricted")
    with_guard, without, baseline = in_turn(
        _COUNT,
        *(
            partial(user.first_byte_ms, repo, "--network-proxy", network)
            for network in ("allow-all", "restricted")
        ),
        bridge_and_container,
    )
    yield Row(
        what="a network with its guard, added to a launch",
        value=with_guard - without,
        unit="ms",
        against=f"`{user.engine}`: a bridge, and a container on it",
        baseline=baseline,
        max_ratio=1.0,
    )


def measure_gvisor(user: User) -> Iterator[Row]:
    """The same launch as `measure_warm`'s in gVisor, where the engine knows it."""
    flags = ("--runtime=runsc",)
    bare = (*flags, "--runtime-flag=network=none", "run") if user.engine == "podman" else ("run", *flags)
    if not (shutil.which("runsc") if user.engine == "podman" else "runsc" in user.engine_run("info")):
        return
    repo = user.repository({"README.md": b"hello\n", "src/app.py": b"print('hello')\n"})
    launch = partial(user.first_byte_ms, repo, "--network-proxy", "restricted", *flags)
    launch()
    value, baseline = in_turn(
        _COUNT,
        launch,
        lambda: milliseconds(lambda: user.engine_run(*bare, "--rm", "--network=none", BASE_IMAGE, "true")),
    )
    yield Row(
        what="launch to the command's first byte, restricted, runsc",
        value=value,
        unit="ms",
        against=f"`{user.engine} run --rm --runtime runsc IMAGE true`",
        baseline=baseline,
        max_ratio=4.0,
    )


def measure_rules(user: User) -> Iterator[Row]:
    """What a long list of rules adds to a launch in mode `squid`."""
    repo = user.repository({"README.md": b"hello\n"})
    file = user.home / ".config/coding-agents/network-allowlist.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"host{number}.example{number % 977}.org\n" for number in range(_RULES))

    def launch(rules: str) -> float:
        file.write_text(rules)
        return user.first_byte_ms(repo, "--network-proxy", "squid")

    try:
        many, none = in_turn(_COPIES, partial(launch, text), partial(launch, ""))
    finally:
        file.unlink()
    yield Row(
        what=f"launch in mode squid, {_RULES:,} rules more", value=many - none, unit="ms", max_value=1000.0
    )


def measure_copy(user: User, environ: Mapping[str, str], directory: Path, *, files: int) -> Iterator[Row]:
    """What many files add to a first launch, against `cp -a` of the same tree, `.git` included.

    Nothing is removed before all is measured: see _SETTLED_S.
    """
    small = user.repository({"README.md": b"hello\n"})
    large = user.repository(_tree(files))
    numbers = count()

    with ExitStack() as kept:

        def first_launch(repo: Path) -> float:
            fresh = kept.enter_context(new_user(user.engine, environ, directory))
            name = f"{repo.name}-{next(numbers)}"  # the engine knows the sessions of all these users
            os.sync()
            return fresh.first_byte_ms(repo, "--network-proxy", "restricted", "--name", name, keep=True)

        def copied() -> float:
            os.sync()
            copy = directory / f"copy-{files}-{next(numbers)}"
            return milliseconds(lambda: subprocess.run(("cp", "-a", large, copy), check=True))

        os.sync()
        time.sleep(_SETTLED_S)
        with_files, without, baseline = in_turn(
            _COPIES, lambda: first_launch(large), lambda: first_launch(small), copied
        )
    yield Row(
        what=f"private copy of {files:,} files, {files * _FILE_BYTES // 1_000_000:,} MB",
        value=with_files - without,
        unit="ms",
        against="`cp -a`",
        baseline=baseline,
        max_ratio=1.1,
    )


def _tree(files: int) -> dict[str, bytes]:
    """Files that do not compress, the same in every run."""
    source = random.Random(files)
    return {
        f"d{number // _FILES_IN_DIRECTORY:04d}/f{number % _FILES_IN_DIRECTORY:02d}.bin": source.randbytes(
            _FILE_BYTES
        )
        for number in range(files)
    }
