"""Attacks on what the host does for git: credentials and signatures.

By git itself, and by the programs that git's settings name, which pass on whatever they are given.
"""

from __future__ import annotations

import os
import subprocess
import time

from coding_agents.attacks.repository import WORKSPACE, git

_CREDENTIAL = "/usr/lib/coding-agents/git-credential"
_SIGNERS = {"openpgp": "/usr/lib/coding-agents/sign-openpgp", "ssh": "/usr/lib/coding-agents/sign-ssh"}
_PATIENCE_S = 30
_DAY_S = 86_400


# --- credentials ---------------------------------------------------------------------------------------------


def ask_credentials(host: str, path: str) -> dict[str, str]:
    """What the host's credential broker answers for the place `https://HOST/PATH`, its neighbours and its disguises.

    Each answer is all that was printed. They are few enough to be asked at once: what is asked too often is refused
    whatever it asks for.
    """
    return {
        name: _answer(text.encode("utf-8", "surrogateescape"))
        for name, text in _questions(host, path).items()
    }


def _questions(host: str, path: str) -> dict[str, str]:
    def lines(**told: str) -> str:
        return "".join(f"{key}={value}\n" for key, value in told.items()) + "\n"

    above, _, last = path.rpartition("/")
    good = {"protocol": "https", "host": host, "path": path}
    return {
        "the place itself": lines(**good),
        "a repository beside it": lines(**{**good, "path": f"{above}/another.git"}),
        "a longer name": lines(**{**good, "path": f"{above}/{last.removesuffix('.git')}-two.git"}),
        "above it": lines(**{**good, "path": above}),
        "the whole host": lines(protocol="https", host=host),
        "by dots": lines(**{**good, "path": f"{path}/../another.git"}),
        "by escaped dots": lines(**{**good, "path": f"{path}/%2e%2e/another.git"}),
        "another host": lines(**{**good, "host": "stranger.invalid"}),
        "a host below it": lines(**{**good, "host": f"{host.partition(':')[0]}.stranger.invalid"}),
        "an account in the host": lines(**{**good, "host": f"{host}@stranger.invalid"}),
        "another port": lines(**{**good, "host": f"{host.partition(':')[0]}:1"}),
        "in the clear": lines(**{**good, "protocol": "http"}),
        "a line break in a value": lines(**{**good, "path": f"{path}\nhost=stranger.invalid"}),
        "a carriage return": lines(**{**good, "path": f"{path}\rhost=stranger.invalid"}),
        "an escaped line break": lines(**{**good, "path": f"{path}%0ahost=stranger.invalid"}),
        "a NUL": lines(**{**good, "path": f"{path}\0"}),
        "host told twice": f"protocol=https\nhost=stranger.invalid\nhost={host}\npath={path}\n\n",
        "as an address": f"url=https://{host}/{path}\n\n",
        "another spelling": lines(**{**good, "host": host.upper()}),
    }


def _answer(question: bytes) -> str:
    try:
        done = subprocess.run(
            (_CREDENTIAL, "get"), input=question, capture_output=True, timeout=_PATIENCE_S, check=False
        )
    except (subprocess.TimeoutExpired, BrokenPipeError) as error:
        return type(error).__name__
    return done.stdout.decode("utf-8", "replace")


def fill(url: str) -> str:
    """What git itself is told by all of its helpers for an address; empty when it was told no password."""
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": ""}
    done = subprocess.run(
        ("git", "credential", "fill"), input=f"url={url}\n\n".encode(), env=env, cwd=WORKSPACE,
        capture_output=True, timeout=_PATIENCE_S, check=False,
    )  # fmt: skip
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


# --- signatures ----------------------------------------------------------------------------------------------


def ask_signatures(kind: str) -> dict[str, str]:
    """For each payload of `payloads`: the signature that the host made of it, or an empty text."""
    return {name: signature_of(kind, payload) for name, payload in payloads().items()}


def signature_of(kind: str, payload: bytes) -> str:
    """What git's program for this kind of signature gets from the host for these bytes; empty without a signature."""
    if kind == "ssh":
        path = f"/tmp/attack-{os.getpid()}-{time.monotonic_ns()}"
        with open(path, "wb") as file:
            file.write(payload)
        argv: tuple[str, ...] = (_SIGNERS[kind], "-Y", "sign", "-n", "git", "-f", "key", path)
    else:
        path, argv = "", (_SIGNERS[kind], "--status-fd=2", "-bsau", "key")
    try:
        done = subprocess.run(
            argv, input=payload, cwd=WORKSPACE, capture_output=True, timeout=_PATIENCE_S, check=False
        )
        if not path:
            return done.stdout.decode("utf-8", "replace")
        with open(f"{path}.sig") as file:
            return file.read()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def payloads() -> dict[str, bytes]:
    """An honest commit on top of HEAD, as git would have it signed, and what it can be made into."""
    made = git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "honest")[1].strip()
    honest = _object(made)
    lines = honest.split(b"\n")
    at = {line.partition(b" ")[0]: number for number, line in reversed(list(enumerate(lines)))}

    def with_line(name: bytes, line: bytes) -> bytes:
        changed = list(lines)
        changed[at[name]] = line
        return b"\n".join(changed)

    def after_committer(header: bytes) -> bytes:
        return b"\n".join([*lines[: at[b"committer"] + 1], header, *lines[at[b"committer"] + 1 :]])

    head, stranger = git("rev-parse", "HEAD")[1].strip().encode(), b"Somebody <somebody@stranger.invalid>"
    who, _, when = lines[at[b"committer"]].rpartition(b"> ")
    author = lines[at[b"author"]].removeprefix(b"author ")
    now, zone = when.split(b" ")

    def dated(seconds: int) -> bytes:
        return with_line(b"committer", who + b"> %d " % (int(now) + seconds) + zone)

    tag = b"object " + head + b"\ntype commit\ntag v9\ntagger " + author + b"\n\nrelease\n"
    certificate = (
        b"certificate version 0.1\npusher " + author + b"\nnonce 1\n\n"
        + b"0" * 40 + b" " + head + b" refs/heads/main\n"
    )  # fmt: skip
    return {
        "honest": honest,
        "a tag": tag,
        "a push certificate": certificate,
        "a letter": b"I owe the bearer a thousand pounds.\n",
        "nothing": b"",
        "another's committer": with_line(b"committer", b"committer " + stranger + b" " + when),
        "the user as committer": with_line(b"committer", b"committer " + author),
        "a commit of the user's": _object("HEAD"),
        "another's author": with_line(b"author", b"author " + stranger + b" " + when),
        "of yesterday": dated(-30 * _DAY_S),
        "of tomorrow": dated(_DAY_S),
        "an unknown tree": with_line(b"tree", b"tree " + b"1" * 40),
        "an unknown parent": with_line(b"parent", b"parent " + b"2" * 40),
        "a commit as its tree": with_line(b"tree", b"tree " + head),
        "a signature inside": after_committer(
            b"gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----"
        ),
        "a merged tag": after_committer(b"mergetag object " + head + b"\n type commit\n tag v9"),
        "another header": after_committer(b"encoding x"),
        "a NUL": honest + b"\0" + tag,
        "two people in a line": with_line(
            b"author", b"author " + author + b"\ncommitter " + stranger + b" " + when
        ),
        "a folded header": with_line(b"author", b"author " + author + b"\n more"),
        "no message": b"\n".join(lines[: at[b"committer"] + 1]),
        "a line break before it": b"\n" + honest,
        "larger than any": honest + b"x" * (2 << 20),
    }


def _object(rev: str) -> bytes:
    return subprocess.run(
        ("git", "cat-file", "commit", rev),
        cwd=WORKSPACE,
        capture_output=True,
        timeout=_PATIENCE_S,
        check=True,
    ).stdout
