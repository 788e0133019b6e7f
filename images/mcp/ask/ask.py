"""Ask npm or pip what the packages of /builder/asked.json need; /answers gets "ok" or "failed", and what it said.

Nothing of a package is run or unpacked here: npm makes its lock from what the registry says of packages, pip looks at
wheels alone. /builder/index.json may name the indexes to use instead of the programs' own defaults.
"""

import json
import os
import re
import subprocess  # noqa: TID251 - alone in a builder stage, with the standard library
from pathlib import Path

BUILDER = Path("/builder")
SHOWN = 100_000
TELLING = re.compile(
    rb"ERR|WARN|No sources permitted|none of the wheel|404 Client|different [Pp]ython|code\":|summary\":"
)
LIMIT_S = 600


def main() -> None:
    asked = json.loads((BUILDER / "asked.json").read_text())
    ask = {"npm": npm, "pypi": pip}[asked["index"]]
    good, answer = ask(asked["specs"])
    Path("/answers").write_bytes((b"ok\n" if good else b"failed\n") + answer)


def npm(specs: list) -> tuple:
    place = Path("/ask")
    place.mkdir()
    wanted = {name: version or "latest" for name, version in specs}
    (place / "package.json").write_text(json.dumps({"private": True, "dependencies": wanted}))
    # Without the addresses of the registry's own packages: one that has an address is from somewhere else.
    done = run(
        "npm", "install", "--package-lock-only", "--ignore-scripts", "--omit-lockfile-registry-resolved", "--json",
        cwd=place,
    )  # fmt: skip
    lock = place / "package-lock.json"
    return (True, lock.read_bytes()) if done.returncode == 0 and lock.exists() else (False, said(done))


def pip(specs: list) -> tuple:
    report = Path("/report.json")
    done = run(
        "python3", "-I", "-m", "pip", "install", "--dry-run", "--ignore-installed", "--only-binary=:all:", "-vv",
        f"--report={report}", "--", *(name + version for name, version in specs),
        cwd=Path("/"),
    )  # fmt: skip
    return (True, report.read_bytes()) if done.returncode == 0 and report.exists() else (False, said(done))


def run(*argv: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        argv,
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )


def environment() -> dict:
    """The machine's own root certificates, where it has any: Debian's bundle with them appended."""
    bundle = BUILDER / "bundle.pem"
    roots = (Path("/etc/ssl/certs/ca-certificates.crt"), *sorted(BUILDER.glob("*.crt")))
    bundle.write_bytes(b"".join(path.read_bytes() for path in roots))
    ours = {
        "npm_config_cafile": str(bundle), "NODE_EXTRA_CA_CERTS": str(bundle), "npm_config_update_notifier": "false",
        "npm_config_audit": "false", "npm_config_fund": "false", "npm_config_fetch_retries": "1",
        "npm_config_fetch_retry_mintimeout": "1000", "npm_config_cache": "/fetch",
        "PIP_CERT": str(bundle), "PIP_RETRIES": "1", "PIP_TIMEOUT": "15", "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_ROOT_USER_ACTION": "ignore",
    }  # fmt: skip
    names = {"npm": "npm_config_registry", "pypi": "PIP_INDEX_URL"}
    indexes = json.loads((BUILDER / "index.json").read_text())
    ours |= {names[kind]: address for kind, address in indexes.items() if address}
    return {**os.environ, **ours}  # noqa: TID251 - that of the build


def said(done: subprocess.CompletedProcess) -> bytes:
    """The lines that tell why it failed, from the end: pip names all that it has looked at."""
    lines = [line[:1000] for line in (done.stdout + b"\n" + done.stderr).splitlines() if TELLING.search(line)]
    return b"\n".join(lines)[-SHOWN:]


if __name__ == "__main__":
    main()
