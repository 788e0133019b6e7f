"""A key of a session's own: made for it, in its directory on the host, and gone with it. No container sees it."""

from __future__ import annotations

import os
from pathlib import Path

from coding_agents.brokers.sign.signer import Signer
from coding_agents.errors import SigningError
from coding_agents.model.signing import literal_ssh_key
from coding_agents.proc.runner import Command, run

_NAME = "signing-key"


def make_key(directory: Path, *, comment: str, path: str) -> str:
    """Make the key in the session's directory, which is ours alone; its public half, "TYPE BASE64".

    `path` is where programs are found. Raises SigningError, ProgramNotFoundError.
    """
    file = directory / _NAME
    argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", os.fspath(file))
    outcome = run(
        Command(argv, env={"PATH": path, "HOME": "/", "LC_ALL": "C"}, cwd=directory, timeout_s=20.0)
    )
    if not outcome.ok:
        raise SigningError(
            "the session's key cannot be made", details=outcome.describe(), hint="See that ssh-keygen works."
        )
    return read_public(directory)


def read_public(directory: Path) -> str:
    """The public half of the key in a session's directory. Raises SigningError."""
    file = directory / f"{_NAME}.pub"
    try:
        literal = literal_ssh_key(file.read_text("utf-8"))
    except OSError as error:
        raise SigningError(
            f"the session's key is not at {file}",
            hint="Commit without a signature: git commit --no-gpg-sign.",
        ) from error
    if not literal:
        raise SigningError(f"{file} is no public key", hint="Put it back as it was, or launch a new session.")
    return literal


def own_signer(directory: Path, *, path: str) -> Signer:
    """Sign with the key in a session's directory. Raises SigningError."""
    env = {"PATH": path, "HOME": "/", "LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}
    return Signer("ssh", os.fspath(directory / _NAME), read_public(directory), "ssh-keygen", env)
