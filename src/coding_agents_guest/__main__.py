"""The commands of guest.pyz. Each is imported when it is called: start-up time is the agent's time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from coding_agents_guest import __version__

_MODULES = {
    "bridge": "coding_agents_guest.bridge",
    "dial": "coding_agents_guest.dial",
    "egress-link": "coding_agents_guest.egress.link_client",
    "entrypoint": "coding_agents_guest.entrypoint",
    "hangup": "coding_agents_guest.hangup",
    "holder": "coding_agents_guest.holder",
    "mcp": "coding_agents_guest.mcp_client",
    "mcp-server": "coding_agents_guest.mcp_server",
    "probe": "coding_agents_guest.probe",
    "proxy": "coding_agents_guest.egress.program",
    "salvage": "coding_agents_guest.salvage_process",
    "why": "coding_agents_guest.egress.why",
}


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit status, 2 for an unknown one."""
    if list(arguments) == ["version"]:
        print(__version__)
        return 0
    if not arguments or arguments[0] not in _MODULES:
        print(f"usage: guest.pyz {{{','.join([*_MODULES, 'version'])}}}", file=sys.stderr)
        return 2
    return int(import_module(_MODULES[arguments[0]]).main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
