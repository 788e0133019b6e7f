"""A person with everything that an agent would like to have: a forge account, keys that sign, a token for it all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.forge import READ, WRITE, Account, Forge, forge_server
from support.keys import GpgHome, SshKey, gpg_home, ssh_key
from support.material import Secret, gpg_secret, ssh_secret, text_secret
from support.product import Product, git, make_repo

PROJECT, SIBLING, RELEASED, STRANGERS = "team/app", "team/private", "team/released", "other/theirs"


@dataclass
class Person:
    """`repo` is their clone of `team/app` at the forge, where they may also read `team/private`."""

    product: Product
    repo: Path
    forge: Forge
    account: Account = field(repr=False)
    gpg: GpgHome = field(repr=False)
    key: SshKey = field(repr=False)

    @property
    def secrets(self) -> list[Secret]:
        """What must be found in no container, image, log or argument."""
        return [
            text_secret("the token of the forge", self.account.token),
            gpg_secret("the private key of GnuPG", self.gpg),
            ssh_secret("the private key of OpenSSH", self.key),
        ]

    def settings(self, text: str) -> None:
        """The person's own settings of the product."""
        path = self.product.home / ".config/coding-agents/config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@contextmanager
def person(product: Product, directory: Path) -> Iterator[Person]:
    """Their forge and their agents are gone afterwards."""
    home = product.home
    with forge_server(directory / "forge") as forge, gpg_home() as gpg:
        repo = make_repo(home / f"r{uuid.uuid4().hex[:8]}")
        for name in (PROJECT, SIBLING, RELEASED, STRANGERS):
            forge.host(name, source=repo)
        account = forge.account("ada", team__app=WRITE, team__private=READ, team__released=WRITE)
        forge.trust(home, account)
        key = ssh_key(home / ".ssh/id_ed25519")
        with (home / ".gitconfig").open("a") as handle:
            handle.write(
                f"[user]\n\tname = Ada\n\temail = {gpg.email}\n\tsigningKey = {gpg.fingerprint}\n"
                "[commit]\n\tgpgSign = true\n"
            )
        product.extra |= {"GNUPGHOME": str(gpg.home), "GIT_SSL_CAINFO": str(forge.ca)}
        # With the token in the address, as many have it.
        git(repo, "remote", "add", "origin", forge.url(PROJECT, user=f"{account.name}:{account.token}"))
        yield Person(product, repo, forge, account, gpg, key)
