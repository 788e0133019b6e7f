"""The built images on a real engine: the base's contract, nothing of the builder in an agent's image."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents.errors import ImageBuildError
from coding_agents.images.build import BuildSettings, current_image, ensure_image, plan_images
from coding_agents.images.recipes import BASE_REF, agent_ref
from coding_agents.proc import runner
from support.engines import EngineUnderTest, engine_environ
from support.specs import helper

_MIB = 1 << 20
AGENTS = ("claude", "codex", "copilot", "gemini", "opencode")
_DIGEST = "sha512-" + "A" * 86 + "=="
_MANIFEST = f"""
name = "{{name}}"
title = "T"
[command]
interactive = ["agent"]
[packages.thing]
package = "thing"
version = "1.0.0"
integrity = {{{{ x64 = "{_DIGEST}" }}}}
"""
_DOCKERFILE = """ARG BASE
FROM ${BASE} AS fetch
ARG BUILD=builder
LABEL coding-agents.stage=${BUILD}
COPY builder/ /builder/
RUN test -n "$HTTPS_PROXY" && grep -q CERTIFICATE /builder/host-ca.crt && cp /builder/pins /agent
RUN FINAL
FROM ${BASE}
COPY --from=fetch /agent /usr/local/bin/agent
"""
_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nTHEHOSTSOWNROOT\n-----END CERTIFICATE-----\n"


def sh_in(engine: EngineUnderTest, ref: str, script: str, *, user: str = "1000:1000") -> str:
    """Standard output of a shell script in a walled container of an image; it must succeed."""
    image = engine.api.image_id(ref)
    assert image is not None, f"{ref} is not built"
    spec = helper(name=engine.fresh_name(), image=image, argv=("/bin/sh", "-ec", script))
    container = engine.api.create(spec)
    try:
        outcome = runner.run(engine.api.start_attached_command(container))
    finally:
        engine.api.remove(container, force=True)
    assert outcome.ok, outcome.describe()
    return outcome.text()


def cli(engine: EngineUnderTest, *args: str) -> str:
    done = subprocess.run(
        [engine.name, *args], env=engine_environ(), capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_images_are_up_to_date(engine: EngineUnderTest) -> None:
    for agent in (None, "demo", *AGENTS):
        recipe = plan_images(agent)[-1]
        found = current_image(engine.api, recipe)
        assert found is not None, (
            f"{recipe.ref} is missing or outdated: tools/build_test_images.py {engine.name}"
        )


def test_the_base_has_its_users_and_places(engine: EngineUnderTest) -> None:
    out = sh_in(
        engine,
        BASE_REF,
        "getent passwd 1000 1001 1002; stat -c '%u:%g %a %n' /workspace /home/agentuser /opt/coding-agents"
        " /usr/lib/coding-agents/git-relay /usr/lib/coding-agents/tool-hook;"
        " cat /usr/lib/coding-agents/git-relay; echo lang=$LANG",
    )
    assert "agentuser:x:1000:1000::/home/agentuser:/bin/bash" in out
    assert "mcpuser:x:1001:1001::/nonexistent:/usr/sbin/nologin" in out
    assert "bridge:x:1002:1002::/nonexistent:/usr/sbin/nologin" in out
    assert "1000:1000 755 /workspace" in out
    assert "0:0 755 /opt/coding-agents" in out
    assert "0:0 755 /usr/lib/coding-agents/git-relay" in out
    assert "0:0 755 /usr/lib/coding-agents/tool-hook" in out
    assert "#!/usr/bin/python3 -IS\nimport sys\n" in out
    assert 'sys.path.insert(0, "/opt/coding-agents/guest.pyz")' in out


def test_the_base_holds_no_privilege_and_nothing_of_a_machine(engine: EngineUnderTest) -> None:
    out = sh_in(
        engine,
        BASE_REF,
        "exec 2>/dev/null; set +e; find / -xdev -type f -perm /6000; find / -xdev -type f -exec getcap {} +;"
        "cat /etc/machine-id; ls -d /etc/ssh/ssh_host_* /builder /build;"
        "find /var/lib/apt/lists -name '*Packages*'; true",
    )
    assert out.strip() == ""


def test_a_developer_finds_the_usual_tools(engine: EngineUnderTest) -> None:
    tools = "git git-lfs tmux gpg ssh python3 pip rg gcc g++ make curl jq less nano vi ps ip nft file unzip xz zstd patch rsync pkg-config"  # noqa: E501 - one list
    sh_in(engine, BASE_REF, f"PATH=$PATH:/usr/sbin; for tool in {tools}; do command -v $tool; done")
    sh_in(
        engine,
        BASE_REF,
        "cd /tmp && python3 -m venv --without-pip v && echo 'int main(){return 0;}' > a.c && gcc a.c",
    )


def test_git_is_set_up_for_the_relay_and_lfs(engine: EngineUnderTest) -> None:
    out = sh_in(
        engine,
        BASE_REF,
        "cd /tmp && git config --system --list && git init -q r && git -C r branch --show-current",
    )
    assert "core.gitproxy=/usr/lib/coding-agents/git-relay" in out
    assert "remote.pushdefault=local" in out
    assert "push.default=current" in out
    assert "filter.lfs.process=git-lfs filter-process" in out
    assert out.splitlines()[-1] == "main"


def test_sizes_are_within_the_budget(engine: EngineUnderTest) -> None:
    def size(ref: str) -> int:
        image = engine.api.find_image(ref)
        assert image is not None
        return image.size_bytes

    base = size(BASE_REF)
    assert base <= 650 * _MIB
    for agent in AGENTS:
        assert size(agent_ref(agent)) - base <= 450 * _MIB, agent
    assert size(agent_ref("demo")) - base <= 1 * _MIB


def test_claude_is_the_pinned_version_and_nothing_of_npm(engine: EngineUnderTest) -> None:
    out = sh_in(
        engine, agent_ref("claude"), "claude --version; ls /builder /usr/bin/npm /usr/bin/node 2>&1 || true"
    )
    assert out.startswith("2.1.330 ")
    assert out.count("No such file") == 3


def test_the_demo_agent_works_in_its_image(engine: EngineUnderTest) -> None:
    out = sh_in(
        engine,
        agent_ref("demo"),
        "cd /tmp && git init -q r && cd r && git config user.name n && git config user.email e@x.test"
        " && demo-agent -p 'hello' && git log --format=%B",
    )
    assert "Task: hello" in out


@pytest.fixture
def own_agent(engine: EngineUnderTest, tmp_path: Path) -> Iterator[tuple[str, Path, BuildSettings]]:
    """A user's agent with a builder stage, on a machine with a proxy and a root certificate of its own."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    agents = tmp_path / "agents"
    (agents / name).mkdir(parents=True)
    (agents / f"{name}.toml").write_text(_MANIFEST.format(name=name))
    ca = tmp_path / "ca.pem"
    ca.write_text(_CERTIFICATE)
    environment = {
        **engine_environ(), "SSL_CERT_FILE": str(ca), "HTTPS_PROXY": "http://me:proxypassword@192.0.2.1:3128",
    }  # fmt: skip
    yield name, agents, BuildSettings(tmp_path / "work", environment, lambda line: None, user_dir=agents)
    if engine.api.image_id(agent_ref(name)):
        engine.api.remove_image(agent_ref(name))


def stages(engine: EngineUnderTest, settings: BuildSettings) -> set[str]:
    return {row.id for row in engine.api.list_images("coding-agents.stage")}


def test_nothing_of_the_building_machine_is_in_the_image_or_its_history(
    engine: EngineUnderTest, own_agent: tuple[str, Path, BuildSettings]
) -> None:
    name, agents, settings = own_agent
    (agents / name / "Dockerfile").write_text(_DOCKERFILE.replace("FINAL", "true"))
    made = ensure_image(engine.api, name, settings)
    assert ensure_image(engine.api, name, settings) == made
    record = cli(engine, "image", "inspect", made.id) + cli(engine, "image", "history", "--no-trunc", made.id)
    assert "coding-agents.inputs" in record
    for trace in ("proxypassword", "192.0.2.1", "THEHOSTSOWNROOT", "/builder"):
        assert trace not in record
    out = sh_in(
        engine,
        made.ref,
        "cat /usr/local/bin/agent; ls -d /builder 2>&1 || true; grep -rls THEHOSTSOWNROOT /etc /usr/share || true",
    )
    assert out.splitlines()[0].split("\t") == ["amd64", "thing", "thing", "1.0.0", _DIGEST]
    assert "No such file" in out
    assert "/etc/" not in out


def test_a_failing_build_leaves_no_image(
    engine: EngineUnderTest, own_agent: tuple[str, Path, BuildSettings]
) -> None:
    name, agents, settings = own_agent
    (agents / name / "Dockerfile").write_text(_DOCKERFILE.replace("FINAL", "echo THE REASON && exit 3"))
    with pytest.raises(ImageBuildError, match=f"could not build coding-agents-{name}:local") as caught:
        ensure_image(engine.api, name, settings)
    assert "THE REASON" in caught.value.details
    assert engine.api.image_id(agent_ref(name)) is None
    for row in engine.api.list_images("coding-agents.stage"):
        assert name not in json.dumps(cli(engine, "image", "history", "--no-trunc", row.id))
