"""What npm, pip and our builds of packages say when they fail, in words for people. Pure; their text is hostile."""

from __future__ import annotations

import re

from coding_agents.errors import McpError
from coding_agents.mcp.locked import Lock
from coding_agents.mcp.runners import Runner

MARK = "coding-agents-mcp:"
"""What a line of images/mcp/fetch/install.py begins with that says why it failed."""

_NETWORK = re.compile(
    r"EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT|"
    r"NewConnectionError|name resolution|ConnectTimeout|Network is unreachable|ProxyError|ReadTimeoutError"
)
_CERTIFICATE = re.compile(r"SELF_SIGNED|UNABLE_TO_|CERT_|certificate verify failed|SSLError")
_NO_MATCH = re.compile(r"No matching distribution found for ([^\n]{1,150})")
_NO_WHEEL = re.compile(r"No sources permitted|none of the wheel's tags")
_OTHER_PYTHON = re.compile(
    r"requires? a different python version|requires a different Python|requires-python", re.I
)
_NPM_CODE = re.compile(r'"code": "([A-Z0-9_]{1,40})"')
_NPM_SUMMARY = re.compile(r'"summary": "([^"\n]{1,300})')

_OTHER_VERSION = "Look at what the index has, and name a version in the server's definition."


def index_failure(runner: Runner, said: str) -> McpError:
    """Why the packages of `runner` could not be pinned, from what npm or pip said."""
    asked, where = runner.asked, "npm's registry" if runner.index == "npm" else "the Python index"
    if _CERTIFICATE.search(said):
        hint = (
            "Put your network's root certificate into /usr/local/share/ca-certificates, or set SSL_CERT_FILE."
        )
        return McpError(f"{where} shows a certificate that is not trusted: {asked} is not pinned", hint=hint)
    if _NETWORK.search(said):
        hint = (
            "Packages are fetched when a server is trusted: try again with a network, and check HTTPS_PROXY."
        )
        return McpError(f"{where} cannot be reached: {asked} is not pinned", hint=hint)
    return _npm_failure(asked, said) if runner.index == "npm" else _pip_failure(asked, said)


def _npm_failure(asked: str, said: str) -> McpError:
    code, summary = (found[1] if (found := one.search(said)) else "" for one in (_NPM_CODE, _NPM_SUMMARY))
    if code == "E404":
        return McpError(f"npm's registry has no package {_named(summary) or asked}", hint="Check its name.")
    if code == "ETARGET":
        return McpError(
            f"npm's registry has no such version: {_named(summary) or asked}", hint=_OTHER_VERSION
        )
    return McpError(f"npm cannot tell what {asked} needs: {_line(f'{code} {summary}')}", hint=_OTHER_VERSION)


def _named(summary: str) -> str:
    """The package that npm's words name."""
    found = re.search(r"'([^'\s]{1,200})'|found for ([^\s]{1,200})", summary)
    return _line(next(name for name in found.groups() if name).rstrip(".")) if found else ""


def _pip_failure(asked: str, said: str) -> McpError:
    match = _NO_MATCH.search(said)
    name = _line(match[1]) if match else asked
    if re.search(r"from versions: (?!none)", said):
        return McpError(f"the Python index has no such version for Python 3.11: {name}", hint=_OTHER_VERSION)
    if _OTHER_PYTHON.search(said):
        hint = "Ask for a version for Python 3.11, which is that of our images."
        return McpError(f"{name} has no version for Python 3.11", hint=hint)
    if _NO_WHEEL.search(said):
        hint = "Only wheels are installed, since all else runs code of the package: ask for a version that has one."
        return McpError(f"{name} has no wheel for our images", hint=hint)
    if match:
        return McpError(f"the Python index has no package {name}", hint="Check its name.")
    errors = [line for line in said.splitlines() if line.lstrip().startswith("ERROR")]
    return McpError(f"pip cannot tell what {asked} needs: {_line(' '.join(errors))}", hint=_OTHER_VERSION)


def build_failure(lock: Lock, log: str) -> McpError | None:
    """Why an image of `lock` could not be built, from the build's log; None when it does not say so."""
    line = next((one.partition(MARK)[2] for one in log.splitlines() if f"{MARK} " in one), "")
    kind, _, text = line.strip().partition(": ")
    text, what = _line(text), f"{lock.name} {lock.version}"
    match kind:
        case "integrity":
            return McpError(
                f"the index has other bytes than those that were pinned: {text or 'a package'} (for {what})",
                hint="Do not trust them: somebody has replaced a version that was published. Ask its maintainers.",
            )
        case "program" | "archive" | "size":
            return McpError(f"the packages of {what} cannot be installed: {text}", hint=_OTHER_VERSION)
        case "machine":
            hint = "Trust the server again on this engine: `coding-agents mcp trust NAME`."
            return McpError(f"{what} was pinned for another processor than the engine's: {text}", hint=hint)
        case "index":
            if _NETWORK.search(text):
                hint = "Try again with a network, or trust the server no more: `coding-agents mcp trust --remove NAME`."
                return McpError(f"the packages of {what} cannot be fetched: no network", hint=hint)
            return McpError(f"the packages of {what} cannot be fetched: {text}", hint="Try again later.")
        case _:
            return None


def _line(text: str) -> str:
    """Text of theirs as one line of visible characters, cut."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))[:300]
