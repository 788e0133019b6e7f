"""Whom the supervisor's brokers believe: the authorities of this host, its user's own among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


def host_tls(environ: Mapping[str, str]) -> ssl.SSLContext:
    """A client's TLS context; `environ` may name more certificates. Loads ssl, which a supervisor else leaves out."""
    from coding_agents.brokers.http.tls import tls_context
    from coding_agents.images.hostnet import host_certificates

    return tls_context(host_certificates(environ))
