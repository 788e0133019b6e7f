"""Which registries the package managers of this image use: their files, and what they have compiled in.

Run in a container of the image without a network, as `python3 -I -c`, with patterns of files in JSON; the answer is a
line of JSON. Standard library alone.
"""

import json
import re
import shutil
import subprocess  # noqa: TID251 - alone in a container, with the standard library
import sys
from pathlib import Path

MARK = "coding-agents-registries: "
FILE_BYTES, FILES, LIMIT_S = 64 << 10, 50, 20
PIP = """
from pip._internal.models.index import PyPI
print(PyPI.simple_url, f"https://{PyPI.file_storage_domain}/")
"""
ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",  # noqa: S108 - in a container
    "LANG": "C.UTF-8",
}


def main() -> None:
    found = [
        (manager, path)
        for manager, patterns in json.loads(sys.argv[1]).items()
        for pattern in patterns
        for path in sorted(map(str, Path("/").glob(pattern.lstrip("/"))))
    ]
    files = [(manager, path, text) for manager, path in found[:FILES] if (text := read(path)) is not None]
    own = {"pip": pip(), "npm": npm(), "cargo": cargo()}
    print(MARK + json.dumps({"files": files, "own": own}), flush=True)


def read(path: str):
    try:
        if not Path(path).is_file():
            return None
        with Path(path).open("rb") as file:
            return file.read(FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return None


def pip() -> list:
    """pip's own index, and where that one's files are."""
    return said(sys.executable, "-I", "-c", PIP)


def npm() -> list:
    """npm's own registry: what it says where no file and no variable says anything."""
    nowhere = ("--userconfig=/tmp/none", "--globalconfig=/tmp/none/either")
    return said("npm", "config", "get", "registry", *nowhere) if shutil.which("npm", path=ENV["PATH"]) else []


def cargo() -> list:
    """cargo has no command that tells its own index: it is a constant in the program."""
    program = shutil.which("cargo", path=ENV["PATH"])
    if program is None:
        return []
    found = re.search(rb"sparse\+(https://[A-Za-z0-9.-]+(?::[0-9]+)?/)", Path(program).read_bytes())
    return [found[1].decode()] if found else []


def said(*command: str) -> list:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=LIMIT_S, cwd=ENV["HOME"], env=ENV, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [word for word in done.stdout.decode("utf-8", "replace").split() if "://" in word]


main()
