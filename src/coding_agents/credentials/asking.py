"""Secrets that a program of the user prints: op, pass, vault, sops, age."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import IO

from coding_agents.credentials.values import MAX_BYTES, secret_text
from coding_agents.errors import CredentialError, ProgramNotFoundError
from coding_agents.proc.runner import Command, streaming

TIMEOUT_S = 60.0


def ask_program(
    argv: tuple[str, ...], environ: Mapping[str, str], home: Path, *, timeout_s: float = TIMEOUT_S
) -> str:
    """The one line that `argv` prints, run in the user's own environment. Raises CredentialError.

    It starts in the home directory, since the current one may be a repository that is not trusted. It has no
    terminal. Neither its output nor its standard error is ever shown: both may hold the secret.
    """
    name = PurePath(argv[0]).name
    command = Command(argv, env=dict(environ), cwd=home if home.is_dir() else Path("/"), timeout_s=timeout_s)
    try:
        with streaming(command) as stream:
            stream.stdin.close()
            data = _read(stream.stdout, MAX_BYTES + 2)
            if len(data) > MAX_BYTES + 1:
                stream.expire()
                raise CredentialError(
                    f"{name} prints more than {MAX_BYTES >> 10} KiB", hint=_again(name, "one line")
                )
            outcome = stream.finish()
    except ProgramNotFoundError as error:
        raise CredentialError(
            f"{name}, which prints the secret, cannot be run", hint=f"Install {name}, or set the secret anew."
        ) from error
    if outcome.timed_out:
        raise CredentialError(
            f"{name} has not printed the secret in {timeout_s:.0f} s",
            hint=f"It has no terminal to ask on: unlock {name} first.",
        )
    if not outcome.ok:
        raise CredentialError(
            f"{name} fails with exit status {outcome.status}",
            details="What it says is not shown, since it may hold the secret.",
            hint=_again(name, "the secret alone"),
        )
    return secret_text(data, source=f"what {name} prints")


def _again(name: str, what: str) -> str:
    return f"Run {name} in a shell, with the same words: it is to print {what}."


def _read(pipe: IO[bytes], limit: int) -> bytes:
    data = b""
    while len(data) < limit and (piece := pipe.read(limit - len(data))):
        data += piece
    return data
