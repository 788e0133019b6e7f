"""`gpg.program` and `gpg.ssh.program` of a session: the host signs, with a key that never comes in.

git calls us as it would call gpg or ssh-keygen (its gpg-interface.c). What is to be signed goes to the host, which
takes exactly one commit of this session; it must have all that the commit names: what it lacks is pushed first.
What is no signature (verifying, listing) is for the real programs.
"""

from __future__ import annotations

import _socket
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_SOCKET = "/run/coding-agents/sign.sock"
_RELAY = "git://coding-agents/workspace"
_TO_SIGN = "refs/coding-agents/to-sign"
_REAL = {"openpgp": "gpg", "ssh": "ssh-keygen"}
_MAX = (1 << 20) + 1
_MAX_ANSWER = 1 << 16
_TRIES = 3
_NOT_LOST = "what was to be committed is still staged: try again, or commit unsigned with --no-gpg-sign"


class _RefusedError(Exception):
    """There is no signature; the message says why."""


def main(kind: str, arguments: Sequence[str], path: str = _SOCKET) -> int:
    """`kind` is openpgp or ssh, `arguments` are git's; returns an exit status, as the real program would."""
    is_signing = (
        any(word.startswith("-bs") for word in arguments)
        if kind == "openpgp"
        else list(arguments[:2]) == ["-Y", "sign"]
    )
    if not is_signing:
        try:
            os.execvp(_REAL[kind], [_REAL[kind], *arguments])
        except OSError as error:
            print(f"{_REAL[kind]} is not in this image: {error.strerror}", file=sys.stderr)
            return 127
    try:
        if kind == "openpgp":
            signature = _signed(_read(sys.stdin.fileno()), path)
            sys.stdout.write(signature)
            # What git looks for, between line breaks of its own.
            sys.stderr.write("\n[GNUPG:] SIG_CREATED D 1 8 00 0 0\n")
        else:
            with Path(arguments[-1]).open("rb") as file:
                signature = _signed(file.read(_MAX), path)
            Path(f"{arguments[-1]}.sig").write_text(signature, encoding="ascii")
    except (_RefusedError, OSError, ValueError, KeyError, IndexError) as error:
        _say(kind, f"coding-agents: not signed: {error}\ncoding-agents: {_NOT_LOST}\n")
        return 1
    return 0


def _signed(payload: bytes, path: str) -> str:
    """The host's signature of `payload`. Raises _RefusedError, OSError and what a broken answer raises."""
    for _ in range(_TRIES):
        answer = _ask(payload, path)
        if "signature" in answer:
            return str(answer["signature"])
        if not answer.get("missing"):
            raise _RefusedError(str(answer["refused"]))
        _push(payload)
    raise _RefusedError("the host still lacks what the commit names")


def _ask(payload: bytes, path: str) -> dict[str, object]:
    host = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        try:
            host.connect(path)
        except OSError:
            raise _RefusedError("this session has nothing signed") from None
        try:
            host.sendall(payload)
            host.shutdown(_socket.SHUT_WR)
        except OSError:
            pass  # who refuses it may not read all of it, and says why
        answer = b""
        while len(answer) < _MAX_ANSWER and (data := host.recv(_MAX_ANSWER)):
            answer += data
    finally:
        host.close()
    found = json.loads(answer) if answer else {"refused": "the host gave no answer"}
    if not isinstance(found, dict):
        raise _RefusedError("the host gave no answer")
    return found


def _push(payload: bytes) -> None:
    """Let the host have the commit, unsigned, and all that it names. Raises _RefusedError."""
    commit = _git(payload, "hash-object", "-t", "commit", "-w", "--stdin").strip()
    _git(
        b"", "-c", "push.gpgSign=false", "-c", "push.followTags=false", "-c", "push.recurseSubmodules=no",
        "push", "--quiet", "--no-verify", _RELAY, f"+{commit}:{_TO_SIGN}",
    )  # fmt: skip


def _git(stdin: bytes, *arguments: str) -> str:
    import subprocess  # not needed where the host has everything

    done = subprocess.run(("git", *arguments), input=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _RefusedError("; ".join(lines[-3:]) or f"git {arguments[0]} failed")
    return done.stdout.decode("ascii", "replace")


def _read(descriptor: int) -> bytes:
    found = b""
    while len(found) < _MAX and (data := os.read(descriptor, 1 << 16)):
        found += data
    return found


def _say(kind: str, text: str) -> None:
    """Tell whoever commits. Older gits keep to themselves what gpg says, so it goes where git's own words go."""
    if kind == "openpgp":
        try:  # neither empty a file that this is, nor wait for who reads a pipe
            descriptor = os.open(
                f"/proc/{os.getppid()}/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK
            )
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
            return
        except OSError:
            pass
    sys.stderr.write(text)
