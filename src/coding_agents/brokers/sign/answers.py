"""What gpg and ssh-keygen answered, read strictly. Pure.

Formats: armor of RFC 9580 section 6.2, `--status-fd` of GnuPG's doc/DETAILS, PROTOCOL.sshsig of OpenSSH.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

import msgspec

MAX_SIGNATURE = 32 * 1024
NAMESPACE = "git"
"""What signatures of ssh are for that git takes."""

_OPENPGP = re.compile(
    rb"-----BEGIN PGP SIGNATURE-----\n(?:[A-Za-z]+: [ -~]*\n)*\n(?:[A-Za-z0-9+/=]{1,76}\n)+"
    rb"-----END PGP SIGNATURE-----\n"
)
_SSH = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\n((?:[A-Za-z0-9+/=]{1,76}\n)+)-----END SSH SIGNATURE-----\n?"
)
_CREATED = re.compile(
    rb"^\[GNUPG:\] SIG_CREATED D \d+ \d+ [0-9a-fA-F]{2} \d+ ([0-9A-F]{40}|[0-9A-F]{64})$", re.MULTILINE
)
_HASHES = (b"sha512", b"sha256")
_LOCKED = (
    b"No pinentry", b"Bad passphrase", b"No passphrase given", b"Inappropriate ioctl", b"Operation cancelled",
    b"Timeout", b"incorrect passphrase", b"agent refused operation", b"communication with agent failed",
    b"Not confirmed", b"Bad PIN", b"No PIN given", b"Card removed",
)  # fmt: skip
_UNUSABLE = (
    b"Unusable secret key",
    b"Key expired",
    b"Key revoked",
    b"[GNUPG:] KEYEXPIRED",
    b"[GNUPG:] KEYREVOKED",
)
_MISSING = (
    b"No secret key", b"No public key", b"[GNUPG:] INV_SGNR", b"No such file or directory", b"Couldn't load",
    b"not found in agent", b"No private key found", b"agent contains no identities", b"no identities",
)  # fmt: skip


class AnswerError(ValueError):
    """What a helper printed is no signature by the key that was asked for; the message says why."""


class Signature(msgspec.Struct, frozen=True):
    """A signature as git keeps it, and whose it is: a fingerprint, or the SHA-256 of a public key."""

    armored: bytes
    key: str


def read_openpgp(output: bytes, status: bytes) -> Signature:
    """What gpg printed, with its status lines, which must say that it has signed. Raises AnswerError."""
    output = output.replace(b"\r\n", b"\n")
    if len(output) > MAX_SIGNATURE or _OPENPGP.fullmatch(output) is None:
        raise AnswerError("its answer is no signature")
    created = _CREATED.findall(status)
    if len(created) != 1:
        raise AnswerError("it does not say that it has made one signature")
    return Signature(output, created[0].decode("ascii"))


def read_ssh(output: bytes, *, key: str) -> Signature:
    """What ssh-keygen wrote: it must be by the public key `key` ("TYPE BASE64"), for NAMESPACE. Raises AnswerError."""
    output = output.replace(b"\r\n", b"\n")
    match = _SSH.fullmatch(output)
    if len(output) > MAX_SIGNATURE or match is None:
        raise AnswerError("its answer is no signature")
    wanted = key_blob(key)
    try:
        blob = base64.b64decode(match[1].replace(b"\n", b""), validate=True)
        version, (public, namespace, reserved, hashed, signed) = blob[:10], _strings(blob[10:])
    except ValueError as error:
        raise AnswerError("its answer is no signature") from error
    if version != b"SSHSIG\0\0\0\1" or reserved or hashed not in _HASHES or not signed:
        raise AnswerError("its answer is no signature of a kind that is known")
    if namespace != NAMESPACE.encode():
        raise AnswerError("it signed for something else than git")
    if public != wanted:
        raise AnswerError("it signed with another key")
    return Signature(output if output.endswith(b"\n") else output + b"\n", ssh_fingerprint(key))


def key_blob(key: str) -> bytes:
    """The bytes of a public key "TYPE BASE64". Raises AnswerError."""
    try:
        return base64.b64decode(key.split(" ")[1], validate=True)
    except (IndexError, binascii.Error, ValueError) as error:
        raise AnswerError("the public key is not one") from error


def ssh_fingerprint(key: str) -> str:
    """The fingerprint of a public key "TYPE BASE64", as `ssh-keygen -l` prints it. Raises AnswerError."""
    digest = hashlib.sha256(key_blob(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def why_not(said: bytes) -> str:
    """What kept a helper from signing, by its own words (in English): locked, unusable, missing or failed."""
    for reason, words in (("locked", _LOCKED), ("unusable", _UNUSABLE), ("missing", _MISSING)):
        if any(word in said for word in words):
            return reason
    return "failed"


def _strings(blob: bytes) -> list[bytes]:
    """The five strings (RFC 4251 section 5) that `blob` consists of. Raises ValueError."""
    found: list[bytes] = []
    while blob:
        length = int.from_bytes(blob[:4])
        if len(blob) < 4 + length or len(found) == 5:
            raise ValueError("cut off, or too long")
        found.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    if len(found) != 5:
        raise ValueError("too short")
    return found
