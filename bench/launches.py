"""What a launch costs until the agent's command runs: for a small repository, and for one with many files."""

from __future__ import annotations

import os
import random
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
_FILE_BYTES = 10_000
_FILES_IN_DIRECTORY = 100
# ext4 without a journal gives no inode away within a minute of its deletion, and looks at every such one for each file
# that is made: after 10,000 deletions `cp -a` of 10,000 files takes ten times as long, as does everything else.
_SETTLED_S = 61.0
# `restricted` has no network to set up; allow-all sets up one and its guard.
_NETWORKS = (("restricted", 2.0), ("allow-all", 2.8))


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
