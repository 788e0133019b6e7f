"""The programs that agents run find the way out of mode `squid` by themselves, over TLS and in plain HTTP."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import EngineUnderTest
from support.internet import Internet, find_internet
from support.product import Product, git, make_repo

pytestmark = pytest.mark.engine

HOST = "good.example"
TOOLCHAINS = Path(__file__).parent.parent / "support/toolchains"


@pytest.fixture
def world(engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    yield from find_internet(tmp_path_factory.mktemp("internet"))


CLIENTS = {
    "curl": f"curl -sS --cacert ca.pem https://{HOST}/curl && curl -sS http://{HOST}/curl-plain",
    "wget": f"wget -qO- --ca-certificate=ca.pem https://{HOST}/wget && wget -qO- http://{HOST}/wget-plain",
    "git": f"GIT_SSL_CAINFO=$PWD/ca.pem git clone -q https://{HOST}/static/lib.git /tmp/lib && cat /tmp/lib/lib.py",
    "pip": f"pip download -q --no-deps --cert ca.pem --index-url https://{HOST}/static/simple/ -d /tmp/wheels toy"
    " && ls /tmp/wheels",
    "python": "SSL_CERT_FILE=$PWD/ca.pem python3 -c \"import urllib.request as u;"
    f"print(u.urlopen('https://{HOST}/python').status, u.urlopen('http://{HOST}/python-plain').status)\"",
    "requests": "python3 -c \"from pip._vendor import requests as r;"
    f"print(r.get('https://{HOST}/requests', verify='ca.pem').status_code)\"",
    "apt": "mkdir -p /tmp/apt/lists/partial /tmp/apt/cache/archives/partial && echo"
    f" 'deb [trusted=yes] http://{HOST}/static/apt ./' > /tmp/apt/sources.list && apt-get -qq -o Dir::State=/tmp/apt"
    " -o Dir::State::lists=/tmp/apt/lists -o Dir::Cache=/tmp/apt/cache -o Dir::Etc::SourceList=/tmp/apt/sources.list"
    " -o Dir::Etc::SourceParts=/nonexistent -o Dir::Etc::Parts=/nonexistent update && ls /tmp/apt/lists",
}  # fmt: skip


def test_clients_find_the_way_out(product: Product, world: Internet) -> None:
    if product.engine != "docker":
        pytest.skip("shown on Docker: they are the same programs in the same image")
    serve_packages(world.static, product.home)
    repo = make_repo(product.home / "shop", {"app.py": "print(1)\n", "ca.pem": world.certificate.read_text()})
    name = product.launch_detached(repo, "sleep 3000", "--network-proxy", "squid", "--allow", HOST)
    answers = {client: product.exec(name, script, status=None) for client, script in CLIENTS.items()}
    assert {client: answer.status for client, answer in answers.items()} == dict.fromkeys(CLIENTS, 0), answers
    assert "toy-1-py3-none-any.whl" in answers["pip"].out
    assert "value = 1" in answers["git"].out
    assert f"{HOST}_static_apt" in answers["apt"].out
    for path in ("/curl", "/curl-plain", "/wget", "/wget-plain", "/python", "/python-plain", "/requests"):
        assert world.arrived("http", path=path, sni="" if path.endswith("-plain") else HOST)
    # In what we could see, nobody told of the proxy that it came through, or of the machine behind it.
    told = [header.lower() for one in world.arrived("http", sni="") for header in one["headers"]]
    assert not {"via", "x-forwarded-for", "forwarded", "proxy-connection"}.intersection(told)


# What comes with the image of tests/e2e/test_toolchains.py.
_SOURCES = {
    "get.mjs": f"process.exit((await fetch('https://{HOST}/node')).status === 200 ? 0 : 1)\n",
    "main.go": 'package main\nimport ("net/http"; "os")\nfunc main() {\n'
    f'\tr, err := http.Get("https://{HOST}/go")\n'
    "\tif err != nil || r.StatusCode != 200 { println(err); os.Exit(1) }\n}\n",
    "Get.java": "import java.net.*;\npublic class Get { public static void main(String[] a) throws Exception {\n"
    f'var c = (HttpURLConnection) new URL("https://{HOST}/java").openConnection();\n'
    "System.exit(c.getResponseCode() == 200 ? 0 : 1); } }\n",
}  # fmt: skip
_FURTHER = {
    "node's fetch": "NODE_EXTRA_CA_CERTS=$PWD/ca.pem /opt/node/bin/node get.mjs",
    "npm": f"npm_config_registry=https://{HOST}/static/npm/ npm_config_cafile=$PWD/ca.pem npm view toy version",
    "go": "SSL_CERT_FILE=$PWD/ca.pem go run main.go",
    "java": "keytool -importcert -noprompt -alias x -file ca.pem -keystore /tmp/ks -storepass changeit"
    " && java -Djavax.net.ssl.trustStore=/tmp/ks -Djavax.net.ssl.trustStorePassword=changeit Get.java",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_clients_of_other_languages_find_it_too(
    product: Product, engine: EngineUnderTest, world: Internet
) -> None:
    if engine.api.image_id("coding-agents-toolchains:local") is None:
        pytest.skip("only ./dev test --full makes its image, for Docker")
    agents = product.home / ".config/coding-agents/agents"
    shutil.copytree(TOOLCHAINS, agents, ignore=lambda _path, _names: ["projects"])
    (world.static / "npm").mkdir()
    (world.static / "npm/toy").write_text(json.dumps(
        {"name": "toy", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {"name": "toy", "version": "1.0.0"}}}
    ))  # fmt: skip
    repo = make_repo(product.home / "shop", {**_SOURCES, "ca.pem": world.certificate.read_text()})
    launch = ("launch", str(repo), "--agent", "toolchains", "--network-proxy", "squid", "--allow", HOST, "-d")
    name = product.run(*launch, "--", "sleep", "3000").out.strip()
    answers = {client: product.exec(name, script, status=None) for client, script in _FURTHER.items()}
    failed = [
        f"{client}: {answer.out}{answer.err}" for client, answer in answers.items() if answer.status != 0
    ]
    assert not failed, "\n".join(failed)
    for path in ("/node", "/go", "/java", "/static/npm/toy"):
        assert world.arrived("http", path=path, sni=HOST)


def serve_packages(static: Path, scratch: Path) -> None:
    """A git repository for clients without a smart server, an index with one wheel, and a Debian archive."""
    source = make_repo(scratch / "lib", {"lib.py": "value = 1\n"})
    git(source, "clone", "-q", "--bare", str(source), str(static / "lib.git"))
    subprocess.run(("git", "-C", str(static / "lib.git"), "update-server-info"), check=True)
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        files = {
            "toy.py": b"value = 1\n",
            "toy-1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: toy\nVersion: 1\n",
            "toy-1.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        for path, content in files.items():
            archive.writestr(path, content)
        lines = [
            f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')},{len(content)}"
            for path, content in files.items()
        ]
        archive.writestr("toy-1.dist-info/RECORD", "\n".join([*lines, "toy-1.dist-info/RECORD,,\n"]))
    page = static / "simple/toy"
    page.mkdir(parents=True)
    (page / "toy-1-py3-none-any.whl").write_bytes(wheel.getvalue())
    (page / "index.html").write_text('<a href="toy-1-py3-none-any.whl">toy-1-py3-none-any.whl</a>')
    (static / "apt").mkdir()
    (static / "apt/Packages").write_text("")
