"""Secrets at rest, encrypted for the user's age identity by `pyrage` where it is installed, else by age(1).

Each is an age file of its own, in armor, so that age itself can open what we wrote.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coding_agents.credentials.private import read_private
from coding_agents.errors import CredentialError, ProgramNotFoundError
from coding_agents.model.masked import Masked
from coding_agents.proc.runner import Command, run

_TIMEOUT_S = 60.0
_X25519 = re.compile(r"^AGE-SECRET-KEY-1[0-9A-Z]+$", re.MULTILINE)


class Sealer(Masked, frozen=True):
    """Encrypts for, and decrypts with, the identity in one file."""

    MASKED = frozenset({"environ"})

    identity: Path
    environ: Mapping[str, str]
    home: Path

    def seal(self, text: str) -> str:
        """`text` as an armored age file. Raises CredentialError."""
        library, identities = self._identities()
        if identities:
            recipients = [identity.to_public() for identity in identities]
            sealed: bytes = library.encrypt(text.encode(), recipients, armored=True)
            return sealed.decode("ascii")
        return self._age(("--encrypt", "--armor"), text.encode()).decode("ascii", "replace")

    def open(self, sealed: str) -> str:
        """What `seal` was given. Raises CredentialError."""
        library, identities = self._identities()
        if identities:
            try:
                opened: bytes = library.decrypt(sealed.encode(), identities)
            except library.DecryptError as error:
                raise self._refused() from error
            return opened.decode()
        return self._age(("--decrypt",), sealed.encode()).decode("utf-8", "replace")

    def _identities(self) -> tuple[Any, list[Any]]:
        """pyrage and the identities that it takes as they are; age(1) knows more kinds, as on hardware."""
        library = _library()
        if library is None:
            return None, []
        keys = _X25519.findall(self._read().decode("utf-8", "replace"))
        try:
            return library, [library.x25519.Identity.from_str(key) for key in keys]
        except library.IdentityError:
            raise self._refused() from None  # the cause may hold the key

    def _read(self) -> bytes:
        try:
            return read_private(self.identity, home=self.home, follow=True)
        except FileNotFoundError as error:
            raise CredentialError(
                f"there is no age identity at {self.identity}",
                hint="Make one with `age-keygen -o FILE`, and name it: "
                "`coding-agents config set secrets.age_identity FILE`.",
            ) from error

    def _age(self, words: tuple[str, ...], data: bytes) -> bytes:
        self._read()  # refuses one that others can read
        argv = ("age", *words, "-i", str(self.identity))
        try:
            outcome = run(Command(argv, env=dict(self.environ), stdin=data, timeout_s=_TIMEOUT_S))
        except ProgramNotFoundError as error:
            raise CredentialError(
                "neither age nor pyrage is installed, which secrets.age_identity needs",
                hint="Install age, or pyrage beside coding-agents.",
            ) from error
        if not outcome.ok:
            raise self._refused()
        return outcome.stdout

    def _refused(self) -> CredentialError:
        return CredentialError(
            f"age does not open or make a secret with the identity {self.identity}",
            hint="Name the identity that it was encrypted for in secrets.age_identity, or set the secret anew.",
        )


def _library() -> Any:
    try:
        return importlib.import_module("pyrage")
    except ImportError:
        return None


class Kept(Masked, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A secret as it is kept: its text, the same encrypted, or the command that prints it; and since when."""

    MASKED = frozenset({"text", "sealed", "argv"})

    set_ms: int
    text: str = ""
    sealed: str = ""
    argv: tuple[str, ...] = ()

    @property
    def provider(self) -> str:
        """For people: where the secret is."""
        if self.argv:
            return f"exec {Path(self.argv[0]).name}"
        return "age" if self.sealed else "file"


def keep(text: str, sealer: Sealer | None, *, now_ms: int) -> Kept:
    """A secret, encrypted where the user has an age identity. Raises CredentialError."""
    if sealer is None:
        return Kept(set_ms=now_ms, text=text)
    return Kept(set_ms=now_ms, sealed=sealer.seal(text))


def opened(kept: Kept, sealer: Sealer | None, *, what: str) -> str:
    """The text of a secret that is kept here, not by a program. Raises CredentialError."""
    if not kept.sealed:
        return kept.text
    if sealer is None:
        raise CredentialError(
            f"{what} is encrypted with age, and no identity is named",
            hint="`coding-agents config set secrets.age_identity FILE`, or set it anew.",
        )
    return sealer.open(kept.sealed)
