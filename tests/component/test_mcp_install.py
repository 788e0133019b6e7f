"""What unpacks npm's archives in the builder's stage: whatever is in them, only files of the layer come out."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import stat
import subprocess
import sys
import tarfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from support.product import ROOT

IMAGES = ROOT / "images/mcp"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program as a module, with a cache of its own and nobody's files given away."""
    monkeypatch.syspath_prepend(str(IMAGES / "ask"))
    spec = importlib.util.spec_from_file_location("mcp_install", IMAGES / "fetch/install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    sys.modules.pop("ask", None)
    monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(os, "chown", lambda *_: None)
    return module


def entry(name: str, kind: bytes = tarfile.REGTYPE, *, mode: int = 0o644, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mode, made.linkname = kind, mode, link
    made.size = 4 if kind == tarfile.REGTYPE else 0
    return made


def cached(cache: Path, *entries: tarfile.TarInfo, content: bytes = b"text") -> dict[str, str]:
    """Put an archive where npm's cache has it, and name it as a lock does."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for one in entries:
            archive.addfile(one, io.BytesIO(content))
    digest = hashlib.sha512(data.getvalue())
    name = digest.hexdigest()
    place = cache / "_cacache/content-v2/sha512" / name[:2] / name[2:4] / name[4:]
    place.parent.mkdir(parents=True)
    place.write_bytes(data.getvalue())
    return {"name": "a", "version": "1.0.0", "integrity": f"sha512-{b64encode(digest.digest()).decode()}"}


def found(root: Path) -> dict[str, int]:
    return {path.relative_to(root).as_posix(): stat.S_IMODE(path.lstat().st_mode) for path in root.rglob("*")}


def test_only_files_come_out_and_none_with_a_privilege(install: Any, tmp_path: Path) -> None:
    package = cached(
        tmp_path / "cache",
        entry("package/bin/run", mode=0o6777),
        entry("other/plain", mode=0o666),
        entry("package/dir", tarfile.DIRTYPE, mode=0o777),
        entry("package/link", tarfile.SYMTYPE, link="/etc/passwd"),
        entry("package/bin", tarfile.SYMTYPE, link="/etc"),
        entry("package/hard", tarfile.LNKTYPE, link="package/bin/run"),
        entry("package/fifo", tarfile.FIFOTYPE),
        entry("package/device", tarfile.CHRTYPE),
        entry("package"),
    )
    root = tmp_path / "root"
    install.unpack(package, root / "a", install.Room())
    install.tidy(root)
    assert found(root) == {"a": 0o755, "a/bin": 0o755, "a/bin/run": 0o755, "a/plain": 0o644}


@pytest.mark.parametrize(
    "name", ["package/../../out", "package/a/../../../out", "/out", "//x/out", "package/.."]
)
def test_an_archive_that_climbs_is_refused(install: Any, tmp_path: Path, name: str) -> None:
    package = cached(tmp_path / "cache", entry(name))
    with pytest.raises(install.Refused, match="a place above its own"):
        install.unpack(package, tmp_path / "root/a/b", install.Room())
    assert not [path for path in tmp_path.rglob("out") if path.is_file()]


def test_other_bytes_than_those_of_the_lock_are_refused(install: Any, tmp_path: Path) -> None:
    package = cached(tmp_path / "cache", entry("package/a"))
    other = {**package, "integrity": f"sha512-{'B' * 86}=="}
    with pytest.raises(
        install.Refused, match=r"integrity: a 1\.0\.0"
    ):  # npm has fetched what the index says now
        install.unpack(other, tmp_path / "root/a", install.Room())
    for path in (tmp_path / "cache").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes() + b"x")  # and its cache is not believed either
    with pytest.raises(install.Refused, match=r"integrity: a 1\.0\.0"):
        install.unpack(package, tmp_path / "root/a", install.Room())


def test_what_is_unpacked_is_bounded(install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = cached(tmp_path / "cache", *(entry(f"package/{number}") for number in range(3)))
    for name, value in (("MAX_BYTES", 11), ("MAX_FILES", 2)):
        with monkeypatch.context() as changed:
            changed.setattr(install, name, value)
            with pytest.raises(install.Refused, match="size: "):
                install.unpack(package, tmp_path / name, install.Room())
    install.unpack(package, tmp_path / "root", install.Room())


def test_a_link_of_whoever_stops_all(install: Any, tmp_path: Path) -> None:
    (tmp_path / "root/a").mkdir(parents=True)
    (tmp_path / "root/a/link").symlink_to("/etc")
    with pytest.raises(install.Refused, match="neither a file nor a directory"):
        install.tidy(tmp_path / "root")


def test_the_launcher_starts_the_program_alone_with_its_words(install: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    program = root / "pro_gram-1.@+~js"
    program.write_text('#!/bin/sh\necho "$#:$1:$2"; command -v x\n')
    program.chmod(0o755)
    install.launcher(root, program, "npm")
    said = subprocess.run((root / "run", "a b", "$(x)"), capture_output=True, text=True, check=False).stdout
    assert said == "2:a b:$(x)\n"
    for name in ("a b", "a$(x)", 'a"', "a\nb", "a;b"):
        with pytest.raises(install.Refused, match="its path is none"):
            install.launcher(root, root / name, "npm")


def test_what_failed_is_one_line(install: Any) -> None:
    def why(said: str) -> str:
        done = subprocess.CompletedProcess((), 1, said.encode(), b"")
        return str(install.why(done))

    assert (
        why("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n    a==1.0 from https://h/a.whl:\n")
        == "integrity: a==1.0"
    )
    assert why("npm ERR! code EINTEGRITY\nnpm ERR! sha512-x integrity checksum failed").startswith(
        "integrity: "
    )
    assert (
        why("npm ERR! code E404\nother\nnpm ERR! Not Found")
        == "index: npm ERR! code E404 | npm ERR! Not Found"
    )
