"""The lists that we write against the real CLIs' own `mcp list`, each in its agent's image, where that was built."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from coding_agents.images.manifests import load_manifest
from coding_agents.mcp.formats import convert, requirements
from coding_agents.model.mcp import McpFormat, McpServer
from support.engines import EngineUnderTest, engine_environ

pytestmark = pytest.mark.engine

SERVER = Path(__file__).parents[1] / "support/mcp_server.py"
SERVERS = (
    McpServer(name="probe", command="python3", args=("/tmp/d/server.py", 'a "b"'), env={"A": "x y"}),
    McpServer(name="docs", url="http://127.0.0.1:9/mcp", headers={"X-Team": "red", "a.b": 'qu"ote'}),
)

# What puts the list where the CLI looks, and asks it. /tmp/d has the files; HOME is /tmp/h.
SCRIPTS: Mapping[McpFormat, str] = {
    "claude": "cp /tmp/d/list $HOME/.claude.json; claude mcp list",
    "codex": "export CODEX_HOME=$HOME; cp /tmp/d/list $HOME/config.toml; codex mcp list",
    "copilot": "mkdir $HOME/.copilot; cp /tmp/d/list $HOME/.copilot/mcp-config.json;"
    " COPILOT_OFFLINE=true copilot mcp list",
    "gemini": "mkdir $HOME/.gemini; cp /tmp/d/list $HOME/.gemini/settings.json;"
    " GEMINI_CLI_TRUST_WORKSPACE=true gemini mcp list",
    "opencode": "OPENCODE_CONFIG=/tmp/d/list OPENCODE_DISABLE_MODELS_FETCH=1 opencode mcp list",
}
CONNECTS = ("claude", "gemini", "opencode")  # the others show their lists only


@pytest.mark.parametrize("format", SCRIPTS)
def test_the_real_cli_lists_what_we_wrote(engine: EngineUnderTest, format: McpFormat) -> None:
    shown = ask(engine, format, convert(SERVERS, format), SCRIPTS[format])
    for name in ("probe", "docs"):
        assert re.search(rf"\b{name}\b", shown), shown
    if format in CONNECTS:
        connected = [
            line for line in shown.splitlines() if re.search(r"onnected", line) and "Disc" not in line
        ]
        assert ["probe" in line for line in connected] == [True], shown


def test_codex_is_kept_from_all_others(engine: EngineUnderTest) -> None:
    ours = SERVERS[:1]
    other = b'[mcp_servers.other]\ncommand = "touch"\n'
    place = "export CODEX_HOME=$HOME; cp /tmp/d/list $HOME/config.toml; codex mcp list"
    shown = ask(engine, "codex", convert(ours, "codex") + other, place, limits=requirements(ours, "codex"))
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "disabled: requirements" in lines["other"]
    assert "disabled" not in lines["probe"]
    shown = ask(engine, "codex", convert(ours, "codex"), place, limits=requirements((), "codex"))
    assert "disabled: requirements" in shown


def ask(engine: EngineUnderTest, format: str, listing: bytes, script: str, *, limits: bytes = b"") -> str:
    """Run `script` in the image of the agent `format`, without a network; what it printed."""
    image = f"coding-agents-{format}:local"
    if engine.api.image_id(image) is None:
        pytest.skip(f"{image} is not built")
    # Without its seeds it waits for npm for a minute.
    seeds = load_manifest("opencode").seed_files() if format == "opencode" else {}
    parts = {
        "/tmp/d/list": listing,
        "/tmp/d/server.py": SERVER.read_bytes(),
        "/etc/codex/requirements.toml": limits,
        **{f"/tmp/h/{path}": content for path, content in seeds.items()},
    }
    makes = "".join(
        f"mkdir -p {Path(path).parent}; head -c {len(content)} > {path}; "
        for path, content in parts.items()
        if content
    )
    command = (
        engine.name, "run", "--rm", "-i", "--network=none", "--user=0:0", "--workdir=/", "--env=HOME=/tmp/h",
        "--entrypoint=/bin/sh", image, "-c", f"mkdir /tmp/h; {makes} {script}",
    )  # fmt: skip
    done = subprocess.run(
        command,
        input=b"".join(parts.values()),
        env=engine_environ(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    return (done.stdout + done.stderr).decode("utf-8", "replace")
