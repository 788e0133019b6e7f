"""A real pip and a real npm in `restricted` install from an index that wants a token, which never enters."""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from coding_agents.errors import EngineError
from support.engines import EngineUnderTest
from support.guarded_index import guarded_index
from support.inside import Inside
from support.logins import put
from support.package_index import npm_package, wheel
from support.product import Product

pytestmark = pytest.mark.engine

TOKEN = f"t0k3n-{secrets.token_hex(12)}"
FORMS = (TOKEN.encode(), base64.b64encode(f"__token__:{TOKEN}".encode()), base64.b64encode(TOKEN.encode()))
# Debian's npm on the base image: agents' own images have none.
DOCKERFILE = "ARG BASE\nFROM coding-agents-npm:local\nUSER 1000:1000\nWORKDIR /workspace\n"
MANIFEST = 'name = "{0}"\ntitle = "Own"\n[command]\ninteractive = ["sleep", "600"]\nheadless = ["true", "{{prompt}}"]\n'
PACKAGES = {
    **npm_package("@corp/app", "1.0.0", {"index.js": "exports.x = 1;\n"}, dependencies={"words": "^1.0.0"}),
    **npm_package("words", "1.2.0", {"index.js": ""}),
    **wheel("corp_app", "1.0", {"corp_app.py": "print('installed')\n"}, needs="corp-words"),
    **wheel("corp_words", "3", {"corp_words.py": ""}),
}
PIP = "python3 -m pip install -q --no-cache-dir --target /tmp/p corp-app && PYTHONPATH=/tmp/p python3 -m corp_app"
NPM = "mkdir -p /tmp/n && cd /tmp/n && npm install @corp/app >&2 && cat package-lock.json"
OTHERS = (
    "python3 -m pip download -q --no-deps --no-cache-dir -d /tmp/o no-such-package; "
    "for way in admin npm/..%2fadmin; do curl -sS -m 9 --path-as-is http://127.0.0.1:8097/$way; done; "
    "curl -sS -m 9 -X POST -d x http://127.0.0.1:8097/npm1/words"
)


def with_lock(words: dict[str, str]) -> str:
    """Install by a lock file that names an address of the index's own."""
    about = {"name": "c", "version": "1.0.0", "dependencies": {"words": "1.2.0"}}
    lock = {**about, "lockfileVersion": 3, "packages": {"": about, "node_modules/words": words}}
    files = (("package.json", about), ("package-lock.json", lock))
    lines = [f"echo '{json.dumps(content)}' > {name}" for name, content in files]
    return " && ".join(("mkdir /tmp/c && cd /tmp/c", *lines, "npm ci >&2", "ls node_modules"))


def test_private_packages_are_installed_without_a_network_and_without_the_token(
    engine: EngineUnderTest, product: Product, repo: Path, tmp_path: Path
) -> None:
    if engine.name != "docker":
        pytest.skip("on Docker only, to keep the run short")
    agent = f"own{uuid.uuid4().hex[:8]}"
    agents = product.home / ".config/coding-agents/agents"
    (agents / agent).mkdir(parents=True)
    (agents / f"{agent}.toml").write_text(MANIFEST.format(agent))
    (agents / agent / "Dockerfile").write_text(DOCKERFILE)
    put(product.home, ".config/coding-agents/mcp-secrets.env", f"INDEX_TOKEN={TOKEN}\n".encode())
    (repo / ".npmrc").write_text("audit=false\n")
    try:
        with guarded_index(tmp_path, PACKAGES, TOKEN) as index:
            product.extra["SSL_CERT_FILE"] = str(index.ca)
            (product.home / ".config/coding-agents/config.toml").write_text(
                f'[registry]\npip = ["{index.url}/simple secret=INDEX_TOKEN"]\n'
                f'npm = ["{index.url} secret=INDEX_TOKEN"]\n'
            )
            told = product.run(
                "launch", str(repo), "--agent", agent, "--network-proxy", "restricted", "-d"
            ).err
            assert "registries: pip, npm" in told
            name = f"{agent}-{repo.name}-session-1"
            assert product.exec(name, PIP).out.strip() == "installed"
            lock = product.exec(name, NPM).out
            assert set(json.loads(lock)["packages"]) == {"", "node_modules/@corp/app", "node_modules/words"}
            assert all("resolved" not in one for one in json.loads(lock)["packages"].values())
            locked = {"resolved": f"{index.url}/npm/words/1.2.0.tgz", "version": "1.2.0"}
            assert product.exec(name, with_lock(locked)).out.strip() == "words"
            asked, others = len(index.asked), product.exec(name, OTHERS, status=None)
            assert others.out.count("coding-agents: ") == 3, others
            assert index.asked[asked:] == ["GET /simple/no-such-package/"]
            assert index.refused == []
            inside = Inside.of(product, name)
            assert [inside.find(form.rstrip(b"=")) for form in FORMS] == [[], [], []]
            records = [one for one in product.audit(name) if one["type"].startswith("registry")]
            assert {one["outcome"] for one in records} == {"allowed", "denied"}
            assert "pip1/simple/corp-app/" in {one["subject"] for one in records}
            assert TOKEN not in json.dumps(product.audit(name))
            product.run("remove", "--force", name)
    finally:
        with suppress(EngineError):
            engine.api.remove_image(f"coding-agents-{agent}:local")
