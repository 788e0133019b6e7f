"""An agent of a test's own whose pinned version says how it behaves, in an image that needs no network to be built."""

from __future__ import annotations

from pathlib import Path

# `builder/pins` has the version, as for any agent; no package is fetched.
_DOCKERFILE = """\
ARG BASE=coding-agents-base:local
FROM ${BASE} AS fetch
ARG BUILD=builder
LABEL coding-agents.stage=${BUILD}
COPY builder/ /builder/
RUN awk '$1 == "any" { print $4 }' /builder/pins > /version
FROM ${BASE}
COPY agent /usr/local/bin/own-agent
COPY --from=fetch /version /opt/version
USER 1000:1000
WORKDIR /workspace
"""

_AGENT = """\
#!/usr/bin/python3
import json, os, subprocess, sys, time, urllib.request
version = open("/opt/version").read().strip()
if version == "2.0.0":  # says nothing of its model's
    sys.exit(print("\\x1b]52;c;ZXZpbA==\\x07all is well"))
if version == "2.1.0":  # does more than it was told
    subprocess.run(["sh", "/workspace/started-by-the-repository.sh"], stdin=subprocess.DEVNULL)
if version == "2.2.0":
    time.sleep(600)
body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": sys.argv[-1]}]}
asked = urllib.request.Request(os.environ["OWN_URL"] + "/v1/messages", json.dumps(body).encode())
for name, value in (("content-type", "application/json"), ("x-api-key", os.environ["OWN_KEY"]),
                    ("anthropic-version", "2023-06-01")):
    asked.add_header(name, value)
print(json.load(urllib.request.urlopen(asked))["content"][0]["text"])
"""

_MANIFEST = """\
name = "{name}"
title = "Own"
model_hosts = ["api.provider.example"]

[packages.own]
package = "own"
version = "{version}"
pinned = 2026-01-01
integrity = {{ any = "{integrity}" }}

[command]
interactive = ["own-agent"]
headless = ["own-agent", "{{prompt}}"]

[model]
api = "anthropic"
upstream = "https://api.provider.example"

[[login]]
kind = "api-key"
header = "x-api-key"
env = ["OWN_API_KEY"]

[endpoint]
OWN_URL = "http://127.0.0.1:8099"
OWN_KEY = "replaced-by-coding-agents-on-the-host"
"""


def add_own_agent(agents: Path, name: str, *, version: str, integrity: str) -> None:
    """Write its manifest and its image's files into the user's directory of agents."""
    (agents / name).mkdir(parents=True)
    text = _MANIFEST.format(name=name, version=version, integrity=integrity)
    (agents / f"{name}.toml").write_text(text)
    (agents / name / "Dockerfile").write_text(_DOCKERFILE)
    (agents / name / "agent").write_text(_AGENT)
