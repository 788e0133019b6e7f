"""Commits signed by real gpg and ssh-keygen, and helpers that are locked, slow, missing or lie."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents.brokers.sign import signer as module
from coding_agents.brokers.sign.config import read_config
from coding_agents.brokers.sign.signer import find_signer, sign_commit, sign_payload
from coding_agents.errors import CodingAgentsError, ProgramNotFoundError, SigningError
from coding_agents.model.signing import SigningConfig
from support.keys import GpgHome, allowed_signers, gpg_home, ssh_agent, ssh_key
from support.repos import git_env, make_repo, sh


@pytest.fixture(scope="module")
def gnupg() -> Iterator[GpgHome]:
    with gpg_home() as home:
        yield home


class Place:
    """A user's repository, and their own git configuration."""

    def __init__(self, tmp_path: Path) -> None:
        self.env = git_env(tmp_path / "home")
        self.repo = make_repo(tmp_path / "repo", env=self.env)
        self.git_dir = self.repo / ".git"

    def say(self, **values: str) -> None:
        for key, value in values.items():
            sh(self.repo, "config", "--global", key.replace("_", "."), value, env=self.env)

    def payload(self) -> bytes:
        text = sh(self.repo, "cat-file", "commit", "HEAD", env=self.env)
        return (text + "\n").encode()

    def signed(self, commit: bytes) -> str:
        argv = ["git", "hash-object", "-w", "-t", "commit", "--stdin"]
        done = subprocess.run(
            argv, cwd=self.repo, env=self.env, input=commit, capture_output=True, check=True
        )
        return done.stdout.decode().strip()

    def verify(self, commit: str) -> str:
        done = subprocess.run(
            ["git", "verify-commit", "--raw", commit],
            cwd=self.repo,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_commit_is_signed_by_gpg_and_git_verifies_it(place: Place, gnupg: GpgHome) -> None:
    place.env["GNUPGHOME"] = str(gnupg.home)
    place.say(commit_gpgsign="true")  # no key named: the user's name and address, as git does
    signer = find_signer(place.env, place.git_dir, None)
    assert signer is not None
    assert signer.key == "Ada <ada@example.test>"
    commit = place.signed(sign_commit(place.payload(), signer))
    assert "GOODSIG" in place.verify(commit)
    assert "Good signature" in sh(place.repo, "log", "-1", "--show-signature", commit, env=place.env)


@pytest.mark.parametrize("named", ["file", "public file", "literal with agent"])
def test_a_commit_is_signed_by_ssh_and_git_verifies_it(place: Place, tmp_path: Path, named: str) -> None:
    key = ssh_key(tmp_path / "id")
    names = {"file": f"{tmp_path}/id", "public file": f"{tmp_path}/id.pub"}
    place.say(commit_gpgsign="true", gpg_format="ssh", user_signingkey=names.get(named, f"key::{key.public}"))
    allowed = allowed_signers(tmp_path / "allowed", key)
    sh(place.repo, "config", "--global", "gpg.ssh.allowedSignersFile", str(allowed), env=place.env)
    with ssh_agent(key) as agent:
        if named == "literal with agent":
            place.env["SSH_AUTH_SOCK"] = str(agent)
            key.path.unlink()
            key.path.with_name("id.pub").unlink()
        signer = find_signer(place.env, place.git_dir, None)
        assert signer is not None
        assert signer.shown == key.public
        commit = place.signed(sign_commit(place.payload(), signer))
    assert 'Good "git" signature for ada@example.test' in place.verify(commit)


def test_who_does_not_sign_has_no_signer(place: Place) -> None:
    place.say(user_signingkey="ABCD")
    assert find_signer(place.env, place.git_dir, None) is None


def test_a_repository_names_no_program_that_runs_here(place: Place, tmp_path: Path) -> None:
    place.say(commit_gpgsign="true", user_signingkey="ABCD")
    trap = _program(tmp_path / "trap", f"touch {tmp_path}/sprung")
    for key in ("gpg.program", "gpg.openpgp.program", "gpg.ssh.program"):
        sh(place.repo, "config", "--local", key, str(trap), env=place.env)
    assert read_config(place.env, place.git_dir, None) == SigningConfig(
        "openpgp", "ABCD", "gpg", signs=True, name="Ada", email="ada@example.test"
    )
    signer = find_signer(place.env, place.git_dir, None)
    assert signer is not None
    with pytest.raises(CodingAgentsError):
        sign_commit(place.payload(), signer)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("pinentry", ["cancels", "hangs"])
def test_locked_keys_are_told_at_once_and_ask_nobody(place: Place, tmp_path: Path, pinentry: str) -> None:
    with gpg_home(passphrase="secret", pinentry=pinentry) as home:
        place.env["GNUPGHOME"] = str(home.home)
        place.say(commit_gpgsign="true")
        _locked(place)
        home.unlock()
        signer = find_signer(place.env, place.git_dir, None)
        assert signer is not None
        assert sign_payload(b"x", signer).key == home.fingerprint
    ssh_key(tmp_path / "id", passphrase="secret")
    place.say(gpg_format="ssh", user_signingkey=f"{tmp_path}/id")
    place.env["SSH_ASKPASS"] = str(_program(tmp_path / "ask", f"touch {tmp_path}/asked; echo secret"))
    place.env["DISPLAY"] = ":0"
    _locked(place)
    assert not (tmp_path / "asked").exists()


def _locked(place: Place) -> None:
    signer = find_signer(place.env, place.git_dir, None)
    assert signer is not None
    with pytest.raises(SigningError, match="the key is locked") as caught:
        sign_commit(place.payload(), signer)
    assert "Unlock it on the host" in caught.value.hint


def test_a_key_that_is_missing_or_expired_is_told_as_that(place: Place, gnupg: GpgHome) -> None:
    place.env["GNUPGHOME"] = str(gnupg.home)
    place.say(commit_gpgsign="true", user_signingkey="nobody@example.test")
    _fails(place, "the key is not there")
    with gpg_home(expired=True) as home:
        place.env["GNUPGHOME"] = str(home.home)
        place.say(user_signingkey=home.fingerprint)
        _fails(place, "the key has expired, was revoked")


def _fails(place: Place, said: str) -> None:
    signer = find_signer(place.env, place.git_dir, None)
    assert signer is not None
    with pytest.raises(SigningError, match=said):
        sign_commit(place.payload(), signer)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exec sleep 60", "took too long"),
        (
            "echo garbage; echo '[GNUPG:] SIG_CREATED D 1 8 00 1 '" + "A" * 40 + " >&2",
            "its answer is no signature",
        ),
        ("exit 0", "its answer is no signature"),
        ("yes | head -c 3000000", "its answer is no signature"),
        ("echo boom >&2; exit 3", "the program that signs failed"),
        ("kill -9 $$", "the program that signs failed"),
    ],
)
def test_helpers_that_hang_or_lie(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    place.say(
        commit_gpgsign="true", user_signingkey="ABCD", gpg_program=str(_program(tmp_path / "gpg", script))
    )
    signer = find_signer(place.env, place.git_dir, None)
    assert signer is not None
    with pytest.raises(SigningError, match=said):
        sign_payload(b"x", signer)


def test_a_helper_that_signs_with_another_key_is_not_believed(place: Place, tmp_path: Path) -> None:
    ssh_key(tmp_path / "id")
    ssh_key(tmp_path / "other")
    script = f'for word; do last=$word; done; exec ssh-keygen -q -Y sign -n git -f {tmp_path}/other "$last"'
    place.say(commit_gpgsign="true", gpg_format="ssh", user_signingkey=f"{tmp_path}/id")
    sh(
        place.repo,
        "config",
        "--global",
        "gpg.ssh.program",
        str(_program(tmp_path / "x", script)),
        env=place.env,
    )
    signer = find_signer(place.env, place.git_dir, None)
    assert signer is not None
    with pytest.raises(SigningError, match="it signed with another key"):
        sign_payload(b"x", signer)


def test_what_git_names_must_be_a_key(place: Place, tmp_path: Path) -> None:
    place.say(commit_gpgsign="true", gpg_format="ssh")
    for key, said in (
        ("", "names no key"),
        ("-oProxyCommand=x", "names no key"),
        (f"{tmp_path}/none", "cannot be read"),
        ("key::ssh-ed25519 AAA", "no public key"),
    ):
        place.say(user_signingkey=key)
        with pytest.raises(SigningError, match=said):
            find_signer(place.env, place.git_dir, None)
    place.say(gpg_format="x509", user_signingkey="x")
    with pytest.raises(SigningError, match="kind of signature"):
        find_signer(place.env, place.git_dir, None)
    place.say(gpg_format="openpgp", gpg_program=f"{tmp_path}/gone")
    signer = find_signer(place.env, place.git_dir, None)
    assert signer is not None
    with pytest.raises(ProgramNotFoundError):
        sign_payload(b"x", signer)


def _program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
