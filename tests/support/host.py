"""Host environments for tests: values, never the process's own."""

from __future__ import annotations

import os
from pathlib import Path

from coding_agents.config.environ import HostEnvironment


def host_environment(home: Path, *, cwd: Path | None = None, **environ: str) -> HostEnvironment:
    """A Linux user at home in `home`, with nothing in the environment but PATH and `environ`."""
    return HostEnvironment(
        environ={"PATH": os.defpath, **environ},
        home=home,
        uid=os.geteuid(),
        gid=os.getegid(),
        cwd=cwd or home,
        platform="linux",
    )
