"""Sign one commit with a key of the host's: by gpg or ssh-keygen, as git itself calls them (git's gpg-interface.c).

`sign_commit` gives the whole commit, to be written with `git hash-object -w -t commit --stdin`. What a helper answers
is checked before it counts: it may be any program that the user's configuration names, and it may be broken.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from coding_agents.brokers.sign.answers import (
    MAX_SIGNATURE,
    NAMESPACE,
    AnswerError,
    Signature,
    key_blob,
    read_openpgp,
    read_ssh,
    why_not,
)
from coding_agents.brokers.sign.config import read_config
from coding_agents.errors import SigningError
from coding_agents.model.commit import with_signature
from coding_agents.model.masked import Masked
from coding_agents.model.signing import Format, SigningConfig, literal_ssh_key
from coding_agents.proc.git import home_of
from coding_agents.proc.runner import Command, Outcome, Owner, run

TIMEOUT_S = 20.0
"""How long a helper may take while nobody sits in front of it; an agent that waits for somebody is over it."""
ASKING_S = 300.0
"""The same where it may ask."""

_PASSED = ("GNUPGHOME", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK")
# What a pinentry and an askpass need to find the person.
_ASKING = (
    "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS", "TERM", "GPG_TTY", "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE", "PINENTRY_USER_DATA",
)  # fmt: skip
_MAX_KEY = 16 * 1024
_HINTS = {
    "locked": "Unlock it on the host, such as by signing something there, then commit again.",
    "unusable": "Extend it, or give git another one (user.signingKey).",
    "missing": "See that user.signingKey names a key whose secret half is here.",
    "failed": "See that `git commit -S` works on the host.",
    "slow": "Unlock the key on the host, such as by signing something there, then commit again.",
}
_WORDS = {
    "locked": "the key is locked",
    "unusable": "the key has expired, was revoked, or may not sign",
    "missing": "the key is not there",
    "failed": "the program that signs failed",
    "slow": "the program that signs took too long",
}


class Signer(Masked, frozen=True):
    """A key of the host's, and the program that signs with it.

    `key` is as git has it in user.signingKey: for openpgp what gpg finds a key by; for ssh a file, or a public key of
    which an agent has the secret half. `public` is the public key of ssh ("TYPE BASE64"). The program runs as `owner`
    in the environment `env`. `may_ask` says that a person is there to be asked for a passphrase.
    """

    MASKED = frozenset({"env"})

    format: Format
    key: str
    public: str
    program: str
    env: Mapping[str, str]
    owner: Owner | None = None
    may_ask: bool = False

    @property
    def shown(self) -> str:
        """The key for people and records: as git has it, or its public half."""
        return self.public or self.key


def users_signer(
    config: SigningConfig, env: Mapping[str, str], owner: Owner | None, *, may_ask: bool = False
) -> Signer:
    """The user's own key. `env` is the user's environment. Raises SigningError when git names none that can be used."""
    if not config.format:
        raise SigningError(
            "git's gpg.format names a kind of signature that is not made here",
            hint="Set gpg.format to openpgp or ssh, or signing.mode to off.",
        )
    key = config.key
    if not key and config.format == "openpgp" and config.name and config.email:
        key = f"{config.name} <{config.email}>"  # as git does
    if not key or key.startswith("-") or not key.isprintable():
        raise SigningError(
            "git names no key to sign with", hint="Set user.signingKey in your own git configuration."
        )
    other = owner if owner is not None and os.geteuid() == 0 and owner.uid != 0 else None
    home = Path(env.get("HOME", "/") if other is None else home_of(other))
    public = _public_of(key, home) if config.format == "ssh" else ""
    environment = _environment({} if other is not None else env, home, may_ask=may_ask)
    environment["PATH"] = env.get("PATH", os.defpath)
    return Signer(config.format, key, public, _expand(config.program, home), environment, other, may_ask)


def find_signer(
    env: Mapping[str, str], git_dir: Path, owner: Owner | None, *, may_ask: bool = False
) -> Signer | None:
    """The user's own key where git signs the user's commits in this repository; None where it does not.

    Raises SigningError when it should and cannot, GitError.
    """
    config = read_config(env, git_dir, owner)
    return users_signer(config, env, owner, may_ask=may_ask) if config.signs else None


def sign_commit(payload: bytes, signer: Signer, *, object_format: str = "sha1") -> bytes:
    """The commit `payload` with its signature among its headers. Raises SigningError, ProgramNotFoundError."""
    signature = sign_payload(payload, signer)
    return with_signature(payload, signature.armored, object_format=object_format)


def sign_payload(payload: bytes, signer: Signer) -> Signature:
    """A signature of these very bytes. Who calls this has judged them. Raises SigningError, ProgramNotFoundError."""
    try:
        if signer.format == "openpgp":
            return _sign_openpgp(payload, signer)
        return _sign_ssh(payload, signer)
    except AnswerError as error:
        raise SigningError(f"the program that signs does not work: {error}", hint=_HINTS["failed"]) from error
    except OSError as error:
        raise SigningError(
            f"nothing can be written for the program that signs: {error.strerror}",
            hint=f"See that there is room in {tempfile.gettempdir()}.",
        ) from error


def _sign_openpgp(payload: bytes, signer: Signer) -> Signature:
    # An agent that must ask says so at once, instead of having a window open on somebody's desktop.
    quiet = () if signer.may_ask else ("--pinentry-mode", "error")
    argv = (signer.program, "--status-fd=2", "--batch", "--no-tty", *quiet, "-bsau", signer.key)
    outcome = _run(signer, argv, stdin=payload)
    return read_openpgp(outcome.stdout, outcome.stderr)


def _sign_ssh(payload: bytes, signer: Signer) -> Signature:
    with tempfile.TemporaryDirectory(prefix="coding-agents-sign-") as name:
        directory = Path(name)
        _write(directory / "commit", payload, signer.owner)
        key = _expand(signer.key, Path(signer.env["HOME"]))
        if literal := literal_ssh_key(signer.key):
            key = os.fspath(directory / "key")
            _write(directory / "key", f"{literal}\n".encode(), signer.owner)
        if signer.owner is not None:  # last: in a directory of somebody else's root writes nothing
            os.chown(directory, signer.owner.uid, signer.owner.gid)
        argv = (signer.program, "-Y", "sign", "-n", NAMESPACE, "-f", key, os.fspath(directory / "commit"))
        _run(signer, argv)
        return read_ssh(_read(directory / "commit.sig"), key=signer.public)


def _run(signer: Signer, argv: tuple[str, ...], *, stdin: bytes | None = None) -> Outcome:
    """Raises SigningError unless it says that all went well; what it printed is for its user alone."""
    timeout_s = ASKING_S if signer.may_ask else TIMEOUT_S
    outcome = run(
        Command(argv, env=signer.env, cwd=Path("/"), stdin=stdin, timeout_s=timeout_s, owner=signer.owner)
    )
    if outcome.ok:
        return outcome
    reason = "slow" if outcome.timed_out else why_not(outcome.stderr)
    raise SigningError(
        f"cannot sign with {signer.shown[:100]}: {_WORDS[reason]}",
        details=outcome.describe(),
        hint=_HINTS[reason],
    )


def _public_of(key: str, home: Path) -> str:
    """The public key of user.signingKey: itself, its file, or the file beside it. Raises SigningError."""
    if literal := literal_ssh_key(key):
        return _checked_key(literal)
    path = Path(_expand(key, home))
    for candidate in (path, path.with_name(f"{path.name}.pub")):
        try:
            with candidate.open("rb") as file:
                text = file.read(_MAX_KEY).decode("utf-8", "replace")
        except OSError:
            continue
        if literal := literal_ssh_key(text.partition("\n")[0]):
            return _checked_key(literal)
    raise SigningError(
        f"user.signingKey names {key[:200]!r}, whose public half cannot be read",
        hint=f"Write it with `ssh-keygen -y -f {key[:200]} > {key[:200]}.pub`.",
    )


def _checked_key(literal: str) -> str:
    try:
        key_blob(literal)
    except AnswerError as error:
        raise SigningError("user.signingKey is no public key of ssh", hint=_HINTS["missing"]) from error
    return literal


def _environment(env: Mapping[str, str], home: Path, *, may_ask: bool) -> dict[str, str]:
    names = (*_PASSED, *_ASKING) if may_ask else _PASSED
    passed = {name: env[name] for name in names if name in env}
    asks = {} if may_ask else {"SSH_ASKPASS_REQUIRE": "never"}
    return {"LC_ALL": "C", "HOME": os.fspath(home), **passed, **asks}


def _expand(path: str, home: Path) -> str:
    return f"{home}/{path[2:]}" if path.startswith("~/") else path


def _write(path: Path, content: bytes, owner: Owner | None) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        if owner is not None:
            os.fchown(fd, owner.uid, owner.gid)


def _read(path: Path) -> bytes:
    """What a helper wrote, "" for nothing; through no link."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(2 * MAX_SIGNATURE)
