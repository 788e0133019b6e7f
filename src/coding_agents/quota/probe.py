"""Whether this host mounts images of sessions: tried with a small one, not assumed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from coding_agents.errors import CodingAgentsError
from coding_agents.model.limits import MIB
from coding_agents.quota.image import Image, make_image, program, run
from coding_agents.quota.window import MOUNT_OPTIONS
from coding_agents.store.files import locked, private_dir

_SIZE_BYTES = 16 * MIB
_PLACE = "disk-probe"


def why_unmountable(state_dir: Path) -> str:
    """Why no image below `state_dir` can be mounted, "" when one can be.

    It is mounted in a mount namespace of its own, which goes with the process: nothing is left, whoever is killed.
    """
    if os.geteuid() != 0:
        return "mounting a file system takes root"
    try:
        private_dir(state_dir)
        with locked(state_dir / f"{_PLACE}.lock"):
            return _tried(Image(state_dir / _PLACE))
    except CodingAgentsError as error:
        return f"{error.message} {_last_line(error.details)}".strip()


def _tried(image: Image) -> str:
    try:
        shutil.rmtree(image.directory, ignore_errors=True)  # of one that was killed
        private_dir(image.directory)
        make_image(image, _SIZE_BYTES)
        mount = (program("mount"), "-t", "ext4", "-o", MOUNT_OPTIONS, str(image.path), str(image.mount_point))
        outcome = run("unshare", "--mount", "--propagation=private", *mount)
    finally:
        shutil.rmtree(image.directory, ignore_errors=True)
    return "" if outcome.ok else f"mount fails: {_last_line(outcome.stderr.decode('utf-8', 'replace'))}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and "dmesg(1)" not in line]
    return lines[-1][:200] if lines else ""
