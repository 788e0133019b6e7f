"""Registries read out of package managers' configuration: addresses alone, and as narrow as rules can be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.app.registries import host_registries
from coding_agents.images.apt import parse_deb822, parse_list
from coding_agents.network.registries import (
    Place,
    further_files,
    places_in_environment,
    places_in_file,
    registry_rules,
)
from coding_agents_guest.egress.rules import Request, Rules, parse_rule
from support.host import host_environment

TOKEN = "s3cr3t-0123456789"
PIP = f"""
[global]
index-url = https://user:{TOKEN}@index.example/simple
extra-index-url =
    https://second.example:8443/simple
    http://third.example/simple/
[install]
find-links = /opt/wheels https://wheels.example/
"""
NPM = f"""
; registry=https://commented.example
registry = "https://npm.example/group/"
@corp:registry=https://${{WHERE}}.example/npm
//npm.example/group/:_authToken={TOKEN}
"""
CARGO = f"""
[registries.corp]
index = "sparse+https://crates.example/index/"
token = "{TOKEN}"
[registries.git]
index = "ssh://git@git.example/index.git"
[source.mirror]
registry = "https://mirror.example/git/index"
"""
NUGET = f"""<?xml version="1.0"?>
<configuration>
  <packageSources><clear/>
    <add key="corp" value="https://nuget.example/v3/index.json"/><add key="here" value="/srv/nuget"/>
  </packageSources>
  <packageSourceCredentials><corp><add key="ClearTextPassword" value="{TOKEN}"/></corp></packageSourceCredentials>
</configuration>"""
DOCKER = '{"registry-mirrors": ["https://docker.example"], "insecure-registries": ["http://odd.example"]}'
APT = """
deb [signed-by=/x.gpg] http://mirror.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb-src http://sources.example/debian bookworm main
"""
DEB822 = "\n".join(
    (
        "Types: deb",
        "URIs: http://mirror.example/debian https://tls.example/debian",
        "Suites: x",
        "Components: main",
    )
)


def rules_in(manager: str, text: str, name: str = "file", **environ: str) -> tuple[str, ...]:
    def apt(lines: str) -> list[str]:
        return [one.uri for one in (parse_deb822(lines) if name.endswith(".sources") else parse_list(lines))]

    found = places_in_file(manager, name, text, environ=environ, apt=apt)
    rules, problems = registry_rules(found.places)
    assert (found.problems, problems) == ((), ())
    return rules


@pytest.mark.parametrize(
    ("manager", "text", "rules"),
    [
        ("pip", PIP, ("https://index.example", "https://second.example:8443",
                      "GET,HEAD http://third.example/simple/", "https://wheels.example")),
        ("npm", NPM, ("https://npm.example", "https://corp.example")),
        ("cargo", CARGO, ("https://crates.example", "https://mirror.example")),
        ("nuget", NUGET, ("https://nuget.example",)),
        ("docker", DOCKER, ("https://docker.example",)),
        ("apt", APT, ("GET,HEAD http://mirror.example/debian/",)),
    ],
)  # fmt: skip
def test_addresses_alone_are_taken(manager: str, text: str, rules: tuple[str, ...]) -> None:
    assert rules_in(manager, text, WHERE="corp") == rules


def test_both_forms_of_apts_lists_are_read() -> None:
    expected = ("GET,HEAD http://mirror.example/debian/", "https://tls.example")
    assert rules_in("apt", DEB822, "x.sources") == expected


def test_plain_http_is_opened_for_reading_below_its_path_alone() -> None:
    (text,) = registry_rules([Place("apt", "http://mirror.example/debian", "x")])[0]
    rules = Rules([parse_rule(text, "registry")])
    allowed = [
        rules.decide(Request("http", "mirror.example", 80, method, path)).allowed
        for method, path in (
            ("GET", "/debian/x"),
            ("POST", "/debian/x"),
            ("GET", "/other"),
            ("GET", "/debian-x"),
        )
    ]
    assert allowed == [True, False, False, False]
    assert not rules.decide(Request("https", "mirror.example", 443)).allowed


@pytest.mark.parametrize(
    ("manager", "text", "where"),
    [
        ("pip", f"[global]\nthis is {TOKEN}\n", "line 2"),
        ("pip", f"index-url = {TOKEN}\n", "line 1"),
        ("cargo", f'[registries]\ntoken = "{TOKEN}\n', "line 2"),
        ("nuget", f"<configuration>\n<{TOKEN}", "line 2"),
        ("nuget", f'<!DOCTYPE x [<!ENTITY e "{TOKEN}">]><configuration/>', "entities"),
        ("docker", f'{{"a": {TOKEN}}}', "line 1"),
        ("docker", "[" * 100_000, "line 1"),
    ],
)
def test_a_malformed_file_is_told_without_its_words(manager: str, text: str, where: str) -> None:
    found = places_in_file(manager, "/etc/it", text, environ={}, apt=lambda _: ())
    assert found.places == ()
    (problem,) = found.problems
    assert problem.startswith("/etc/it is not understood (")
    assert where in problem
    assert TOKEN not in problem


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{TOKEN}@10.0.0.1/simple",
        f"https://user:{TOKEN}@localhost:8080/",
        f"http://user:{TOKEN}@index.example/a%2f/{TOKEN}",
        f"http://index.example/hf_{30 * 'a'}{TOKEN}",
        f"https://{TOKEN}:index.example",
        f"https://[{TOKEN}/",
    ],
)
def test_what_can_be_no_rule_is_told_without_its_credentials(url: str) -> None:
    rules, problems = registry_rules([Place("pip", url, "PIP_INDEX_URL")])
    assert rules == ()
    assert len(problems) == 1
    assert TOKEN not in problems[0]


@given(st.text(max_size=80), st.sampled_from(["http", "https", "sparse+https", "git+ssh"]))
def test_no_address_makes_more_of_itself_than_a_rule_for_one_host(rest: str, scheme: str) -> None:
    rules, _ = registry_rules([Place("pip", f"{scheme}://{rest}", "x")])
    for text in rules:
        rule = parse_rule(text, "registry")
        assert not rule.below
        assert rule.methods in ((), ("GET", "HEAD"))


def test_a_hosts_user_is_asked_by_files_and_variables_and_no_repository_is(tmp_path: Path) -> None:
    home, elsewhere, here = (tmp_path / name for name in ("home", "elsewhere", "repo"))
    for path, text in (
        (home / ".npmrc", NPM),
        (home / ".config/pip/pip.conf", PIP),
        (home / ".cargo/config.toml", "]["),
        (elsewhere / "pip.conf", "[global]\nindex-url = https://named.example/\n"),
        (here / ".npmrc", "registry=https://hostile.example/\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (home / ".pip").mkdir()
    (home / ".pip/pip.conf").symlink_to("/dev/zero")
    environ = {
        "PIP_CONFIG_FILE": str(elsewhere / "pip.conf"), "PIP_EXTRA_INDEX_URL": "https://a.example https://b.example",
        "NPM_CONFIG_REGISTRY": f"https://me:{TOKEN}@variable.example/", "WHERE": "corp",
    }  # fmt: skip
    found = host_registries(host_environment(home, cwd=here, **environ))
    rules, _ = registry_rules(found.places)
    hosts = {parse_rule(text, "registry").host for text in rules}
    assert hosts >= {
        "a.example", "b.example", "variable.example", "named.example", "npm.example", "corp.example", "index.example"
    }  # fmt: skip
    assert "hostile.example" not in hosts
    assert TOKEN not in repr(rules)
    managed = host_registries(host_environment(home, cwd=here, **environ), managed=True)
    assert not [place for place in managed.places if "example" in place.url]
    said = [problem for problem in found.problems if str(home) in problem]
    assert sorted(one.partition(" ")[0] for one in said) == [
        f"{home}/.cargo/config.toml",
        f"{home}/.pip/pip.conf",
    ]


def test_variables_name_further_files_and_places() -> None:
    environ = {
        "CARGO_HOME": "/c", "npm_config_userconfig": "/u", "PIP_CONFIG_FILE": "pip.conf",
        "CARGO_REGISTRIES_CORP_INDEX": "sparse+https://c.example/",
    }  # fmt: skip
    assert set(further_files(environ)) == {("cargo", "/c/config.toml"), ("cargo", "/c/config"), ("npm", "/u")}
    assert registry_rules(places_in_environment(environ))[0] == ("https://c.example",)
