"""How programs inside are told of the session's proxy. Pure."""

from __future__ import annotations

from typing import Final

from coding_agents_guest.egress.paths import PROXY_PORT

_HOST = "127.0.0.1"
_PROXY = f"http://{_HOST}:{PROXY_PORT}"
_HERE = "localhost,127.0.0.1,::1"
_JAVA = " ".join(f"-D{kind}.proxyHost={_HOST} -D{kind}.proxyPort={PROXY_PORT}" for kind in ("http", "https"))

PROXY_ENVIRONMENT: Final = (
    ("http_proxy", _PROXY),
    ("https_proxy", _PROXY),
    ("no_proxy", _HERE),
    ("HTTP_PROXY", _PROXY),
    ("HTTPS_PROXY", _PROXY),
    ("NO_PROXY", _HERE),
    ("NODE_USE_ENV_PROXY", "1"),  # Node's own fetch, since 22.21 and 24.5
    ("JAVA_TOOL_OPTIONS", _JAVA),
)
"""Both spellings of each: programs differ in which they read."""
