"""Images as values: apt's sources, recipes and their hashes, what a builder stage gets, what is pruned."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import ImageBuildError, ManifestError
from coding_agents.images.apt import (
    KEYRING,
    Source,
    base_sources,
    host_suite,
    parse_deb822,
    parse_list,
    read_sources,
)
from coding_agents.images.build import current_image, plan_images
from coding_agents.images.buildlog import failure_hint
from coding_agents.images.data import data_dir, read_tree, tree_hash, write_tree
from coding_agents.images.hostnet import host_certificates, proxy_arguments
from coding_agents.images.listing import list_images, prune_images
from coding_agents.images.manifests import find_agent, list_manifests, load_manifest
from coding_agents.images.recipes import agent_recipes, base_packages, base_recipe, builder_files
from coding_agents.images.rootfs import has_subordinate_ids, rootfs_argv, rootfs_environment
from coding_agents.model.manifest import parse_manifest
from support.image_engine import ImageEngineStub

_MANIFEST = 'name = "{name}"\ntitle = "T"\n[command]\ninteractive = ["x"]\n'
_CERTIFICATE = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----"
_KEY = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----"


# --- apt's sources


def test_deb822_sources() -> None:
    text = """# a comment
Types: deb deb-src
URIs: http://mirror.test/debian
# in between
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
Enabled: no
URIs: http://off.test/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.test/debian
Suites: bookworm
Components: main
"""
    assert list(parse_deb822(text)) == [
        Source("http://mirror.test/debian", "bookworm", ("main", "contrib"), KEYRING),
        Source("http://mirror.test/debian", "bookworm-updates", ("main", "contrib"), KEYRING),
    ]


def test_one_line_sources() -> None:
    text = """# deb http://no.test/debian bookworm main
deb-src http://no.test/debian bookworm main
deb http://a.test/debian bookworm main non-free # comment
deb [arch=amd64 signed-by=/etc/apt/keyrings/k.gpg] http://b.test/x bookworm main
deb http://short.test/x ./
"""
    assert list(parse_list(text)) == [
        Source("http://a.test/debian", "bookworm", ("main", "non-free")),
        Source("http://b.test/x", "bookworm", ("main",), "/etc/apt/keyrings/k.gpg"),
    ]


def test_all_files_of_apt_are_read(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.test/d bookworm main\n")
    (tmp_path / "sources.list.d" / "x.list").write_text("deb http://b.test/d bookworm main\n")
    (tmp_path / "sources.list.d" / "y.sources").write_text(
        "Types: deb\nURIs: http://c.test/d\nSuites: bookworm\nComponents: main\n"
    )
    (tmp_path / "sources.list.d" / "z.list.save").write_text("deb http://no.test/d bookworm main\n")
    assert [source.uri for source in read_sources(tmp_path)] == [f"http://{x}.test/d" for x in "abc"]
    assert read_sources(tmp_path / "missing") == ()


def test_the_host_may_be_a_later_debian() -> None:
    sources = [
        Source("http://m.test/debian", suite, ("main",))
        for suite in ("trixie", "trixie-updates", "trixie-backports")
    ]
    assert base_sources(sources, host_suite="trixie") == (
        f"deb [signed-by={KEYRING}] http://m.test/debian bookworm main",
        f"deb [signed-by={KEYRING}] http://m.test/debian bookworm-updates main",
    )


def test_other_vendors_are_left_out_and_a_resigned_mirror_is_used() -> None:
    debian = Source("http://m.test/debian", "bookworm", ("main",))
    vendor = Source("http://v.test/debian", "bookworm", ("main",), "/etc/apt/keyrings/vendor.gpg")
    stable = Source("http://s.test/debian", "bookworm", ("stable",))
    assert [line.split()[2] for line in base_sources([vendor, stable, debian], host_suite="bookworm")] == [
        debian.uri
    ]
    assert base_sources([vendor], host_suite="bookworm") == (
        "deb [signed-by=/etc/apt/keyrings/vendor.gpg] http://v.test/debian bookworm main",
    )


def test_sources_that_cannot_be_used() -> None:
    with pytest.raises(ImageBuildError, match="no source of bookworm main"):
        base_sources([Source("http://m.test/debian", "bookworm-updates", ("main",))], host_suite="bookworm")
    with pytest.raises(ImageBuildError, match="password"):
        base_sources([Source("http://me:pw@m.test/debian", "bookworm", ("main",))], host_suite="bookworm")


def test_the_host_suite_is_debians() -> None:
    assert host_suite('ID=debian\nVERSION_CODENAME=trixie\nNAME="x"\n') == "trixie"
    with pytest.raises(ImageBuildError, match="Debian only"):
        host_suite('ID=fedora\nVERSION_CODENAME=""\n')


# --- recipes


def test_recipes_are_the_same_each_time_and_the_agent_follows_the_base() -> None:
    base = base_recipe()
    demo = agent_recipes(find_agent("demo"), base)[-1]
    assert (base, demo) == (base_recipe(), agent_recipes(find_agent("demo"), base_recipe())[-1])
    assert demo.base == base.ref == "coding-agents-base:local"
    assert demo.ref == "coding-agents-demo:local"
    assert (
        agent_recipes(find_agent("demo"), msgspec.structs.replace(base, inputs="0"))[-1].inputs != demo.inputs
    )
    assert {"git", "git-lfs", "tmux", "gnupg", "openssh-client", "python3", "ripgrep"} <= set(
        base_packages(base.tree)
    )


@given(
    st.dictionaries(st.text(min_size=1), st.binary(), max_size=4),
    st.dictionaries(st.text(min_size=1), st.binary(), max_size=4),
)
def test_property_the_hash_tells_trees_apart(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (tree_hash(one) == tree_hash(other)) == (one == other)
    assert tree_hash(dict(reversed(one.items()))) == tree_hash(one)


def test_the_hash_cannot_be_confused_by_moving_bytes() -> None:
    assert tree_hash({"ab": b"c"}) != tree_hash({"a": b"bc"})
    assert tree_hash({}, "a", "b") != tree_hash({}, "ab") != tree_hash({}, "tree", "ab")


def test_a_tree_is_read_and_written_with_programs_executable(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub" / "__pycache__").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "run").write_text("#!/bin/sh\n")
    (tmp_path / "in" / "plain").write_text("x")
    (tmp_path / "in" / "plain").chmod(0o777)
    (tmp_path / "in" / "sub" / "__pycache__" / "x.pyc").write_text("x")
    tree = read_tree(tmp_path / "in")
    assert set(tree) == {"plain", "sub/run"}
    write_tree(tree, tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "run").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "plain").stat().st_mode & 0o777 == 0o644
    (tmp_path / "in" / "link").symlink_to("/etc/passwd")
    with pytest.raises(ImageBuildError, match="symbolic link"):
        read_tree(tmp_path / "in")


def test_our_files_name_no_host_and_no_setuid() -> None:
    for tree in (read_tree(data_dir("images")), read_tree(data_dir("agents"))):
        for name, content in tree.items():
            hosts = [word for word in content.split() if re.search(rb"://[A-Za-z0-9]", word)]
            allowed = [b"127.0.0.1", b"git://", *_model_hosts(name, content)]
            assert [host for host in hosts if not any(part in host for part in allowed)] == [], name


def _model_hosts(name: str, content: bytes) -> list[bytes]:
    """A manifest names its provider; hosts of package registries come from the package managers' configuration."""
    if not name.endswith(".toml") or b"model_hosts" not in content:
        return []
    manifest = parse_manifest(content, origin=name)
    renewed_at = (urlsplit(login.renewal.url).hostname or "" for login in manifest.login if login.renewal)
    return [host.encode() for host in (*manifest.model_hosts, *renewed_at)]


# --- the user's own agents


def test_a_users_agent_runs_in_the_base_or_in_its_own_image(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text(_MANIFEST.format(name="plain"))
    (tmp_path / "own.toml").write_text(_MANIFEST.format(name="own"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\n")
    assert [recipe.ref for recipe in plan_images("plain", tmp_path)] == ["coding-agents-base:local"]
    assert [recipe.ref for recipe in plan_images("own", tmp_path)][1:] == ["coding-agents-own:local"]
    assert [m.name for m in list_manifests(tmp_path)] == [
        *("claude", "codex", "copilot", "demo", "gemini", "opencode"),
        "own",
        "plain",
    ]


def test_what_is_wrong_with_a_users_agent_is_said(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="unknown agent 'cluade'") as caught:
        load_manifest("cluade", tmp_path)
    assert (
        caught.value.hint
        == "Did you mean 'claude'? Known agents: claude, codex, copilot, demo, gemini, opencode."
    )
    (tmp_path / "a.toml").write_text(_MANIFEST.format(name="b"))
    with pytest.raises(ManifestError, match=r"name is 'b', but the file is called 'a\.toml'"):
        load_manifest("a", tmp_path)
    (tmp_path / "a.toml").write_text(
        _MANIFEST.format(name="a")
        + f'[packages.p]\npackage = "p"\nversion = "1"\nintegrity = {{ x64 = "sha512-{"A" * 86}==" }}\n'
    )
    with pytest.raises(ManifestError, match="nothing installs it"):
        plan_images("a", tmp_path)
    (tmp_path / "demo.toml").write_text(_MANIFEST.format(name="demo"))
    with pytest.raises(ManifestError, match="the name of an agent of coding-agents"):
        load_manifest("demo", tmp_path)


# --- the way out of a builder stage


def test_certificates_without_keys(tmp_path: Path) -> None:
    one, two = (_CERTIFICATE.format(text) for text in ("AAAA", "BBBB"))
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "own.crt").write_text(f"{one}\n{_KEY}\n")
    (tmp_path / "bundle.pem").write_text(f"# bundle\n{two}\n{one}\n")
    environment = {"SSL_CERT_FILE": str(tmp_path / "bundle.pem"), "NODE_EXTRA_CA_CERTS": "/nonexistent"}
    assert host_certificates(environment, tmp_path / "local").decode() == f"{one}\n{two}\n"
    assert host_certificates({}, tmp_path / "missing") == b""


def test_proxies_in_both_spellings() -> None:
    environment = {"https_proxy": "http://p.test:1", "NO_PROXY": "x", "HTTP_PROXY": "", "OTHER": "y"}
    assert proxy_arguments(environment) == {
        "HTTPS_PROXY": "http://p.test:1", "https_proxy": "http://p.test:1", "NO_PROXY": "x", "no_proxy": "x",
    }  # fmt: skip


def test_builder_files_have_the_pins_in_debians_words() -> None:
    recipe = plan_images("claude")[-1]
    rows = [line.split("\t") for line in builder_files(recipe, b"CA")["builder/pins"].decode().splitlines()]
    assert {row[0] for row in rows} == {"amd64", "arm64"}
    assert all(len(row) == 5 and row[4].startswith("sha512-") for row in rows)
    assert builder_files(recipe, b"CA")["builder/host-ca.crt"] == b"CA"
    assert "builder/host-ca.crt" not in builder_files(recipe, b"")


def test_mmdebstrap_gets_an_environment_of_our_choice(tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin",
        "http_proxy": "p",
        "SECRET_TOKEN": "s",
        "TMPDIR": "/elsewhere",
        "HOME": "/h",
    }
    assert rootfs_environment(environment, work=tmp_path) == {
        "PATH": "/usr/bin:/usr/sbin:/sbin", "http_proxy": "p", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8",
        "TMPDIR": str(tmp_path),
    }  # fmt: skip
    argv = rootfs_argv(("git", "tmux"), tar=tmp_path / "root.tar")
    assert "--include=git,tmux" in argv
    assert argv[-3:] == ("bookworm", str(tmp_path / "root.tar"), "base.list")


@pytest.mark.parametrize(
    ("text", "enough"),
    [
        ("ada:100000:65536", True),
        ("1001:5:70000", True),
        ("ada:100000:10", False),
        ("bob:1:65536", False),
        ("", False),
    ],
)
def test_subordinate_ids(text: str, enough: bool) -> None:
    assert has_subordinate_ids(text, user="ada", uid=1001) is enough


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("npm ERR! code SELF_SIGNED_CERT_IN_CHAIN", "root certificate"),
        ("write /x: no space left on device", "Free some space"),
        ("Temporary failure resolving 'mirror.test'", "HTTP_PROXY"),
        ("integrity of x@1: expected a, got b", "do not trust"),
        ("something else", ""),
    ],
)
def test_a_failed_build_says_what_to_do(log: str, words: str) -> None:
    assert words in failure_hint(log)
    assert bool(words) == bool(failure_hint(log))


# --- what there is


def _engine_with_all() -> ImageEngineStub:
    engine = ImageEngineStub()
    for recipe in {
        recipe.ref: recipe for name in ("demo", "claude") for recipe in plan_images(name)
    }.values():
        engine.add(recipe.ref, recipe.labels)
    return engine


def test_the_list_tells_current_outdated_and_missing() -> None:
    engine = _engine_with_all()
    engine.add("coding-agents-demo:local", {"coding-agents.inputs": "old"})
    engine.remove_image("coding-agents-claude:local")
    states = {status.agent: status.state for status in list_images(engine)}
    built = {"base": "current", "npm": "current", "claude": "missing", "demo": "outdated"}
    assert states == built | dict.fromkeys(("proxy", "codex", "copilot", "gemini", "opencode"), "missing")


def test_prune_takes_what_was_replaced_and_what_builds_left() -> None:
    engine = _engine_with_all()
    old = engine.image_id("coding-agents-demo:local")
    engine.add("coding-agents-demo:local", plan_images("demo")[-1].labels)
    stage = engine.add("", {"coding-agents.stage": "builder"})
    used = engine.add("", {"coding-agents.inputs": "older"})
    foreign = engine.add("postgres:16", {})
    engine.in_use = frozenset({used})
    pruned = prune_images(engine)
    assert set(pruned.removed) == {old, stage}
    assert pruned.in_use == (used,)
    assert pruned.size_bytes == 2000
    assert foreign in engine.rows
    assert current_image(engine, plan_images("demo")[-1]) is not None


def test_prune_unused_takes_the_base_last() -> None:
    engine = _engine_with_all()
    assert prune_images(engine, unused=True).removed[-1] == "coding-agents-base:local"
    assert engine.rows == {}
