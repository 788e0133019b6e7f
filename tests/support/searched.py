"""Everything that a session leaves in an engine and on the host, as bytes to look for secrets in."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

from support.product import TIMEOUT_S, Product

# What can be written in a container; the rest of its file system is the image, which is looked at once for all.
_WRITABLE = ("workspace", "home", "etc", "run", "tmp", "var/tmp", "dev/shm", "opt/coding-agents")
_MOST_MEMORY = 256 << 20  # bytes of one process


def in_the_engine(product: Product, name: str) -> dict[str, bytes]:
    """The engine's account of a session, its log, and its files."""
    record = product.session(name)
    containers = [one for one in (record["container_id"], record["holder_id"]) if one]
    volumes = [one for one in record["volumes"].values() if one]
    found = {f"inspect of {one}": _run(product, "inspect", one) for one in (*containers, record["image_id"])}
    found |= {f"inspect of volume {one}": _run(product, "volume", "inspect", one) for one in volumes}
    found |= {f"log of {one}": _run(product, "logs", one) for one in containers}
    found["history of the image"] = _run(product, "history", "--no-trunc", record["image_id"])
    words = ("exec", "-u", "0:0", record["container_id"], "tar", "-cf", "-", "-C", "/", *_WRITABLE)
    found["files of the container"] = _run(product, *words, failing=True)  # some vanish while they are read
    return found


def in_memory(product: Product, name: str) -> dict[str, bytes]:
    """Environment, arguments and memory of each process of a session, read from the host as root."""
    first = int(_run(product, "inspect", "--format", "{{.State.Pid}}", product.session(name)["container_id"]))
    found: dict[str, bytes] = {}
    for pid in _same_namespace(first):
        place = Path(f"/proc/{pid}")
        for part in ("environ", "cmdline"):
            with suppress(OSError):
                found[f"{part} of process {pid}"] = (place / part).read_bytes()
        with suppress(OSError):
            found[f"memory of process {pid}"] = _memory(place)
    return found


def on_the_host(product: Product, name: str) -> dict[str, bytes]:
    """The arguments of the session's own processes on the host, which every account of it sees."""
    wanted = product.session(name)["id"].encode()
    found: dict[str, bytes] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (place / "cmdline").read_bytes()
            if wanted in words or name.encode() in words:
                found[f"arguments of process {place.name} of the host"] = words
    return found


def _same_namespace(first: int) -> list[int]:
    wanted = Path(f"/proc/{first}/ns/pid").readlink()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (place / "ns/pid").readlink() == wanted:
                found.append(int(place.name))
    assert first in found
    return found


def _memory(place: Path) -> bytes:
    """All that the process can write: its heap, stacks, and what it mapped for itself."""
    pieces, size = [], 0
    with (place / "mem").open("rb", buffering=0) as memory:
        for line in (place / "maps").read_text().splitlines():
            span, rights, *_ = line.split()
            begin, end = (int(part, 16) for part in span.split("-"))
            if "w" in rights and size < _MOST_MEMORY:
                with suppress(OSError, OverflowError):
                    memory.seek(begin)
                    pieces.append(memory.read(min(end - begin, _MOST_MEMORY)))
                    size += end - begin
    return b"".join(pieces)


def _run(product: Product, *words: str, failing: bool = False) -> bytes:
    done = subprocess.run(
        (product.engine, *words), env=product.env, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert failing or done.returncode == 0, done.stderr
    return done.stdout + (b"" if failing else done.stderr)
