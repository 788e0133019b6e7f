"""Large files (Git LFS) in real sessions: in, home, by salvage, and never removed with what is nowhere else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from support.product import Product, git, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.alike]

NEW = b"new content\n"


@pytest.fixture
def large(repo: Path) -> Path:
    """A repository whose `*.bin` are large files."""
    for key, value in (("clean", "git-lfs clean -- %f"), ("smudge", "git-lfs smudge -- %f"),
                       ("process", "git-lfs filter-process"), ("required", "true")):  # fmt: skip
        git(repo, "config", f"filter.lfs.{key}", value)
    (repo / ".gitattributes").write_text("*.bin filter=lfs -text\n")
    (repo / "large.bin").write_bytes(b"large\n")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "large files")
    return repo


def kept(repo: Path, content: bytes) -> bool:
    oid = hashlib.sha256(content).hexdigest()
    place = repo / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid
    return place.is_file() and place.read_bytes() == content


def test_it_goes_in_and_comes_home(product: Product, large: Path) -> None:
    script = (
        "rm large.bin && git checkout -- large.bin && grep -q large large.bin && echo new content > new.bin && "
        "git add . && git commit -qm new && echo not committed > other.bin"
    )
    product.launch(large, "--network-proxy", "restricted", "--", "sh", "-c", script)
    assert kept(large, NEW)
    assert kept(large, b"not committed\n")
    git(large, "checkout", "-q", "demo/session-1")
    assert (large / "new.bin").read_bytes() == NEW
    assert (large / "other.bin").read_bytes() == b"not committed\n"


def test_it_comes_home_from_a_killed_session(product: Product, large: Path) -> None:
    name = product.launch_detached(
        large,
        "echo new content > new.bin; git add .; git commit -qm new; echo u > u.bin; touch .git/ok; sleep 600",
    )
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent's files")
    product.engine_run("kill", name)
    wait_for(lambda: product.state(name) == "stopped", "the end of the killed session")
    assert product.session(name)["saved"]["verified"]
    assert kept(large, NEW)
    assert kept(large, b"u\n")
    product.run("remove", name)
    git(large, "checkout", "-q", "demo/session-1")
    assert (large / "u.bin").read_bytes() == b"u\n"


def test_a_volume_that_alone_has_a_large_file_is_not_removed(product: Product, large: Path) -> None:
    product.run("config", "set", "relay.push", "1m")
    script = "head -c 3000000 /dev/urandom > huge.bin; echo w > w"
    name = product.launch_detached(large, f"{script}; touch .git/ok; sleep 600")
    wait_for(lambda: product.exec(name, "test -e .git/ok", status=None).status == 0, "the agent's files")
    product.run("stop", name)
    saved = product.session(name)["saved"]
    assert git(large, "show", "demo/session-1:w") == "w"
    assert "huge.bin" in saved["note"]
    assert "relay.push" in saved["note"]
    assert not saved["verified"]
    refused = product.run("remove", name, status=None)
    assert refused.status != 0
    assert "huge.bin" in refused.err
    product.run("config", "set", "relay.push", "100m")
    product.run("remove", name)
    git(large, "checkout", "-q", "demo/session-1")
    assert (large / "huge.bin").stat().st_size == 3_000_000
