"""The guest's program as one zip file that python3 runs.

It is made from the installed package, always with the same bytes for the same source and the same Python: its
digest names the volume that it travels in, and whatever runs from it compares it first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
from pathlib import Path

import coding_agents_guest

# The start of time for zip files; any fixed time does.
_TIME = (1980, 1, 1, 0, 0, 0)
_START = b"import sys\n\nfrom coding_agents_guest.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"
# PEP 552: found by its name alone, never compared with the source beside it.
_UNCHECKED_HASH = (0b01).to_bytes(4, "little")
# The last format without references between objects, whose order differs from run to run.
_MARSHAL_VERSION = 2


def guest_sources() -> dict[str, bytes]:
    """The files of the guest's package by their names in the program."""
    package = Path(coding_agents_guest.__file__).parent
    paths = {f"{package.name}/{path.relative_to(package).as_posix()}": path for path in package.rglob("*.py")}
    return {name: paths[name].read_bytes() for name in sorted(paths)}


def sources_digest(sources: dict[str, bytes]) -> str:
    """SHA-256 of what `build_guest_pyz` depends on, 64 hex digits."""
    digest = hashlib.sha256(importlib.util.MAGIC_NUMBER + _START)
    for name, source in sources.items():
        digest.update(b"%b\0%d\0%b" % (name.encode(), len(source), source))
    return digest.hexdigest()


def build_guest_pyz(sources: dict[str, bytes] | None = None) -> bytes:
    """guest.pyz: run it as `python3 -IS guest.pyz COMMAND`.

    Each module is in it as source and compiled by this Python: one of the same version loads that, in two thirds
    of the time, and any other takes the source. Stored, not compressed: it is read with every git fetch of the
    agent, and the bytes of a compressor differ between machines.
    """
    import io  # only a new version is built: a launch takes what is kept
    import zipfile

    def entry(name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, _TIME)
        info.create_system = 3  # Unix: the mode below counts
        info.external_attr = 0o100644 << 16
        return info

    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(entry("__main__.py"), _START)
        for name, source in (guest_sources() if sources is None else sources).items():
            archive.writestr(entry(name), source)
            archive.writestr(entry(f"{name}c"), _compiled(name, source))
    return target.getvalue()


def guest_digest(program: bytes) -> str:
    """SHA-256 of `program`, 64 hex digits."""
    return hashlib.sha256(program).hexdigest()


def _compiled(name: str, source: bytes) -> bytes:
    code = compile(source, f"guest.pyz/{name}", "exec", dont_inherit=True, optimize=0)
    return b"".join(
        (
            importlib.util.MAGIC_NUMBER,
            _UNCHECKED_HASH,
            importlib.util.source_hash(source),
            marshal.dumps(code, _MARSHAL_VERSION),
        )
    )
