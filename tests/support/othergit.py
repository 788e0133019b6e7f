"""The git of Debian's other release, unpacked beside this machine's own: `git_of("trixie", DIR)`.

apt fetches it with the machine's own configuration into a root of its own, nothing is installed, and the
names of the archives come from /etc/apt. Each program is started by the loader and with the libraries of its
own release, so that what git starts in turn (a shell, a filter) still gets this machine's libraries.

`python -m support.othergit DIR` unpacks the other one and prints the directory for the front of PATH.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

from support.aptroot import apt_of, run, this_release

OTHER = {"bookworm": "trixie", "trixie": "bookworm"}
_EMPTY_DIRS = ("root", "bin", "exec")


def git_of(release: str, place: Path) -> Path:
    """The directory with a `git` of the Debian release `release`, made below `place` when it is not there."""
    programs = place / "bin"
    if not (programs / "git").exists():
        for name in _EMPTY_DIRS:
            (place / name).mkdir(parents=True, exist_ok=True)
        _download(release, place)
        for package in (place / "cache/archives").glob("*.deb"):
            run("dpkg-deb", "-x", os.fspath(package), os.fspath(place / "root"))
        _wrap(place)
    return programs


def version(programs: Path) -> tuple[int, ...]:
    """The version of the git in `programs`."""
    said = run(os.fspath(programs / "git"), "version")
    return tuple(int(part) for part in re.findall(r"\d+", said.split()[2])[:3])


def _download(release: str, place: Path) -> None:
    apt = apt_of(release, place)
    run(*apt, "install", "--download-only", "--yes", "--no-install-recommends", "git")


def _wrap(place: Path) -> None:
    """Programs that start those of the unpacked tree with its own loader and libraries."""
    root = place / "root"
    loader = next(path for path in root.glob("**/ld-linux*.so.*") if path.is_file())
    libraries = ":".join(map(os.fspath, sorted({path.parent for path in root.glob("**/*.so*")})))
    begin = f"exec {shlex.quote(os.fspath(loader))} --library-path {shlex.quote(libraries)}"
    for program in (root / "usr/lib/git-core").iterdir():
        if program.is_dir():
            continue
        target = place / "exec" / program.name
        with program.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                target.symlink_to(program)
                continue
        _script(target, f'{begin} --argv0 {program.name} {shlex.quote(os.fspath(program.resolve()))} "$@"')
    git = shlex.quote(os.fspath(root / "usr/bin/git"))
    (place / "exec/git").unlink(missing_ok=True)
    place_of_others = f'export GIT_EXEC_PATH="${{GIT_EXEC_PATH:-{place / "exec"}}}"'
    for target in (place / "exec/git", place / "bin/git"):
        _script(target, f'{place_of_others}\n{begin} --argv0 git {git} "$@"')


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


if __name__ == "__main__":
    print(git_of(OTHER[this_release()], Path(sys.argv[1]).absolute()))
