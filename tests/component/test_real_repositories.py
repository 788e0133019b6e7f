"""Rules for secrets on the repositories of other people: lock files, YAML, certificates, and the keys of their tests.

Debian's sources of them, by apt; what npm makes of a dependency, by npm. Nothing of them is run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

import pytest

from coding_agents.gitsync.findings.rules import load_rules
from support.aptroot import apt_of, run, this_release

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

KEY, ASSIGNED = "secret.private-key", "secret.assigned"
# What a package must contain for this to mean something, and the secrets that its tests are made with, by path.
PACKAGES: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "caddy": (("go.sum", "*.crt"), {"*/caddytest/*.key": KEY}),
    "prometheus": (
        ("go.sum", "*.yml", "*.yaml", "*.cer"),
        {"*/scrape/testdata/*.key": KEY, "*/discovery/hetzner/mock_test.go": ASSIGNED},
    ),
    "rails": (
        ("yarn.lock", "Gemfile.lock", "*.yml"),
        {
            "*/ingresses/mailgun/inbound_emails_controller_test.rb": ASSIGNED,
            "*/http_token_authentication_test.rb": ASSIGNED,
        },
    ),
    "rich": (("poetry.lock", "*.yml"), {}),
    "rust-ripgrep": (("Cargo.lock", "*.yml"), {}),
}
_LARGEST = 4 << 20  # as `review` has it


@pytest.fixture(scope="module")
def apt(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    if not shutil.which("apt-get") or not this_release():
        pytest.skip("needs Debian")
    return apt_of(this_release(), tmp_path_factory.mktemp("apt"), sources=True)


def found_in(files: Iterator[tuple[str, bytes]]) -> tuple[set[str], set[tuple[str, str]]]:
    """The paths of `files`, and which rule sees a secret in which of them."""
    paths, hits = set(), set()
    for path, data in files:
        paths.add(path)
        hits |= {(rule.id, path) for rule in load_rules().secrets if next(rule.values(data), None)}
    return paths, hits


def unpacked(place: Path) -> Iterator[tuple[str, bytes]]:
    for archive in sorted(place.glob("*.tar.*z*")):
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.size <= _LARGEST and (file := tar.extractfile(member)):
                    yield member.name, file.read()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_secret_is_seen_but_those_of_the_tests(apt: tuple[str, ...], tmp_path: Path, package: str) -> None:
    run(*apt, "source", "--download-only", package, cwd=tmp_path)
    contains, known = PACKAGES[package]
    paths, hits = found_in(unpacked(tmp_path))
    for pattern in contains:
        assert any(fnmatch(path, f"*/{pattern}") for path in paths), pattern
    unknown = {
        (rule, path)
        for rule, path in hits
        if not any(fnmatch(path, pattern) and rule == one for pattern, one in known.items())
    }
    assert unknown == set()
    for pattern, rule in known.items():
        assert any(fnmatch(path, pattern) and one == rule for one, path in hits), pattern


def test_no_secret_is_seen_in_a_lock_file_of_npm(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    (tmp_path / "package.json").write_text('{"name": "x", "version": "1.0.0"}')
    argv = (npm, "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund", "express@4")
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    lock = tmp_path / "package-lock.json"
    integrity = [one.get("integrity") for one in json.loads(lock.read_bytes())["packages"].values()]
    assert sum(map(bool, integrity)) > 30
    assert found_in(iter([(lock.name, lock.read_bytes())]))[1] == set()
