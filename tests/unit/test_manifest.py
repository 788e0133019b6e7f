"""Agent manifests: the closed schema, its messages, and what becomes of a good one."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import ManifestError
from coding_agents.images.data import data_dir
from coding_agents.images.manifests import list_manifests, load_manifest
from coding_agents.model.manifest import AgentManifest, parse_manifest

_DIGEST = "sha512-" + "A" * 86 + "=="
_GOOD = f"""
name = "mine"
title = "Mine"
[command]
interactive = ["mine"]
headless = ["mine", "-p", "{{prompt}}"]
[packages.mine]
package = "@scope/mine-linux-{{arch}}"
version = "1.2.3"
integrity = {{ x64 = "{_DIGEST}", arm64 = "{_DIGEST}" }}
[env]
QUIET = "1"
[first_run]
".minerc" = "text\\n"
".mine/state.json" = {{ seen = true, dirs = ["/workspace"] }}
"""


def parse(text: str) -> AgentManifest:
    return parse_manifest(text.encode(), origin="mine.toml")


def test_a_good_manifest_becomes_values() -> None:
    manifest = parse(_GOOD)
    assert manifest.interactive_argv() == ("mine",)
    assert manifest.headless_argv("do it; $(rm)") == ("mine", "-p", "do it; $(rm)")
    assert manifest.pins() == (
        ("arm64", "mine", "@scope/mine-linux-arm64", "1.2.3", _DIGEST),
        ("amd64", "mine", "@scope/mine-linux-x64", "1.2.3", _DIGEST),
    )
    files = manifest.seed_files()
    assert files[".minerc"] == b"text\n"
    assert json.loads(files[".mine/state.json"]) == {"seen": True, "dirs": ["/workspace"]}


@given(st.text(min_size=1))
def test_property_a_prompt_is_one_word_whatever_it_holds(prompt: str) -> None:
    assert parse(_GOOD).headless_argv(prompt) == ("mine", "-p", prompt)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "mine"', 'name = "Mine"', "name 'Mine'"),
        ('name = "mine"', 'name = "base"', "reserved"),
        ('name = "mine"', 'name = "a/../b"', "name 'a/../b'"),
        ('title = "Mine"', 'title = "\\u001b[31m"', "title"),
        ('interactive = ["mine"]', "interactive = []", "command.interactive is empty"),
        ('interactive = ["mine"]', 'interactive = ["{prompt}"]', "only command.headless"),
        ('"-p", "{prompt}"', '"-p"', "exactly once"),
        ('"-p", "{prompt}"', '"{prompt}", "{prompt}"', "exactly once"),
        ('version = "1.2.3"', 'version = "^1.2"', "one exact version"),
        ('version = "1.2.3"', 'version = "1.2 --registry x"', "one exact version"),
        ("@scope/mine-linux-{arch}", "--flag", "npm package"),
        (f'x64 = "{_DIGEST}"', 'x64 = "sha1-abc"', "integrity.x64"),
        (f'x64 = "{_DIGEST}"', f'riscv = "{_DIGEST}"', "unknown processor 'riscv'"),
        ('QUIET = "1"', '"A=B" = "1"', "environment variable"),
        ('QUIET = "1"', 'KEY = "sk-ant-api03-xyz"', "real credential"),
        ('QUIET = "1"', "QUIET = 1", "expected `str`"),
        ('".minerc"', '"../.bashrc"', "below the home"),
        ('".minerc"', '"/etc/passwd"', "below the home"),
        ("[command]", 'model_hosts = ["10.0.0.1"]\n[command]', "not a host name"),
        ("[command]", 'instructions = "a//b"\n[command]', "below the home"),
        ("[command]", 'instructions = ".minerc"\n[command]', "seeds '.minerc', too"),
        ("[command]", '[command]\nresume = ["mine", "-c"]', "need each other"),
        ("[command]", '[command]\nresume = ["mine"]\nremembered = "a;b"', "not a plain glob"),
        ("[command]", '[command]\nresume = ["{prompt}"]\nremembered = "a"', "only command.headless may"),
        (f'arm64 = "{_DIGEST}"', f'any = "{_DIGEST}"', "fits every processor"),
        ("[packages.mine]", '[packages."../x"]', "packages: '../x'"),
    ],
)
def test_each_wrong_value_is_refused_by_name(old: str, new: str, message: str) -> None:
    assert old in _GOOD
    with pytest.raises(ManifestError, match=re.escape(message)) as caught:
        parse(_GOOD.replace(old, new))
    assert caught.value.message.startswith("mine.toml")
    assert caught.value.exit_status == 21


_SERVED = (
    _GOOD
    + """
[model]
api = "anthropic"
upstream = "https://api.example.org/v1"
[[login]]
kind = "api-key"
header = "x-api-key"
scheme = ""
env = ["MINE_KEY"]
file = ".mine/key"
format = "codex"
account_header = "x-account"
headers = { x-beta = "a b" }
[[login]]
kind = "oauth"
header = "authorization"
file = ".mine/account"
format = "claude"
renewal = { url = "https://id.example.org/token", client_id = "c-1" }
command = ["mine", "login"]
callback = 1455
"""
).replace("[command]", 'model_hosts = ["api.example.org"]\n[command]')


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"https://api.example.org/v1"', '"http://api.example.org/v1"', "model.upstream"),
        ('"https://api.example.org/v1"', '"https://k@api.example.org/v1"', "model.upstream"),
        ('"https://api.example.org/v1"', '"https://api.example.org/?k=1"', "model.upstream"),
        ('"https://api.example.org/v1"', '"https://api.example.org/"', "model.upstream"),
        ('"https://api.example.org/v1"', '"https://api.example.org/../x"', "model.upstream"),
        ('"https://api.example.org/v1"', '"https://[::1/v1"', "model.upstream"),
        ('"https://api.example.org/v1"', '"https://other.example.org"', "not among model_hosts"),
        ('api = "anthropic"', 'api = "magic"', "magic"),
        ('kind = "api-key"', 'kind = "password"', "password"),
        ('"x-api-key"', '"X-Api-Key"', "lower-case name of a header"),
        ('"x-api-key"', '"x: y"', "lower-case name of a header"),
        ('scheme = ""', 'scheme = "Bearer x"', "not one word"),
        ('"MINE_KEY"', '"MINE KEY"', "environment variable"),
        ('".mine/key"', '"../key"', "below the home"),
        ('x-beta = "a b"', 'x-beta = "a\\r\\nb"', "printable text"),
        ('format = "codex"', "", "login.file and login.format go together"),
        ('format = "codex"', 'format = "vim"', "vim"),
        ('file = ".mine/key"', "", "login.file and login.format go together"),
        ('file = ".mine/key"\nformat = "codex"', 'entry = "x"', "login.entry is for a login.file"),
        ('"x-account"', '"X Account"', "login.account_header"),
        ('kind = "oauth"', 'kind = "api-key"', "login.renewal is for"),
        ('file = ".mine/account"\nformat = "claude"', "", "login.command is for"),
        ('command = ["mine", "login"]', "", "login.callback is for a login.command"),
        ("1455", "80", "login.callback 80 is not a port"),
        ("1455", "65536", "login.callback 65536 is not a port"),
        ('"https://id.example.org/token"', '"http://id.example.org/token"', "login.renewal.url"),
        ('"https://id.example.org/token"', '"https://id.example.org/token?x"', "login.renewal.url"),
        ('"https://id.example.org/token"', '"https://id.example.org/../x"', "login.renewal.url"),
        ('"c-1"', '""', "login.renewal.client_id"),
        ('client_id = "c-1"', 'client_id = "c-1", secret = "s"', "secret"),
        ('kind = "api-key"', 'kind = "api-key"\nupstream = "https://x.org"', "login.upstream"),
        ('[model]\napi = "anthropic"\nupstream = "https://api.example.org/v1"', "", "need a [model] table"),
    ],
)
def test_each_wrong_provider_is_refused_by_name(old: str, new: str, message: str) -> None:
    assert old in _SERVED
    parse(_SERVED)
    with pytest.raises(ManifestError, match=re.escape(message)):
        parse(_SERVED.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("[env]", "[enviroment]", ""),
        ('title = "Mine"', 'title = "Mine"\nmodel_host = []', "Did you mean 'model_hosts'?"),
        ("headless =", "headles =", "Did you mean 'headless'?"),
        (
            'version = "1.2.3"',
            'version = "1.2.3"\nzzz = 1',
            "Known keys: package, version, integrity, pinned, follow.",
        ),
    ],
)
def test_an_unknown_key_is_an_error_with_a_close_one(old: str, new: str, hint: str) -> None:
    with pytest.raises(ManifestError, match="unknown field") as caught:
        parse(_GOOD.replace(old, new))
    assert hint in caught.value.hint


def test_no_headless_command_is_said_so() -> None:
    manifest = parse(_GOOD.replace('headless = ["mine", "-p", "{prompt}"]', ""))
    with pytest.raises(ManifestError, match="no headless command"):
        manifest.headless_argv("x")


def test_broken_toml_and_encoding() -> None:
    with pytest.raises(ManifestError, match="not valid TOML"):
        parse("name = ")
    with pytest.raises(ManifestError, match="not valid TOML"):
        parse_manifest(b"\xff", origin="mine.toml")


def test_our_manifests_are_all_valid() -> None:
    names = [manifest.name for manifest in list_manifests()]
    assert names == ["claude", "codex", "copilot", "demo", "gemini", "opencode"]
    assert {path.stem for path in data_dir("agents").glob("*.toml")} == set(names)


def test_claude_is_pinned_quiet_and_asks_nothing() -> None:
    claude = load_manifest("claude")
    assert {row[0] for row in claude.pins()} == {"amd64", "arm64"}
    assert "--dangerously-skip-permissions" in claude.interactive_argv()
    # The repository's own MCP servers must not start with the agent: `claude -p` asks nobody.
    assert "--strict-mcp-config" in claude.headless_argv("x")
    assert claude.headless_argv("-x")[-2:] == ("--", "-x")
    state = json.loads(claude.seed_files()[".claude.json"])
    assert state["projects"]["/workspace"]["hasTrustDialogAccepted"] is True
    assert state["customApiKeyResponses"]["approved"] == [claude.endpoint["ANTHROPIC_API_KEY"][-20:]]
    assert claude.endpoint["ANTHROPIC_BASE_URL"].startswith("http://127.0.0.1:")
    assert "ANTHROPIC_API_KEY" not in claude.env


@pytest.mark.parametrize("name", ["claude", "codex", "copilot", "gemini", "opencode"])
def test_each_agent_is_pinned_served_told_where_it_is_and_holds_a_dummy(name: str) -> None:
    agent = load_manifest(name)
    assert "amd64" in {row[0] for row in agent.pins()}
    assert agent.model is not None
    assert agent.login
    assert agent.instructions
    assert agent.env["NO_PROXY"] == "127.0.0.1,localhost"
    assert "replaced-by-coding-agents-on-the-host" in agent.endpoint.values()
    seeds = b"".join(agent.seed_files().values()).decode()
    assert "http://127.0.0.1:8099" in " ".join(agent.endpoint.values()) + seeds
    assert agent.headless_argv("-x")[-1] in ("-x", "--prompt=-x")


def test_a_later_start_goes_on_with_a_conversation_only_where_there_is_one(tmp_path: Path) -> None:
    resume = 'resume = ["echo", "go on; $(rm)"]\nremembered = ".mine/*.jsonl"\n'
    manifest = parse(_GOOD.replace('interactive = ["mine"]', 'interactive = ["echo", "anew"]\n' + resume))

    def start() -> str:
        done = subprocess.run(
            manifest.resume_argv(), env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert start() == "anew\n"
    (tmp_path / ".mine").mkdir()
    (tmp_path / ".mine/a b.jsonl").touch()
    assert start() == "go on; $(rm)\n"
    assert parse(_GOOD).resume_argv() == ("mine",)
