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
import subprocess
import sys
from pathlib import Path

from coding_agents.images.apt import read_sources

OTHER = {"bookworm": "trixie", "trixie": "bookworm"}
_EMPTY_DIRS = ("state/lists/partial", "cache/archives/partial", "root", "bin", "exec")


def this_release() -> str:
    """The code name of the Debian release that this machine has, or an empty string."""
    release = Path("/etc/os-release")
    found = re.search(r"(?m)^VERSION_CODENAME=(\w+)$", release.read_text() if release.exists() else "")
    return found[1] if found else ""


def git_of(release: str, place: Path) -> Path:
    """The directory with a `git` of the Debian release `release`, made below `place` when it is not there."""
    programs = place / "bin"
    if not (programs / "git").exists():
        for name in _EMPTY_DIRS:
            (place / name).mkdir(parents=True, exist_ok=True)
        _download(release, place)
        for package in (place / "cache/archives").glob("*.deb"):
            _run("dpkg-deb", "-x", os.fspath(package), os.fspath(place / "root"))
        _wrap(place)
    return programs


def version(programs: Path) -> tuple[int, ...]:
    """The version of the git in `programs`."""
    said = _run(os.fspath(programs / "git"), "version")
    return tuple(int(part) for part in re.findall(r"\d+", said.split()[2])[:3])


def _download(release: str, place: Path) -> None:
    here = this_release()
    lines = [
        f"deb [{f'signed-by={source.signed_by}' if source.signed_by else ''}] {source.uri} "
        f"{source.suite.replace(here, release)} main\n"
        for source in read_sources(Path("/etc/apt"))
        if source.suite.startswith(here) and "main" in source.components
    ]
    if not lines:
        raise RuntimeError(f"/etc/apt has no source of {here} main")
    (place / "sources.list").write_text("".join(lines))
    (place / "state/status").write_text("")
    options = [
        f"Dir::State={place}/state", f"Dir::State::status={place}/state/status", f"Dir::Cache={place}/cache",
        f"Dir::Etc::sourcelist={place}/sources.list", "Dir::Etc::sourceparts=/dev/null",
        "Dir::Etc::preferencesparts=/dev/null", "APT::Sandbox::User=", "Acquire::Languages=none",
        f"Debug::NoLocking={'false' if os.geteuid() == 0 else 'true'}", "Dpkg::Use-Pty=false",
    ]  # fmt: skip
    apt = ("apt-get", "-q", *(part for option in options for part in ("-o", option)))
    _run(*apt, "update")
    _run(*apt, "install", "--download-only", "--yes", "--no-install-recommends", "git")


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


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(argv)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    print(git_of(OTHER[this_release()], Path(sys.argv[1]).absolute()))
