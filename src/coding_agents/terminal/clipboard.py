"""The image on the host's clipboard, by the program that the desktop has for it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from coding_agents.errors import CopyError
from coding_agents.proc import runner
from coding_agents.proc.runner import Command

# Program and arguments, and the variable without which it has nobody to ask.
_READERS = (
    (("wl-paste", "--no-newline", "--type", "image/png"), "WAYLAND_DISPLAY"),
    (("xclip", "-selection", "clipboard", "-target", "image/png", "-out"), "DISPLAY"),
    (("pngpaste", "-"), ""),
)
_VARIABLES = ("PATH", "HOME", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR")
_TIMEOUT_S = 10.0


def clipboard_image(environ: Mapping[str, str]) -> bytes:
    """What the clipboard gives when it is asked for a PNG; not checked. Raises CopyError when it gives nothing."""
    env = {name: environ[name] for name in _VARIABLES if name in environ}
    tried = []
    for argv, needs in _READERS:
        if (needs and not env.get(needs)) or shutil.which(argv[0], path=env.get("PATH")) is None:
            continue
        outcome = runner.run(Command(argv, env=env, timeout_s=_TIMEOUT_S))
        if outcome.ok and outcome.stdout:
            return outcome.stdout
        tried.append(outcome.describe())
    if tried:
        raise CopyError(
            "there is no image on the clipboard", details="\n".join(tried), hint="Copy one, or name a FILE."
        )
    raise CopyError(
        "cannot read the clipboard here",
        hint="Name a FILE, or install wl-paste, xclip (Linux) or pngpaste (macOS).",
    )
