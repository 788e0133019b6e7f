"""A package index of a test's own, in a container beside those that build, and packages made of a few lines."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.product import ROOT, Product, wait_for

SCRIPT = ROOT / "tests/support/index_server.py"
BASE = "coding-agents-base:local"


@dataclass(frozen=True)
class PackageIndex:
    """A running index at the address `url`."""

    product: Product
    container: str
    url: str

    def env(self, ca: Path) -> dict[str, str]:
        """What makes the user's builds use it; its certificate is put at `ca`."""
        ca.write_text(self.product.engine_run("exec", self.container, "cat", "/index/ca.pem"))
        registry, index = f"{self.url}/", f"{self.url}/simple/"
        return {"npm_config_registry": registry, "PIP_INDEX_URL": index, "SSL_CERT_FILE": str(ca)}

    def put(self, files: Mapping[str, bytes]) -> None:
        """Put files in their places in the index."""
        put(self.product, self.container, files)


@contextmanager
def package_index(product: Product, files: Mapping[str, bytes]) -> Iterator[PackageIndex]:
    """An index with these files, gone afterwards."""
    container = f"ca-test-{uuid.uuid4().hex[:12]}"
    product.engine_run("create", "--name", container, BASE, "python3", "-IS", "/index/server.py")
    try:
        put(product, container, {**files, "server.py": SCRIPT.read_bytes()})
        product.engine_run("start", container)
        url = wait_for(lambda: product.engine_run("logs", container).strip(), "the index to listen")
        yield PackageIndex(product, container, url)
    finally:
        product.engine_run("rm", "--force", "--volumes", container, check=False)


def put(product: Product, container: str, files: Mapping[str, bytes]) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"index/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    subprocess.run(
        (product.engine, "cp", "-", f"{container}:/"), input=data.getvalue(), env=product.env, check=True
    )


def npm_package(
    name: str, version: str, files: Mapping[str, str], *more: tarfile.TarInfo, **manifest: Any
) -> dict[str, bytes]:
    """A version of a package of npm's, with entries `more` in its archive."""
    about = {"name": name, "version": version, **manifest}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for path, content in {"package.json": json.dumps(about), **files}.items():
            entry = tarfile.TarInfo(f"package/{path}")
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))
        for entry in more:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
    place = f"npm/{name.replace('/', '+')}/{version}"
    return {f"{place}.json": json.dumps(about).encode(), f"{place}.tgz": data.getvalue()}


def wheel(
    name: str, version: str, files: Mapping[str, str], *, needs: str = "", scripts: Mapping[str, str] = {}
) -> dict[str, bytes]:
    """A wheel for every machine, with console scripts."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    entries = "[console_scripts]\n" + "".join(f"{script} = {place}\n" for script, place in scripts.items())
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path, content in {
            **files,
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": entries,
            f"{info}/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(path), content)  # the same bytes each time
    file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return {f"simple/{name.replace('_', '-')}/{file}": data.getvalue()}
