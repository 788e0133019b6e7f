"""What may be a secret: one line of text, and for a credential only what a header can carry.

No message holds the value, or a part of it.
"""

from __future__ import annotations

from coding_agents.errors import CredentialError

MAX_BYTES = 16 * 1024
"""Bytes of one secret. The longest tokens that are known (JWTs of organisations) have some 4 KiB."""


def secret_text(data: bytes, *, source: str) -> str:
    """The secret in what was typed, read or printed: one line, its newline taken off. Raises CredentialError."""
    text = _decoded(data.removesuffix(b"\n").removesuffix(b"\r"), source)
    if not text:
        raise CredentialError(f"{source} is empty", hint="Give the secret itself, on one line.")
    if not text.isprintable():
        why = "more than one line" if "\n" in text else "characters that cannot be printed"
        raise CredentialError(f"{source} has {why}", hint="A secret is one line of text.")
    return text


def require_credential(text: str, *, source: str) -> str:
    """`text`, when a header can carry it and nothing else with it. Raises CredentialError."""
    if not text or len(text) > MAX_BYTES or not text.isascii() or not text.isprintable() or " " in text:
        raise CredentialError(
            f"{source} is no credential: it is empty, too long, or holds what no header may",
            hint="A credential is one word of printable ASCII characters: give the key or token alone.",
        )
    return text


def _decoded(data: bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise CredentialError(
            f"{source} is longer than {MAX_BYTES >> 10} KiB", hint="Give the secret itself, on one line."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        # without the cause: it holds the bytes
        raise CredentialError(f"{source} is not UTF-8 text", hint="A secret is one line of text.") from None
