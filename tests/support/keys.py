"""Real keys of a person: GnuPG homes with an agent, OpenSSH keys, and an ssh-agent. Made new for each test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT_S = 60
EMAIL = "ada@example.test"
_PRESET = "/usr/lib/gnupg/gpg-preset-passphrase"

# A pinentry on a desktop nobody sits at: it answers as the protocol wants (Assuan), and never with a passphrase.
_SILENT = """#!/bin/sh
echo 'OK waiting'
while read -r command rest; do
  case $command in GETPIN) exec cat ;; GETINFO) echo "D 0"; echo OK ;; BYE) echo OK; exit ;; *) echo OK ;; esac
done
"""
# 83886179 is GPG_ERR_CANCELED of pinentry.
_CANCELS = _SILENT.replace("exec cat", "echo 'ERR 83886179 Operation cancelled <Pinentry>'")


@dataclass(frozen=True)
class SshKey:
    """A key pair; `public` is its line without a comment, `secret` the private file's text."""

    path: Path
    public: str
    fingerprint: str
    secret: str = field(repr=False)


def ssh_key(path: Path, *, passphrase: str = "", kind: str = "ed25519") -> SshKey:
    """A new key pair in `path` and `path`.pub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    argv = ("ssh-keygen", "-q", "-t", kind, "-a", "1", "-N", passphrase, "-C", EMAIL, "-f", str(path))
    subprocess.run(argv, check=True, capture_output=True, timeout=TIMEOUT_S)
    words = path.with_name(f"{path.name}.pub").read_text().split()
    shown = subprocess.run(
        ("ssh-keygen", "-lf", str(path)), check=True, capture_output=True, text=True, timeout=TIMEOUT_S
    ).stdout
    return SshKey(path, " ".join(words[:2]), shown.split()[1], path.read_text())


def allowed_signers(path: Path, *keys: SshKey, email: str = EMAIL) -> Path:
    """The file by which `git log --show-signature` knows signers (gpg.ssh.allowedSignersFile)."""
    path.write_text("".join(f"{email} {key.public}\n" for key in keys))
    return path


@contextmanager
def ssh_agent(*keys: SshKey, confirm: bool = False) -> Iterator[Path]:
    """The socket of an agent that holds these keys (without passphrase), each use to be confirmed on request."""
    with tempfile.TemporaryDirectory(prefix="sa-") as short:
        path = Path(short, "s")
        agent = subprocess.Popen(
            ("ssh-agent", "-D", "-a", str(path)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait_for(path, agent)
            for key in keys:
                argv = ("ssh-add", "-q", *(["-c"] if confirm else []), str(key.path))
                env = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": str(path)}
                subprocess.run(argv, env=env, check=True, capture_output=True, timeout=TIMEOUT_S)
            yield path
        finally:
            agent.terminate()
            agent.wait(10)


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        if path.exists():
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
            raise AssertionError(f"the agent ended with {process.returncode}")
    raise AssertionError("the agent does not listen")


@dataclass(frozen=True)
class GpgHome:
    """A GnuPG home with one secret key. `secret` is the exported private key (armored), to be looked for elsewhere."""

    home: Path
    fingerprint: str
    email: str
    secret: str = field(repr=False)
    passphrase: str = field(default="", repr=False)

    def env(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """`base` with this home, for a person's git and gpg."""
        return {"PATH": os.environ["PATH"], "LC_ALL": "C", **(base or {}), "GNUPGHOME": str(self.home)}

    def unlock(self) -> None:
        """Let the agent know the passphrase, as it does after a person has typed it."""
        said = self.run("gpg", "--list-secret-keys", "--with-keygrip", "--with-colons")
        for grip in re.findall(r"^grp:+([0-9A-F]{40}):", said, re.MULTILINE):
            self.run(_PRESET, "--preset", grip, stdin=self.passphrase)

    def lock(self) -> None:
        """Let the agent forget it."""
        self.run("gpgconf", "--reload", "gpg-agent")

    def run(self, *argv: str, stdin: str = "") -> str:
        done = subprocess.run(
            argv, env=self.env(), input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout


@contextmanager
def gpg_home(
    *, passphrase: str = "", pinentry: str = "cancels", expired: bool = False, email: str = EMAIL
) -> Iterator[GpgHome]:
    """A home with a new signing key, its agent gone afterwards.

    With a passphrase the key is locked until `unlock`. `pinentry` is what a locked key meets: one that `cancels` at
    once, or one that `hangs` because nobody sits there.
    """
    home = Path(tempfile.mkdtemp(prefix="gpg-"))  # short: the agent's socket is in it
    try:
        asks = home / "pinentry"
        asks.write_text({"cancels": _CANCELS, "hangs": _SILENT}[pinentry])
        asks.chmod(0o755)
        (home / "gpg-agent.conf").write_text(
            f"pinentry-program {asks}\nallow-preset-passphrase\ns2k-count 65536\n"
        )
        made = GpgHome(home, "", email, "", passphrase)
        made.run("gpg", *_batch(passphrase), *_past(expired), "--quick-generate-key", f"Ada <{email}>",
                 "ed25519", "sign", "1d" if expired else "never")  # fmt: skip
        listed = made.run("gpg", "--list-secret-keys", "--with-colons")
        fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        secret = made.run("gpg", *_batch(passphrase), "--armor", "--export-secret-keys", fingerprint)
        made.lock()
        yield GpgHome(home, fingerprint, email, secret, passphrase)
    finally:
        env = {"PATH": os.environ["PATH"], "GNUPGHOME": str(home)}
        subprocess.run(
            ("gpgconf", "--kill", "all"), env=env, capture_output=True, timeout=TIMEOUT_S, check=False
        )
        shutil.rmtree(home, ignore_errors=True)


def _batch(passphrase: str) -> tuple[str, ...]:
    return ("--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", passphrase)


def _past(expired: bool) -> tuple[str, ...]:
    return ("--faked-system-time", "20200101T000000!") if expired else ()
