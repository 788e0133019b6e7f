"""The host's program in the proxy's container, run on a socket of a test's own."""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

from support.product import ROOT

_CLIENT = (
    "import sys\nfrom pathlib import Path\nfrom coding_agents_guest.egress import link_client\n"
    "link_client.LINK = Path(sys.argv[1])\nsys.exit(link_client.main([]))\n"
)


def link_client(path: Path) -> tuple[str, ...]:
    """The argv of what carries lines between its standard streams and the socket `path`."""
    return (
        sys.executable,
        "-c",
        f"import sys\nsys.path.insert(0, {str(ROOT / 'src')!r})\n{_CLIENT}",
        str(path),
    )


def uid_of(connection: socket.socket) -> int:
    """`peer_uid` for tests that stand at both ends: the product takes a peer that is itself for gVisor's answer."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("iII", told)[1])
