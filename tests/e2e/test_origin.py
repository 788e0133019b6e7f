"""Origin from inside a real session: no network, no credential, and a person's word before anything is pushed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.forge import forge_server
from support.product import Product, git, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.alike]

_APP = "team/app"
_COMMIT = "echo work > work && git add work && git commit -qm 'Do the work'"


def test_origin_without_network_or_credential(product: Product, repo: Path, tmp_path: Path) -> None:
    with forge_server(tmp_path / "forge") as forge:
        forge.host(_APP, source=repo)
        git(repo, "branch", "topic")
        git(repo, "push", "-q", str(forge.path(_APP)), "topic")
        ada = forge.account("ada", team__app="write")
        forge.trust(product.home, ada)
        product.extra["GIT_SSL_CAINFO"] = str(
            forge.ca
        )  # a variable of this machine's would win over the file
        git(repo, "remote", "add", "origin", forge.url(_APP))
        config = product.home / ".config/coding-agents/config.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text("[origin]\nwait = 60\n")

        def waiting() -> Any:
            return product.run("approvals", "list", "--json").json

        name = product.launch_detached(repo, "sleep 600")
        assert product.exec(name, "git config remote.origin.url").out.strip() == forge.url(_APP)
        product.exec(name, "git fetch -q origin && git rev-parse -q --verify origin/topic")
        product.exec(name, _COMMIT)
        pushing = product.start("exec", name, "--", "git", "push", "origin", "HEAD:from-agent")
        (asked,) = wait_for(waiting, "the push to be asked about")
        assert (asked["ref"], asked["old"], asked["state"]) == ("refs/heads/from-agent", "", "pending")
        assert "Do the work" in product.run("approvals", "show", asked["id"][:4]).out
        assert "refs/heads/from-agent" not in forge.refs(_APP)
        assert "add -y" in product.run("approvals", "approve", asked["id"], status=2).err
        product.run("approvals", "approve", asked["id"], "-y")
        out, err = pushing.communicate(timeout=60)
        assert pushing.returncode == 0, out + err
        assert forge.refs(_APP)["refs/heads/from-agent"] == asked["new"]
        inside = product.exec(
            name, "git config --list --show-origin; cat /run/coding-agents/gitconfig; env"
        ).out
        assert forge.url(_APP) in inside
        assert ada.token not in inside
        product.run("remove", "--force", name)

        config.write_text("[origin]\nwait = 0\n")
        script = f"{_COMMIT} && git push -q origin HEAD && ! git push origin HEAD:other"
        told = product.launch(repo, "-b", "two", "--allow-origin-push", "--", "sh", "-c", script).err
        assert "goes to origin unasked" in told
        assert "refs/heads/demo/two" in forge.refs(_APP)
        (asked,) = waiting()
        product.run("approvals", "approve", asked["id"], "-y")  # when the session has ended long ago
        assert forge.refs(_APP)["refs/heads/other"] == forge.refs(_APP)["refs/heads/demo/two"] == asked["new"]
        assert forge.secrets_seen() == {ada.token}
