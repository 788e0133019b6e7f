"""What a session has of its user's own credentials: what their settings name, told and recorded, and nothing else."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from support.engines import EngineUnderTest
from support.inside import Inside
from support.keys import ssh_agent, ssh_key
from support.logins import put
from support.material import files_below, found_in, ssh_secret, text_secret
from support.product import Product, git

pytestmark = [pytest.mark.engine, pytest.mark.alike]

TOKEN, OTHER, GH = (f"{name}-{secrets.token_hex(12)}" for name in ("t0k3n", "oth3r", "ghh0st"))
ASK = "printf 'protocol=https\\nhost=git.example\\npath=%s\\n' {} | GIT_TERMINAL_PROMPT=0 git credential fill"
GITCONFIG = """[user]
	name = Ada
	email = ada@example.test
[alias]
	hi = log --oneline
	no = !id
[credential]
	helper = store --file={home}/.git-credentials
[core]
	sshCommand = ssh -i {home}/.ssh/id
"""


def test_a_session_has_what_settings_name_and_nothing_else(
    engine: EngineUnderTest, product: Product, repo: Path, tmp_path: Path
) -> None:
    if engine.name != "docker":
        pytest.skip("on Docker only, to keep the run short")
    git(repo, "remote", "add", "origin", "https://git.example/team/app.git")
    mine, other, host = (ssh_key(tmp_path / f"keys/{name}") for name in ("mine", "other", "host"))
    stored = f"https://me:{TOKEN}@git.example/team/tools.git\nhttps://me:{OTHER}@git.example\n"
    put(product.home, ".git-credentials", stored.encode())
    put(
        product.home,
        ".gitconfig",
        GITCONFIG.format(home=product.home).encode() + b"[credential]\n\tuseHttpPath = true\n",
    )
    put(product.home, ".config/gh/hosts.yml", f"git.example:\n    oauth_token: {GH}\n".encode())
    put(product.home, ".ssh/known_hosts", f"git.example {host.public}\n".encode())
    put(
        product.home,
        ".config/coding-agents/config.toml",
        f'[credentials]\nrelease = ["https://git.example/team/tools"]\nfiles = ["gh"]\n'
        f'ssh_agent = ["{mine.fingerprint} git.example"]\n'.encode(),
    )
    with ssh_agent(mine, other) as agent:
        product.extra["SSH_AUTH_SOCK"] = str(agent)
        told = product.launch(repo, "-d", "--", "sleep", "600").err
        given = next(line for line in told.splitlines() if "given  " in line)
        assert "https://git.example/team/tools, which the agent can read and take away" in given
        assert "your gh, which the agent can read" in given
        assert "logins with your ssh-agent at git.example" in given
        name = product.run("list", "--json").json[0]["name"]

        records = product.audit(name)
        kinds = [one["type"] for one in records]
        assert kinds.index("auth-files-given") < kinds.index("gate-opened")
        inside = Inside.of(product, name)
        looked_for = [text_secret("token", TOKEN), text_secret("other token", OTHER), text_secret("gh", GH),
                      ssh_secret("key", mine), ssh_secret("other key", other)]  # fmt: skip
        assert [inside.find(one.value) for one in looked_for[:2]] == [[], []]
        engines = engine_places(product, name)
        assert found_in(engines, looked_for) == []

        assert f"password={TOKEN}" in product.exec(name, ASK.format("team/tools.git")).out
        own = product.exec(name, ASK.format("team/app")).out
        assert "username=coding-agents\npassword=coding-agents-session-" in own
        for path in ("team/other", "team/tools-more", "team"):
            refused = product.exec(name, ASK.format(path), status=128)
            assert refused.out == ""
            assert "no credential: this place is not in the user's setting credentials.release" in refused.err
        clean = product.exec(name, f"{ASK.format('team/tools.git')} | git credential approve; echo done")
        assert (clean.out, clean.err) == ("done\n", "")

        listed = product.exec(name, "ssh-add -l").out
        assert mine.fingerprint in listed
        assert other.fingerprint not in listed
        product.exec(name, "ssh-add -D", status=1)
        assert product.exec(name, "cat ~/.ssh/known_hosts").out == f"git.example {host.public}\n"

        assert GH in product.exec(name, "cat ~/.config/gh/hosts.yml").out
        product.exec(name, "echo x > ~/.config/gh/hosts.yml", status=None)
        assert GH in product.exec(name, "cat ~/.config/gh/hosts.yml").out
        config = product.exec(name, "git config --global --list").out
        assert sorted(config.splitlines()) == [
            "alias.hi=log --oneline",
            "user.email=ada@example.test",
            "user.name=Ada",
        ]

        records = product.audit(name)
        released = [
            (one["subject"].rpartition("/")[2], one["tier"])
            for one in records
            if one["type"] == "credential-released"
        ]
        assert released[:2] == [("tools.git", 3), ("app", 2)]
        assert "credential-refused" in {one["type"] for one in records}
        assert "ssh-agent-refused" in {one["type"] for one in records}
        assert found_in(files_below(product.session_dir(name)), looked_for) == []

        put(product.home, ".config/coding-agents/config.toml", b"")
        assert "no credential" in product.exec(name, ASK.format("team/tools.git"), status=128).err
        product.run("remove", "--force", name)


def engine_places(product: Product, name: str) -> dict[str, bytes]:
    """What the engine tells of a session to whoever may ask it, and its images' layers' history."""
    image = product.session(name)["image_id"]
    words = {
        "inspect": ("inspect", name),
        "logs": ("logs", name),
        "history": ("history", "--no-trunc", image),
    }
    return {place: product.engine_run(*argv, check=False).encode() for place, argv in words.items()}
