"""The guest's program as one zip file that python3 runs.

It is made from the installed package, always with the same bytes for the same source: its digest names the
volume that it travels in, and is compared with what is in the volume before anything runs from it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import coding_agents_guest

# The start of time for zip files; any fixed time does.
_TIME = (1980, 1, 1, 0, 0, 0)
_START = b"import sys\n\nfrom coding_agents_guest.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"


def build_guest_pyz() -> bytes:
    """guest.pyz: run it as `python3 -IS guest.pyz COMMAND`.

    Stored, not compressed: it is read with every git fetch of the agent, and the bytes of a compressor
    differ between machines.
    """
    package = Path(coding_agents_guest.__file__).parent
    sources = {
        f"{package.name}/{path.relative_to(package).as_posix()}": path for path in package.rglob("*.py")
    }
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry("__main__.py"), _START)
        for name in sorted(sources):
            archive.writestr(_entry(name), sources[name].read_bytes())
    return target.getvalue()


def guest_digest(program: bytes) -> str:
    """SHA-256 of `program`, 64 hex digits."""
    return hashlib.sha256(program).hexdigest()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.create_system = 3  # Unix: the mode below counts
    entry.external_attr = 0o100644 << 16
    return entry
