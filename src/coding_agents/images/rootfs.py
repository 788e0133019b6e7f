"""The base image's root filesystem without a registry: Debian packages through mmdebstrap, in one run.

It mounts the host's /dev/shm and others into its tree. As root that happens in a mount namespace of our making, which
ends with it: whatever kills it, no mount is left, and nothing of the host is below what is removed afterwards. An
ordinary user needs user namespaces with a range of subordinate ids (mmdebstrap(1), "unshare"), which is checked
before, because its own message comes late.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from coding_agents.errors import ImageBuildError
from coding_agents.images.api import OnLine
from coding_agents.images.apt import SUITE, base_sources, host_suite, read_sources
from coding_agents.images.data import write_tree
from coding_agents.images.recipes import Recipe, base_packages
from coding_agents.proc import runner
from coding_agents.proc.runner import Command
from coding_agents.proc.scratch import left_scratches, make_scratch, scratch_parent

NEEDED_BYTES = 3 << 30
"""Free space for the unpacked tree, the downloaded packages and the tar file, with room to spare."""

APT_DIR = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")
_TIME_LIMIT_S = 1800.0
_LOG_LINES = 40
_SCRATCH = "coding-agents-build-"
_OCTAL = re.compile(rb"\\([0-7]{3})")


def make_rootfs(recipe: Recipe, tar: Path, *, environment: Mapping[str, str], on_line: OnLine) -> None:
    """Write the base root filesystem to `tar`; the directory of `tar` takes the temporary files.

    Raises ImageBuildError, if mmdebstrap fails with the end of its output.
    """
    if shutil.which("mmdebstrap", path=environment.get("PATH", os.defpath)) is None:
        raise ImageBuildError(
            "no registry answers, and mmdebstrap is not installed",
            hint="Make a registry reachable, or install mmdebstrap: apt-get install mmdebstrap",
        )
    _require_user_namespaces()
    work = tar.parent
    release = OS_RELEASE.read_text(encoding="utf-8") if OS_RELEASE.is_file() else ""
    sources = base_sources(read_sources(APT_DIR), host_suite=host_suite(release))
    write_tree({**recipe.tree, "base.list": "".join(f"{line}\n" for line in sources).encode()}, work / "in")
    command = Command(
        (*_own_mounts(environment), *rootfs_argv(base_packages(recipe.tree), tar=tar)),
        env=rootfs_environment(environment, work=work),
        cwd=work / "in",
        timeout_s=_TIME_LIMIT_S,
    )
    last: deque[str] = deque(maxlen=_LOG_LINES)
    with runner.streaming(command) as process:
        for raw in process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            last.append(line)
            if line.startswith("I: "):
                on_line(line.removeprefix("I: "))
        outcome = process.finish()
    if not outcome.ok:
        raise ImageBuildError(
            "mmdebstrap could not make the base image",
            details="\n".join([*last, outcome.describe()]),
            hint="",  # from the log, by whoever has all of it
        )


def _own_mounts(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The words that give mmdebstrap mounts of its own: it makes them as root, where this machine lets it mount."""
    argv = ("unshare", "--mount", "--propagation", "private", "--")
    if os.geteuid() != 0 or not runner.run(Command((*argv, "true"), env=environment)).ok:
        return ()
    return argv


def rootfs_environment(environment: Mapping[str, str], *, work: Path) -> dict[str, str]:
    """The whole environment of mmdebstrap: its programs, the way out, and `work` for its temporary files."""
    proxies = {name: value for name, value in environment.items() if name.lower().endswith("_proxy")}
    path = f"{environment.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # an ordinary user's PATH lacks them
    return {**proxies, "PATH": path, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "TMPDIR": os.fspath(work)}


def rootfs_argv(packages: Iterable[str], *, tar: Path) -> tuple[str, ...]:
    """The mmdebstrap command; it runs in the directory that holds the recipe's files and `base.list`."""
    return (
        "mmdebstrap",
        "--variant=minbase",
        "--format=tar",
        "--logfile=/dev/stdout",
        '--aptopt=Acquire::Retries "3"',
        '--aptopt=APT::Install-Recommends "false"',
        "--dpkgopt=dpkg.cfg",
        f"--include={','.join(packages)}",
        "--customize-hook=upload finish.sh /finish.sh",
        '--customize-hook=chroot "$1" sh /finish.sh',
        '--customize-hook=rm "$1/finish.sh"',
        SUITE,
        os.fspath(tar),
        "base.list",
    )


def is_scratch(path: Path) -> bool:
    """Whether `path` is, or was, below a `scratch_dir` of this user's."""
    return any(parent.name.startswith(f"{_SCRATCH}{os.geteuid()}-") for parent in path.parents)


@contextmanager
def scratch_dir(environment: Mapping[str, str]) -> Iterator[Path]:
    """A new directory below TMPDIR for the block. What a build left that was killed with -9 goes first.

    Not below the home directory: mmdebstrap's subordinate users must be able to walk the whole path.
    """
    parent = scratch_parent(environment)
    for leftover in left_scratches(parent, _SCRATCH):
        _remove(leftover, environment)
    path = make_scratch(parent, _SCRATCH)
    path.chmod(0o711)
    try:
        yield path
    finally:
        _remove(path, environment)


def _remove(path: Path, environment: Mapping[str, str]) -> None:
    """Remove `path`, also where it holds files of our subordinate ids, which takes a user namespace.

    It stays when something is mounted below: what lies there is not ours.
    """
    if has_mounts_below(path):
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists() and os.geteuid() != 0:
        argv = ("mmdebstrap", "--unshare-helper", "rm", "-rf", os.fspath(path))
        runner.run(Command(argv, env=environment, timeout_s=120))


def has_mounts_below(path: Path) -> bool:
    """Whether anything is mounted at `path` or below, as /proc/self/mountinfo has it (proc(5))."""
    try:
        table = Path("/proc/self/mountinfo").read_bytes()
    except FileNotFoundError:  # no Linux, where no build of ours mounts anything
        return False
    top = os.fsencode(path.resolve())
    points = (
        _OCTAL.sub(lambda one: bytes([int(one[1], 8)]), line.split(b" ")[4]) for line in table.splitlines()
    )
    return any(point == top or point.startswith(top + b"/") for point in points)


def has_subordinate_ids(subid_text: str, *, user: str, uid: int) -> bool:
    """Whether /etc/subuid or /etc/subgid gives this user a whole range of 65536 ids (subuid(5))."""
    for line in subid_text.splitlines():
        owner, _, rest = line.partition(":")
        _first, _, count = rest.partition(":")
        if owner in (user, str(uid)) and count.isdigit() and int(count) >= 65536:
            return True
    return False


def _require_user_namespaces() -> None:
    uid = os.geteuid()
    if uid == 0:
        return
    user = pwd.getpwuid(uid).pw_name
    missing = [program for program in ("newuidmap", "newgidmap") if shutil.which(program) is None]
    if missing:
        raise ImageBuildError(
            f"{missing[0]} is not installed, so mmdebstrap cannot work as an ordinary user",
            hint="Install it as root: apt-get install uidmap",
        )
    for name in ("/etc/subuid", "/etc/subgid"):
        path = Path(name)
        if not path.is_file() or not has_subordinate_ids(path.read_text(), user=user, uid=uid):
            raise ImageBuildError(
                f"{name} gives user {user} no 65536 ids, so mmdebstrap cannot work as an ordinary user",
                hint=f"As root: usermod --add-subuids 200000-265535 --add-subgids 200000-265535 {user}",
            )
