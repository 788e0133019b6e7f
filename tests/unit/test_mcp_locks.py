"""What npm and pip say of packages is hostile: what may be pinned of it, and what stops the whole."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coding_agents.errors import McpError
from coding_agents.mcp.index_errors import build_failure, index_failure
from coding_agents.mcp.locked import MAX_PACKAGES, Lock, changed_packages
from coding_agents.mcp.npm_lock import npm_lock
from coding_agents.mcp.pip_lock import pip_lock
from coding_agents.mcp.runners import Runner, runner_of

SRI = f"sha512-{'A' * 86}=="
HEX = "a" * 64


def runner(words: str) -> Runner:
    command, *args = words.split()
    got = runner_of(command, args)
    assert got is not None
    return got


NPX, UVX = runner("npx -y server"), runner("uvx server")


def entry(**changes: Any) -> dict[str, Any]:
    return {"version": "1.0.0", "integrity": SRI, **changes}


def npm(others: dict[str, Any], asked: Runner = NPX, **main: Any) -> Lock:
    packages = {"": {}, "node_modules/server": entry(bin={"server": "bin/run.js"}, **main), **others}
    return npm_lock(asked, json.dumps({"lockfileVersion": 3, "packages": packages}).encode())


def wheel(name: str, version: str = "1.0", **changes: Any) -> dict[str, Any]:
    download = {
        "url": f"https://h/{name}-{version}-py3-none-any.whl",
        "archive_info": {"hashes": {"sha256": HEX}},
    }
    return {"metadata": {"name": name, "version": version}, "download_info": download, **changes}


def pip(*wheels: dict[str, Any], machine: str = "x86_64") -> Lock:
    report = {"install": [wheel("server"), *wheels], "environment": {"platform_machine": machine}}
    return pip_lock(UVX, json.dumps(report).encode())


def test_the_lock_of_npm_has_every_package_with_its_place_and_no_address() -> None:
    got = npm({
        "node_modules/@a/b": entry(version="2.0.0-rc.1+x"),
        "node_modules/server/node_modules/@a/b": entry(name="@c/alias", integrity=f"sha1-x {SRI}"),
        "node_modules/win": entry(os=["win32"], optional=True),
        "node_modules/not": entry(os=["!linux"]),
        "node_modules/musl": entry(libc=["musl"]),
        "node_modules/arm": entry(os=["linux"], cpu=["arm64"]),
        "node_modules/ppc": entry(cpu=["ppc64"]),
        "node_modules/server/node_modules/inside": {"version": "1.0.0", "inBundle": True},
    })  # fmt: skip
    assert (got.name, got.version, got.program) == ("server", "1.0.0", "node_modules/server/bin/run.js")
    assert [(one.name, one.path.count("node_modules/"), one.cpu) for one in got.packages] == [
        ("@a/b", 1, ()), ("arm", 1, ("arm64",)), ("server", 1, ()), ("@c/alias", 2, ()),
    ]  # fmt: skip
    assert b"http" not in got.content
    assert got.describe() == "server 1.0.0 of npm, with 3 others that it needs"
    assert got.run == f"/opt/mcp/{got.digest}/run"
    assert msgspec.json.decode(msgspec.json.encode(got), type=Lock) == got


@pytest.mark.parametrize(
    ("path", "changes", "why"),
    [
        *((path, {}, "a place that no package may have") for path in (
            "node_modules/..", "node_modules/../x", "../x", "/etc", "x", "node_modules/a/b", "node_modules/a/../b",
            "node_modules//a", "node_modules/.bin", "node_modules/@a", "node_modules/a\x1b[31m", "node_modules/a/",
            "node_modules/" * 2 + "a", "node_modules/a/node_modules", "/node_modules/".join("a" * 40),
            "node_modules/" + "a" * 999,
        )),
        ("node_modules/a", {"name": "../x"}, "not a package of npm's registry"),
        ("node_modules/a", {"link": True}, "not a package of npm's registry"),
        ("node_modules/a", {"resolved": "git+ssh://h/x"}, "not a package of npm's registry"),
        ("node_modules/a", {"resolved": "https://h/x.tgz"}, "not a package of npm's registry"),
        ("node_modules/a", {"integrity": ""}, "no sha512"),
        ("node_modules/a", {"integrity": "sha1-deadbeef"}, "no sha512"),
        ("node_modules/a", {"integrity": f"sha512-{'A' * 85}\n=="}, "no sha512"),
        *(("node_modules/a", {"version": version}, "the version of a") for version in (
            "", "1", "latest", "1.0.0/../..", "1.0.0\n", "1.0.0-\x1b[2J", "file:x", "1.0.0 --x", "1.0.0-" + "a" * 101,
        )),
    ],
)  # fmt: skip
def test_one_package_of_npm_that_cannot_be_pinned_stops_all(
    path: str, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(McpError, match=why) as caught:
        npm({path: entry(**changes)})
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("words", "programs", "file"),
    [
        ("npx server", {"server": "a.js", "other": "b.js"}, "a.js"),
        ("npx server", {"one": "./x/a.js"}, "x/a.js"),
        ("npx server", {"one": "a.js", "two": "a.js"}, "a.js"),
        ("npx -p server two", {"one": "a.js", "two": "b.js"}, "b.js"),
        ("npx server", {"one": "a.js", "two": "b.js"}, "has no program of its own name"),
        ("npx server", {}, "has no program of its own name"),
        ("npx -p server two", {"one": "a.js"}, "has no program 'two'"),
        *(("npx server", {"server": file}, "at a place that no program may have") for file in (
            "../x", "a/../../x", "/etc/passwd", "", ".", "a\x1b[31m", "a b", 'a"$(x)', "a\n", "a" * 2000,
        )),
        ("npx server", {"/etc/x": "/a", "\x1b[2J": "a"}, "at a place|no program"),
    ],
)  # fmt: skip
def test_the_program_of_npm_is_found_as_npx_does_and_lies_in_its_package(
    words: str, programs: dict[str, str], file: str
) -> None:
    asked, packages = runner(words), {"node_modules/server": entry(bin=programs)}
    document = json.dumps({"lockfileVersion": 3, "packages": packages}).encode()
    if " " in file or "|" in file:
        with pytest.raises(McpError, match=file) as caught:
            npm_lock(asked, document)
        assert (caught.value.message + caught.value.hint).isprintable()
    else:
        assert npm_lock(asked, document).program == f"node_modules/server/{file}"


def test_the_lock_of_pip_has_every_wheel_with_its_hash_and_no_address() -> None:
    got = pip(wheel("Other_Thing", "2!1.0rc1+x"))
    assert [(one.name, one.version, one.integrity) for one in got.packages] == [
        ("Other_Thing", "2!1.0rc1+x", f"sha256:{HEX}"),
        ("server", "1.0", f"sha256:{HEX}"),
    ]
    assert (got.program, got.machine) == ("server", "")
    assert b"http" not in got.content
    native = wheel("native")
    native["download_info"]["url"] = "https://h/native-1.0-cp311-cp311-manylinux2014_x86_64.whl"
    assert pip(native).machine == "x86_64"


def bad_download(**changes: Any) -> dict[str, Any]:
    return wheel(
        "a", download_info={"url": "https://h/a.whl", "archive_info": {"hashes": {"sha256": HEX}}, **changes}
    )


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (bad_download(url="https://h/a.tar.gz"), "not a wheel of the index"),
        (bad_download(archive_info={"hashes": {}}), "not a wheel of the index"),
        (bad_download(archive_info={"hashes": {"sha256": "A" * 64}}), "not a wheel of the index"),
        (bad_download(archive_info=None), "not a wheel of the index"),
        (wheel("a", is_direct=True), "not a wheel of the index"),
        (wheel("server"), "names a package twice"),
        (wheel("SERVER"), "names a package twice"),
        *((wheel(name), "that none may be") for name in ("../a", "-r", "a b", "a\x1b[31m", "", "a\n", "a" * 101)),
        *((wheel("a", version), "that none may be") for version in ("", "1 --hash", "1\n", "1\x1b[31m", "-e", "1;x")),
    ],
)  # fmt: skip
def test_one_wheel_that_cannot_be_pinned_stops_all(one: dict[str, Any], why: str) -> None:
    with pytest.raises(McpError, match=why) as caught:
        pip(one)
    assert caught.value.message.isprintable()


def test_an_answer_is_bounded_and_of_the_form_that_we_know() -> None:
    with pytest.raises(McpError, match=f"more than {MAX_PACKAGES}"):
        npm({f"node_modules/a{number}": entry() for number in range(MAX_PACKAGES)})
    with pytest.raises(McpError, match=f"more than {MAX_PACKAGES}"):
        pip(*(wheel(f"a{number}") for number in range(MAX_PACKAGES)))
    with pytest.raises(McpError, match="no processor"):
        pip(machine="x86\x1b")
    for data in (b"", b"{}", b"[" * 100_000, b'{"lockfileVersion": 3, "packages": {"a": []}}'):
        with pytest.raises(McpError, match="not understood"):
            npm_lock(NPX, data)
        with pytest.raises(McpError, match="not understood"):
            pip_lock(UVX, data)
    with pytest.raises(McpError, match="no program"):
        npm_lock(NPX, b'{"lockfileVersion": 3, "packages": {}}')
    with pytest.raises(McpError, match="does not hold"):
        pip_lock(UVX, b'{"install": [], "environment": {"platform_machine": "x86_64"}}')


@given(st.binary(max_size=200))
def test_any_answer_is_a_lock_or_an_error(data: bytes) -> None:
    for read, asked in ((npm_lock, NPX), (pip_lock, UVX)):
        with pytest.raises(McpError):
            read(asked, data)


def test_a_lock_is_named_after_all_that_is_in_it() -> None:
    lock = npm({"node_modules/a": entry()})
    other = replace(lock.packages[0], integrity=f"sha512-{'B' * 86}==")
    for changed in (
        replace(lock, program="node_modules/server/x.js"),
        replace(lock, version="1.0.1"),
        replace(lock, packages=lock.packages[1:]),
        replace(lock, packages=(other, lock.packages[1])),
        replace(lock, machine="x86_64"),
    ):
        assert changed.digest != lock.digest
    assert changed_packages(lock, replace(lock, packages=(other, lock.packages[1]))) == [
        "package a 1.0.0 has other bytes"
    ]
    assert changed_packages(lock, npm({"node_modules/b": entry()}, version="1.1.0")) == [
        "package a 1.0.0 is gone", "package b 1.0.0 is new", "package server: 1.0.0 is now 1.1.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "said", "told"),
    [
        (NPX, '"code": "E404",\n"summary": "\'server@*\' is not in this registry."', "has no package server@"),
        (NPX, '"code": "ETARGET", "summary": "No matching version found for server@^9."', "no such version: server@^9"),
        (NPX, '"code": "EAI_AGAIN", "summary": "getaddrinfo EAI_AGAIN h"', "cannot be reached"),
        (NPX, '"code": "SELF_SIGNED_CERT_IN_CHAIN"', "a certificate that is not trusted"),
        (NPX, '"code": "E\x1b[31m", "summary": "\x1b[2J x"', "npm cannot tell what server needs: ?[2J x"),
        (UVX, "ERROR: No matching distribution found for server", "has no package server"),
        (UVX, "404 Client Error\nERROR: No matching distribution found for dep\x1b[2J", "has no package dep?[2J"),
        (UVX, "(from versions: 1.0, 2.0)\nERROR: No matching distribution found for server==3", "no such version"),
        (UVX, "No sources permitted for x\n(from versions: none)\nERROR: No matching distribution found for server",
         "no wheel"),
        (UVX, "Ignored the following versions that require a different python version: 2\n(from versions: none)\n"
              "ERROR: No matching distribution found for server", "no version for Python 3.11"),
        (UVX, "WARNING: Retrying NewConnectionError: Temporary failure in name resolution", "cannot be reached"),
        (UVX, "SSLError(certificate verify failed)", "a certificate that is not trusted"),
        (UVX, "ERROR: Resolution\x1b impossible", "pip cannot tell what server needs: ERROR: Resolution? impossible"),
    ],
)  # fmt: skip
def test_what_an_index_refuses_is_told_to_people(asked: Runner, said: str, told: str) -> None:
    error = index_failure(asked, said)
    assert told in error.message
    assert (error.message + error.hint).isprintable()


def test_a_build_says_why_it_failed() -> None:
    lock = npm({})
    prefix = "#9 12.3 coding-agents-mcp:"
    for line, told in (
        ("integrity: a 1.0.0", "other bytes than those that were pinned: a 1.0.0"),
        ("archive: a 1.0.0 names\x1b[2J a place", "cannot be installed: a 1.0.0 names?[2J a place"),
        ("machine: x86_64 aarch64", "another processor"),
        ("index: npm ERR! EAI_AGAIN", "no network"),
        ("index: npm ERR! E404 Not Found", "cannot be fetched: npm ERR! E404"),
    ):
        error = build_failure(lock, f"docker build\nexit status 1\n{prefix} {line}\nmore")
        assert error is not None
        assert told in error.message
    assert build_failure(lock, "no space left on device") is None
