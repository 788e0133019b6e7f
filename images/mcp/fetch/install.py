"""Fetch the packages of /builder/lock.json, check and unpack them below the directory that it names.

The hash of each stands in the lock; the index is believed in nothing. No code of a package runs: npm's archives are
unpacked here, wheels by pip, which runs nothing of them. What fails is said in one line that begins with MARK.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess  # noqa: TID251 - alone in a builder stage, with the standard library
import sys
import tarfile
from base64 import b64decode
from pathlib import Path, PurePosixPath

sys.path.insert(0, "/builder")
from ask import BUILDER, run

MARK = "coding-agents-mcp:"
CACHE = Path("/fetch")
MAX_BYTES, MAX_FILES = 1 << 30, 200_000
AT_ONCE = 100
CPUS = {"x86_64": "x64", "aarch64": "arm64"}


class Refused(Exception):
    """The packages cannot be had as they were pinned."""


def main() -> None:
    order = json.loads((BUILDER / "lock.json").read_text())
    root, lock = Path(order["root"]), order["lock"]
    root.mkdir(parents=True)
    try:
        program = {"npm": npm, "pypi": pip}[lock["index"]](root, lock)
        tidy(root)
        launcher(root, program, lock["index"])
    except Refused as error:
        sys.exit(f"{MARK} {error}")


def npm(root: Path, lock: dict) -> Path:
    cpu = CPUS.get(platform.machine(), platform.machine())
    packages = [one for one in lock["packages"] if not one["cpu"] or cpu in one["cpu"]]
    for start in range(0, len(packages), AT_ONCE):
        some = [f"{one['name']}@{one['version']}" for one in packages[start : start + AT_ONCE]]
        done = run("npm", "cache", "add", "--ignore-scripts", "--", *some, cwd=Path("/"))
        if done.returncode:
            raise Refused(why(done))
    room = Room()
    for one in packages:  # what is inside of another comes after it
        target = root / one["path"]
        if target.exists():
            shutil.rmtree(target)
        unpack(one, target, room)
    program = root / lock["program"]
    if not program.is_file():
        raise Refused(
            f"program: {lock['name']} {lock['version']} does not hold its program {lock['program']}"
        )
    content = program.read_bytes()
    first, end, rest = content.partition(b"\n")
    if first.startswith(b"#!") and first.endswith(b"\r"):  # as npm does; the kernel would look for "node\r"
        program.write_bytes(first.rstrip(b"\r") + end + rest)
    program.chmod(0o755)
    return program


def unpack(package: dict, target: Path, room: "Room") -> None:
    """One archive of npm's cache, which is where the hash of its bytes says."""
    digest = b64decode(package["integrity"].removeprefix("sha512-")).hex()
    archive = CACHE / "_cacache/content-v2/sha512" / digest[:2] / digest[2:4] / digest[4:]
    if not archive.is_file() or hashlib.sha512(archive.read_bytes()).hexdigest() != digest:
        raise Refused(f"integrity: {package['name']} {package['version']}")
    target.mkdir(parents=True)
    with tarfile.open(archive, "r:gz") as entries:
        for entry in entries:
            parts = PurePosixPath(entry.name).parts[1:]
            if not parts or not entry.isfile():  # npm takes no links either
                continue
            if ".." in parts or PurePosixPath(entry.name).is_absolute():
                raise Refused(f"archive: {package['name']} {package['version']} names a place above its own")
            room.take(entry.size)
            path = target.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            source = entries.extractfile(entry)
            with path.open("xb") as file:
                shutil.copyfileobj(source, file)
            path.chmod(0o755 if entry.mode & 0o111 else 0o644)


class Room:
    """How much may still be unpacked."""

    def __init__(self) -> None:
        self.bytes, self.files = MAX_BYTES, MAX_FILES

    def take(self, size: int) -> None:
        self.bytes -= size
        self.files -= 1
        if self.bytes < 0 or self.files < 0:
            raise Refused(f"size: they are more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB")


def pip(root: Path, lock: dict) -> Path:
    if lock["machine"] not in ("", platform.machine()):
        raise Refused(f"machine: {lock['machine']} {platform.machine()}")
    home = root / "python"
    subprocess.run(("python3", "-I", "-m", "venv", "--copies", "--without-pip", home), check=True)
    python, wanted = home / "bin/python3", BUILDER / "requirements.txt"
    lines = (f"{one['name']}=={one['version']} --hash={one['integrity']}\n" for one in lock["packages"])
    wanted.write_text("".join(lines))
    # Of the scripts of a venv only the interpreter is used; lib64 is a link.
    for path in home.glob("bin/*"):
        if path != python:
            path.unlink()
    (home / "lib64").unlink()
    done = run(
        "python3", "-I", "-m", "pip", f"--python={python}", "install", "--no-deps", "--no-compile",
        "--only-binary=:all:", "--require-hashes", f"--requirement={wanted}",
        cwd=Path("/"),
    )  # fmt: skip
    if done.returncode:
        raise Refused(why(done))
    room = Room()
    for directory, _, files in os.walk(root):
        for name in files:
            room.take(Path(directory, name).lstat().st_size)
    program = home / "bin" / lock["program"]
    if program.parent != home / "bin" or not program.is_file():
        names = [
            path.name for path in sorted(home.glob("bin/*")) if re.fullmatch(r"[\w.+-]{1,60}", path.name)
        ]
        known = ", ".join(name for name in names if name != python.name)
        raise Refused(
            f"program: {lock['name']} {lock['version']} has no program {lock['program']}; it has: {known}"
        )
    # Nothing can be written where it runs, so this is the one time to compile; that runs nothing either.
    words = ("-q", "--invalidation-mode=unchecked-hash", home / "lib")
    subprocess.run(
        ("/usr/bin/python3", "-IS", "-m", "compileall", *words), stdout=subprocess.DEVNULL, check=False
    )
    return program


def tidy(root: Path) -> None:
    """Nothing but directories and files of root's: no link, no privilege, nothing that others may write."""
    for directory, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(directory, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise Refused(f"archive: it holds {path.name!a}, which is neither a file nor a directory")
            os.chown(path, 0, 0)
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o111 else 0o644)
    root.chmod(0o755)


def launcher(root: Path, program: Path, index: str) -> None:
    """What is run in a session: the program, with the interpreter that it asks its PATH for."""
    if not re.fullmatch(r"[A-Za-z0-9._@+~/-]+", str(program)):
        raise Refused("program: its path is none")
    places = "/opt/mcp/node/bin:/usr/local/bin" if index == "npm" else str(root / "python/bin")
    path = root / "run"
    path.write_text(f'#!/bin/sh\nPATH={places}:$PATH\nexport PATH\nexec {program} "$@"\n')
    path.chmod(0o755)


def why(done: subprocess.CompletedProcess) -> str:
    """What npm or pip failed at, as one line of visible characters."""
    said = (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace")
    if "EINTEGRITY" in said or "DO NOT MATCH THE HASHES" in said:
        named = re.search(
            r"([\w.@/-]{1,100}==[\w.+!-]{1,100}) from|verification failed.* ([\w.@/-]{1,100})", said
        )
        return f"integrity: {next((name for name in named.groups() if name), '') if named else 'a package'}"
    return (
        "index: "
        + " | ".join(line.strip() for line in said.splitlines() if re.search(r"ERR|ERROR", line))[:1000]
    )


if __name__ == "__main__":
    main()
