"""How this host reaches the outside, for builder stages only: its own root certificates and its proxies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

LOCAL_CA_DIR = Path("/usr/local/share/ca-certificates")
"""Where Debian's update-ca-certificates(8) takes a machine's own roots from."""

_CA_VARIABLES = (
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
)
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----\s.+?-----END CERTIFICATE-----", re.DOTALL)
_MAX_BYTES = 8 << 20


def host_certificates(environment: Mapping[str, str], local_dir: Path = LOCAL_CA_DIR) -> bytes:
    """PEM of the roots that this host trusts beside its distribution's; empty where it has none.

    Certificates alone are taken out of the files, never a key that somebody keeps beside them.
    """
    paths = sorted(local_dir.glob("**/*.crt")) if local_dir.is_dir() else []
    paths += [Path(environment[name]) for name in _CA_VARIABLES if environment.get(name)]
    found: dict[bytes, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_CERTIFICATE.findall(_read(path))))
    return b"".join(certificate + b"\n" for certificate in found)


def proxy_arguments(environment: Mapping[str, str]) -> dict[str, str]:
    """Build arguments for the host's proxies. Engines predefine these: no image or history keeps them."""
    found: dict[str, str] = {}
    for name in _PROXIES:
        value = environment.get(name) or environment.get(name.lower())
        if value:
            found |= {name: value, name.lower(): value}
    return found


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError:
        return (
            b""  # a variable that names a missing file is the user's own business: nothing is trusted by it
        )
