"""Servers that run packages of an index of the test's own: pinned, installed into an image, run without a network."""

from __future__ import annotations

import hashlib
import json
import secrets
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from coding_agents.app.images import build_settings
from coding_agents.app.mcp import trusted_packages
from coding_agents.app.mcp_packages import build_packages
from coding_agents.config.load import load_settings
from coding_agents.errors import EngineError, McpError
from coding_agents.mcp.locked import Lock, LockedPackage
from model_stub.server import serving
from support.engines import EngineUnderTest
from support.host import host_environment
from support.logins import put
from support.package_index import PackageIndex, npm_package, package_index, wheel
from support.product import ROOT, Product, wait_for

pytestmark = pytest.mark.engine

SECRET = f"s3cr3t-{secrets.token_hex(12)}"
KNOWN = hashlib.sha256(SECRET.encode()).hexdigest()
TOML = """
[mcp_servers.probe]
command = "npx"
args = ["-y", "@probe/server", "--fast"]
[mcp_servers.kept]
command = "uvx"
args = ["--from", "probe_server==1.*", "probe-server", "--discreet"]
env = { TOKEN = "${TRACKER_TOKEN}" }
"""
LEFT = (  # what no layer holds: what is not root's alone, a link, a privilege, and what is only true of the builder
    "find /opt/mcp ! -user 0 -o ! -group 0 -o ! -type d ! -type f -o -perm /6022; find /opt/mcp -name ran; "
    "grep -rlE '{}|TESTINDEXROOT' /opt/mcp /etc 2>/dev/null; ls -d /builder /fetch /ask* 2>/dev/null; true"
)


def entry(name: str, kind: bytes, *, mode: int = 0o644, link: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mode, made.linkname, made.size = kind, mode, link, size
    made.uid = made.gid = 1000
    return made


def packages() -> dict[str, bytes]:
    """Those of one test: others that run beside it have other bytes, so other images."""
    server = (ROOT / "tests/support/mcp_server.js").read_text() + f"// {secrets.token_hex(8)}\n"
    odd = (
        entry("package/link", tarfile.SYMTYPE, link="/etc/passwd"),
        entry("package/hard", tarfile.LNKTYPE, link="package/package.json"),
        entry("package/root", tarfile.REGTYPE, mode=stat.S_ISUID | 0o777, size=4),
        entry("package/fifo", tarfile.FIFOTYPE),
    )
    scripts = {"scripts": {"preinstall": "touch ran", "install": "touch ran", "prepare": "touch ran"}}
    source = (ROOT / "tests/support/mcp_server.py").read_text()
    return {
        **npm_package(
            "@probe/server", "1.0.0", {"dist/run.js": server.replace("\n", "\r\n", 1)}, *odd,
            bin={"probe": "./dist/run.js"}, dependencies={"words": "^1.0.0"}, **scripts,
        ),
        **npm_package("words", "1.0.0", {"index.js": "exports.version = 'old';\n"}),
        **npm_package("words", "1.2.0", {"index.js": "exports.version = 'new';\n"}, **scripts),
        **npm_package("words", "2.0.0", {"index.js": "exports.version = 'other';\n"}),
        **npm_package("elsewhere", "1.0.0", {"run.js": ""}, bin="run.js",
                      dependencies={"x": "THIS-INDEX/npm/words/1.0.0.tgz"}),
        **wheel("probe_server", "1.0", {"probe_server.py": source}, needs="probe-words",
                scripts={"probe-server": "probe_server:main"}),
        **wheel("probe_words", "3", {"probe_words.py": "", "words.pth": "import os; open('/opt/mcp/ran', 'w')\n"}),
    }  # fmt: skip


@pytest.fixture
def index(engine: EngineUnderTest, product: Product, repo: Path) -> Iterator[PackageIndex]:
    if engine.name != "docker":
        pytest.skip("on Docker only, to keep the run short")
    (repo / ".coding-agents").mkdir()
    (repo / ".coding-agents/mcp.toml").write_text(TOML)
    put(product.home, ".config/coding-agents/mcp-secrets.env", f"TRACKER_TOKEN={SECRET}\n".encode())
    with package_index(product, packages()) as index:
        # Whose image has a node: another agent's would be fetched, which this index does not have.
        product.extra.update(index.env(product.home / "ca.pem"), CODING_AGENTS_AGENT="gemini")
        yield index
        forget_images(engine, product)


def forget_images(engine: EngineUnderTest, product: Product) -> None:
    """Remove the images with the packages that this user trusts, and no others."""
    digests = trusted_packages(host_environment(product.home))
    rows = engine.api.list_images("coding-agents.packages")
    ours = [row for row in rows if digests & set(row.labels["coding-agents.packages"].split(","))]
    for row in sorted(ours, key=lambda row: -row.size_bytes):
        for name in row.tags or (row.id,):
            with suppress(EngineError):
                engine.api.remove_image(name)


def stages(engine: EngineUnderTest) -> set[str]:
    """What builds have left of themselves, or are just made of."""
    return {row.id for row in engine.api.list_images("coding-agents.stage")}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def define(repo: Path, *args: str) -> None:
    words = ", ".join(json.dumps(word) for word in args[1:])
    (repo / ".coding-agents/mcp.toml").write_text(
        f'[mcp_servers.probe]\ncommand = "{args[0]}"\nargs = [{words}]\n'
    )


def test_pinned_packages_answer_an_agent_without_a_network(
    engine: EngineUnderTest, product: Product, repo: Path, index: PackageIndex
) -> None:
    shown = product.run("mcp", "trust", "probe", "-y", cwd=repo).err
    assert "package  @probe/server 1.0.0 of npm, with 1 others that it needs, each pinned" in shown
    product.run("mcp", "trust", "kept", "-y", cwd=repo)
    for record in product.home.glob(".local/share/coding-agents/mcp/*/*.json"):
        assert index.url.partition("//")[2] not in record.read_text()
    with serving("mcp") as model:
        product.extra["CODING_AGENTS_MODEL_UPSTREAM"] = model.url
        launch = ("launch", str(repo), "--agent", "gemini", "--network-proxy", "restricted")
        product.run(*launch, "-p", "ask the server")
        assert [one.problem for one in model.conversation] == ["", "", ""], model.conversation[-1].question
        assert model.conversation[1].question is not None
        told = model.conversation[1].question.last_result.replace("\\", "")
        name = f"gemini-{repo.name}-session-1"
        image = product.session(name)["image_id"]
        for fact in (
            '/node_modules/@probe/server/dist/run.js"',
            '"uid":1000',
            '"args":["--fast"]',
            '"words":"new"',
        ):
            assert fact in told
        # A later start runs in the image of this session, whatever was made since.
        ref = product.session(name)["image_ref"]
        product.engine_run("tag", "coding-agents-gemini:local", ref)
        product.run("start", name)
        assert product.engine_run("inspect", "-f", "{{.Image}}", name).strip() == image
        product.engine_run("rmi", ref)
    assert product.exec(name, LEFT.format(index.url.partition("//")[2].partition(":")[0])).out == ""
    for attack in (
        "touch /opt/mcp/new",
        "rm -r /opt/mcp/*/run",
        "chmod -R 777 /opt/mcp",
        "mv /opt/mcp /opt/x",
    ):
        assert "done" not in product.exec(name, f"{attack} 2>/dev/null && echo done", status=None).out
    history = product.engine_run("image", "history", "--no-trunc", image)
    assert index.url.partition("//")[2] not in history + product.engine_run("image", "inspect", image)
    # The one with a secret runs apart, from its packages.
    call = {"name": "where", "arguments": {"say": "x"}}
    asked = ({"method": "initialize", "params": {}}, {"method": "tools/call", "params": call})
    lines = "\n".join(json.dumps({"jsonrpc": "2.0", "id": number, **one}) for number, one in enumerate(asked))
    relay = "python3 -IS /opt/coding-agents/guest.pyz mcp kept"
    answers = product.exec(name, f"echo '{lines}' | {relay}").out.splitlines()
    text = json.loads(answers[1])["result"]["content"][0]["text"]
    facts = json.loads(text.partition("answered: x ")[2])
    assert (facts["uid"], facts["token"]) == (1001, KNOWN)
    assert facts["file"].startswith("/opt/mcp/")
    product.run("remove", "--force", name)


def test_other_bytes_hostile_archives_and_missing_packages_are_refused(
    engine: EngineUnderTest, product: Product, repo: Path, index: PackageIndex
) -> None:
    trust, before = ("mcp", "trust", "probe", "-y"), stages(engine)
    for words, why in (
        (("npx", "nobody"), "npm's registry has no package nobody"),
        (("uvx", "probe-words==9"), "the Python index has no such version for Python 3.11: probe-words==9"),
        (("npx", "elsewhere"), "x is not a package of npm's registry"),
    ):
        define(repo, *words)
        refused = product.run(*trust, cwd=repo, status=27)
        assert why in refused.err, refused.err
    env = host_environment(product.home, **product.env)
    builds = build_settings(env, load_settings(env), lambda line: None)
    words = next(content for name, content in packages().items() if name.startswith("simple/probe-words/"))
    for digest, why in (("0" * 64, "other bytes .*: probe.words==3"), (sha256(words), "has no program run")):
        one = LockedPackage("probe_words", "3", f"sha256:{digest}")
        lock = Lock(index="pypi", name=one.name, version=one.version, program="run", packages=(one,))
        with pytest.raises(McpError, match=why):
            build_packages(engine.api, builds, lock)
    product.extra["npm_config_registry"] = index.url.replace("8443", "9")
    assert "cannot be reached" in product.run(*trust, cwd=repo, status=27).err
    product.extra["npm_config_registry"] = f"{index.url}/"
    define(repo, "npx", "@probe/server")
    product.run(*trust, cwd=repo)
    forget_images(engine, product)
    index.put(npm_package("words", "1.2.0", {"index.js": "exports.version = 'SWAPPED';\n"}))
    launch = ("launch", str(repo), "--agent", "gemini", "--network-proxy", "restricted", "-d")
    refused = product.run(*launch, status=27)
    assert "the index has other bytes than those that were pinned: words 1.2.0" in refused.err
    assert product.run("list", "-a", "--json").json == []
    # With the host's certificates; another test's may be there for a moment.
    assert wait_for(lambda: stages(engine) <= before, "the stages of failed builds to be gone")
