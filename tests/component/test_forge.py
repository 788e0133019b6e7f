"""The forge of the tests is a real one: git and ssh work with it, keys are keys, and a planted secret is found."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from support.forge import READ, WRITE, Forge, forge_server, user_env
from support.forge_tricks import chatter, garbage, redirect
from support.keys import allowed_signers, gpg_home, ssh_agent, ssh_key
from support.material import files_below, found_in, gpg_secret, ssh_secret, text_secret
from support.repos import commit, git_env, head, make_repo, sh, sh_fails
from support.sshd import ssh_forge


def _hosted(forge: Forge, tmp_path: Path) -> Path:
    env = git_env(tmp_path / "author")
    repo = make_repo(tmp_path / "repo", env=env)
    for name in ("team/app", "team/other"):
        forge.host(name, source=repo)
    return repo


def test_accounts_reach_what_is_theirs_by_https(tmp_path: Path) -> None:
    with forge_server(tmp_path / "forge") as forge:
        repo = _hosted(forge, tmp_path)
        ada = forge.account("ada", team__app=WRITE, team__other=READ)
        forge.trust(tmp_path / "ada", ada)
        env = dict(git_env(tmp_path / "ada"), GIT_TERMINAL_PROMPT="0")
        with (tmp_path / "ada/.gitconfig").open("a") as handle:
            handle.write("[user]\n\tname = Ada\n\temail = ada@example.test\n")
        new = commit(repo, "big", "x" * 3_000_000, env=env)  # more than http.postBuffer: it comes in chunks
        sh(repo, "push", "-q", forge.url("team/app"), "HEAD:refs/heads/topic", env=env)
        assert forge.refs("team/app")["refs/heads/topic"] == str(new)
        assert "403" in sh_fails(repo, "push", forge.url("team/other"), "HEAD:main", env=env)
        assert "Authentication failed" in sh_fails(
            repo, "ls-remote", forge.url("team/app", user="eve"), env=dict(env, GIT_ASKPASS="/bin/echo")
        )
        assert any(one.account == "ada" and one.secret == ada.token for one in forge.asked)
        assert ada.token not in repr(forge.accounts)


def test_a_bad_forge_answers_otherwise(tmp_path: Path) -> None:
    with forge_server(tmp_path / "forge") as forge:
        repo = _hosted(forge, tmp_path)
        forge.public.update({"team/app", "team/other"})
        forge.trust(tmp_path / "ada")
        env = user_env(tmp_path / "ada")
        forge.tricks["team/app"] = redirect(forge.url("team/other", host="evil.localhost"))
        assert sh(repo, "ls-remote", forge.url("team/app"), env=env)
        assert {one.host for one in forge.asked} == {"localhost", "evil.localhost"}
        forge.tricks["team/app"] = garbage
        sh_fails(repo, "ls-remote", forge.url("team/app"), env=env)
        del forge.tricks["team/app"]
        ada = forge.account("ada", team__app=WRITE)
        forge.trust(tmp_path / "ada", ada)
        forge.hook("team/app", "pre-receive", chatter(b"no\33[31m!\n", status=1))
        assert "no\33[31m!" in sh_fails(repo, "push", forge.url("team/app"), "HEAD:x", env=env)
        forge.many_refs("team/other", 5000)
        assert len(forge.refs("team/other")) == 5001


def test_keys_reach_what_is_theirs_by_ssh(tmp_path: Path) -> None:
    with forge_server(tmp_path / "forge") as forge, ssh_forge(tmp_path / "sshd", forge.root) as server:
        repo = _hosted(forge, tmp_path)
        key, other = ssh_key(tmp_path / "keys/ada"), ssh_key(tmp_path / "keys/eve")
        server.allow("ada", key, team__app=WRITE, team__other=READ)
        server.trust(tmp_path / "ada", key)
        env = user_env(tmp_path / "ada")
        sh(repo, "push", "-q", server.url("team/app"), "HEAD:refs/heads/topic", env=env)
        assert "refs/heads/topic" in sh(repo, "ls-remote", server.scp_like("team/app"), env=env)
        assert "not for ada" in sh_fails(repo, "push", server.url("team/other"), "HEAD:x", env=env)
        assert server.asked[0].startswith("ada git-receive-pack")
        server.trust(tmp_path / "eve", other)
        assert "Permission denied" in sh_fails(
            repo, "ls-remote", server.url("team/app"), env=user_env(tmp_path / "eve")
        )
        with ssh_agent(key) as agent:
            server.trust(tmp_path / "held", agent=agent)
            assert sh(repo, "ls-remote", server.url("team/app"), env=user_env(tmp_path / "held"))


def test_gpg_keys_sign_when_they_are_unlocked(tmp_path: Path) -> None:
    env = git_env(tmp_path / "home")
    repo = make_repo(tmp_path / "repo", env=env)
    with gpg_home(passphrase="correct horse") as gpg:
        env = gpg.env(env)
        words = ("commit", "-q", "--allow-empty", f"-S{gpg.fingerprint}", "-m")
        assert "failed to sign" in sh_fails(repo, *words, "locked", env=env)
        gpg.unlock()
        sh(repo, *words, "signed", env=env)
        assert (
            "VALIDSIG"
            in subprocess.run(
                ("git", "verify-commit", "--raw", "HEAD"),
                cwd=repo,
                env=env,
                capture_output=True,
                text=True,
                check=True,
            ).stderr
        )
        gpg.lock()
        sh_fails(repo, *words, "locked", env=env)
    assert not gpg.home.exists()


def test_an_expired_gpg_key_signs_nothing(tmp_path: Path) -> None:
    env = git_env(tmp_path / "home")
    repo = make_repo(tmp_path / "repo", env=env)
    with gpg_home(expired=True) as gpg:
        sh_fails(repo, "commit", "--allow-empty", f"-S{gpg.fingerprint}", "-m", "late", env=gpg.env(env))


def test_ssh_keys_sign(tmp_path: Path) -> None:
    env = git_env(tmp_path / "home")
    repo = make_repo(tmp_path / "repo", env=env)
    key = ssh_key(tmp_path / "key")
    signers = allowed_signers(tmp_path / "signers", key)
    options = (
        "-c",
        "gpg.format=ssh",
        "-c",
        f"user.signingKey={key.path}",
        "-c",
        f"gpg.ssh.allowedSignersFile={signers}",
    )
    sh(repo, *options, "commit", "-q", "-S", "--allow-empty", "-m", "signed", env=env)
    sh(repo, *options, "verify-commit", "HEAD", env=env)


@pytest.mark.parametrize("spelling", ["plain", "hex", "base64", "wrapped", "object"])
def test_a_planted_secret_is_found(tmp_path: Path, spelling: str) -> None:
    key = ssh_key(tmp_path / "key")
    with gpg_home() as gpg:
        armored = gpg.secret.encode()
        secrets = [
            ssh_secret("the ssh key", key),
            gpg_secret("the gpg key", gpg),
            text_secret("a token", "tok-0123456789ab"),
        ]
    places = {
        "plain": b"..".join(one.value for one in secrets),
        "hex": b" ".join(one.value.hex().upper().encode() for one in secrets),
        "base64": b"..".join(base64.b64encode(b"user:" + one.value + b"more") for one in secrets),
        "wrapped": key.secret.encode()
        + armored
        + base64.encodebytes(b"x" * 40 + secrets[2].value + b"y" * 9),
        "object": b"",
    }
    if spelling == "object":
        env = git_env(tmp_path / "home")
        repo = make_repo(tmp_path / "repo", env=env)
        commit(repo, "note", key.secret + armored.decode() + "tok-0123456789ab", env=env)
        (repo / "note").unlink()
        head(repo, env=env)
        found = found_in(files_below(repo), secrets)
    else:
        found = found_in({"there": places[spelling]}, secrets)
    assert {hit.partition(" is in ")[0] for hit in found} == {one.name for one in secrets}
    public = {"public": key.public.encode() + key.fingerprint.encode()}
    assert found_in(public, secrets) == []
