"""An image of the user's, brought into a running session and named in the agent's terminal."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from coding_agents.app.sessions import require_open_gate
from coding_agents.errors import CopyError, SessionStateError
from coding_agents.model.audit import RecordType
from coding_agents.model.limits import size_text
from coding_agents.sandbox.spec import AGENT_USER
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.protocol import Op

MAX_IMAGE = 20 << 20
"""More than any model takes, in bytes."""

# Takes the ending; `set -C` makes each name its own, also beside another paste (in a shell of its own, which a
# failure ends).
_KEEP = """\
umask 077; n=1
until (set -C; : > "/tmp/paste-$n.$1") 2> /dev/null; do n=$((n + 1)); test $n -le 9999 || exit 1; done
cat > "/tmp/paste-$n.$1" && echo "/tmp/paste-$n.$1"
"""
_KEPT = re.compile(r"/tmp/paste-[0-9]{1,4}\.(?:png|jpg|gif|webp)")  # noqa: S108 - the container's own
_BUFFER = "coding-agents-paste"


def read_image(path: Path) -> bytes:
    """The content of a file, up to `MAX_IMAGE` and a byte. Raises CopyError when it is not to be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CopyError(f"{path} is no plain file", hint="Name a PNG, JPEG, GIF or WebP file.")
            return file.read(MAX_IMAGE + 1)
    except OSError as error:
        raise CopyError(
            f"cannot read {path}: {(error.strerror or str(error)).lower()}",
            hint="Check the path, and its modes.",
        ) from error


def image_ending(content: bytes) -> str:
    """The file name's ending for an image that agents take, by its first bytes. Raises CopyError."""
    if len(content) > MAX_IMAGE:
        raise CopyError(f"the image has more than {size_text(MAX_IMAGE)}", hint="Make it smaller.")
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    raise CopyError("that is no image that agents take", hint="Name a PNG, JPEG, GIF or WebP file.")


def paste(session: SessionContext, content: bytes) -> str:
    """Put an image into the session and type its path, without Enter; returns the path. Raises CopyError."""
    ending = image_ending(content)
    require_open_gate(session)
    record = session.record
    if record.mode != "tmux":
        raise SessionStateError(
            f"session {record.name} runs a command: there is no terminal to type into",
            hint=f"Use `coding-agents cp FILE {record.name}:/tmp`.",
        )
    subject = f"in /tmp/paste-N.{ending}"
    session.supervisor().ask(Op.RECORD, type=RecordType.COPIED.value, subject=subject)
    keep = ("sh", "-c", _KEEP, "paste", ending)
    outcome = session.engine.exec(record.container_id, keep, user=AGENT_USER, stdin=content)
    path = outcome.text().strip()
    if not outcome.ok or not _KEPT.fullmatch(path):  # it is the guest's word, and is about to be typed
        raise CopyError("cannot keep the image in the session", details=outcome.describe(), hint="Try `cp`.")
    # As pasted text: agents look at a pasted path, and a shell does not run it.
    typing = ("paste-buffer", "-p", "-d", "-b", _BUFFER, "-t", "agent:0.0")
    tmux = ("tmux", "set-buffer", "-b", _BUFFER, "--", path, ";", *typing)
    typed = session.engine.exec(record.container_id, tmux, user=AGENT_USER)
    if not typed.ok:
        raise CopyError(
            f"the image is {path} in the session; its path could not be typed",
            details=typed.describe(),
            hint="Type the path yourself.",
        )
    return path
