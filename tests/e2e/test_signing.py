"""Commits of a real session, signed on this host: with the user's key, or with one that the session has for itself."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.engines import EngineUnderTest
from support.inside import Inside
from support.keys import gpg_home
from support.logins import put
from support.material import gpg_secret, text_secret
from support.product import Product

pytestmark = [pytest.mark.engine, pytest.mark.alike]

WORK = """
echo one > one && git add one && git commit -qm 'Add one'
git commit -q --amend -m 'Add one, said better'
git checkout -q -b side HEAD~1 && echo two > two && git add two && git commit -qm 'Add two'
git checkout -q - && git merge -q --no-edit side && git tag -s -m v1 v1
git for-each-ref --format='%(contents:signature)' refs/tags | grep .
git init -q /tmp/other && cd /tmp/other && git commit -q --allow-empty -m 'Of a test' && git cat-file commit HEAD
echo three > /workspace/three
"""
OTHER = r"tree \w+\nauthor Uma User <.*\ncommitter Uma User <.*\n\nOf a test\n"


@pytest.mark.parametrize("mode", ["user", "session"])
def test_commits_of_a_session_are_signed_and_verify_on_the_host(
    engine: EngineUnderTest, product: Product, repo: Path, tmp_path: Path, mode: str
) -> None:
    if engine.name != "docker":
        pytest.skip("on Docker only, to keep the run short")
    with ExitStack() as stack:
        secrets, settings = [], '[signing]\nmode = "session"\n'
        if mode == "user":
            home = stack.enter_context(gpg_home())
            product.extra["GNUPGHOME"] = str(home.home)
            said = f"[user]\n\tsigningKey = {home.fingerprint}\n[commit]\n\tgpgSign = true\n"
            put(product.home, ".gitconfig", said.encode())
            secrets, settings = [gpg_secret("key", home)], ""
        put(product.home, ".config/coding-agents/config.toml", settings.encode())
        told = product.launch(repo, "-d", "--", "sleep", "600").err
        whose = "your openpgp key" if mode == "user" else "a key of its own"
        assert f"commits signed with {whose}" in told
        (session,) = product.run("list", "--json").json
        name, branch = session["name"], session["branch"]
        if mode == "session":
            text = (product.session_dir(name) / "signing-key").read_text()
            secrets = [text_secret("key", text.splitlines()[2])]

        worked = product.exec(name, WORK, status=None)
        assert "a tag is signed by a person" in worked.err
        assert re.fullmatch(
            OTHER, worked.out
        )  # a repository that is not the session's own is nobody's business
        inside = Inside.of(product, name)
        assert [inside.find(one.value) for one in secrets] == [[]]
        product.run("stop", name)

        shown = _log(product, repo, branch, tmp_path)
        names = {line.partition("|")[2] for line in shown}
        assert names == {"Uma User <uma@example.invalid>|Uma User (Demo) <uma@example.invalid>|Demo"}
        # The last saves what was not committed; who works on does not wait for a key then.
        assert [line.partition("|")[0] for line in shown] == ["N", "G", "G", "G"]
        records = product.audit(name)
        (key,) = [one["subject"] for one in records if one["type"] == "signing-key"]
        signed = [one for one in records if one["type"] == "signed"]
        assert [(one["subject"], one["outcome"], one["tier"]) for one in signed] == [(key, "allowed", 2)] * 4
        assert [one["rule"] for one in records if one["type"] == "signing-refused"] == ["sign-tag"]
        product.run("remove", name)


def _log(product: Product, repo: Path, branch: str, tmp_path: Path) -> list[str]:
    """What git on the host says of the signature, and who and what stands there, of each commit of the branch."""
    form = "--format=%G?|%an <%ae>|%cn <%ce>|%(trailers:key=Agent,valueonly,separator=%x2C)"
    keys = [
        one["subject"]
        for one in product.audit(product.run("list", "-a", "--json").json[0]["name"])
        if one["type"] == "signing-key"
    ]
    (tmp_path / "allowed").write_text("".join(f"uma@example.invalid {key}\n" for key in keys))
    argv = ["git", "-c", f"gpg.ssh.allowedSignersFile={tmp_path}/allowed", "log", form, f"main..{branch}"]
    done = subprocess.run(
        argv, cwd=repo, env={**os.environ, **product.env}, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()
