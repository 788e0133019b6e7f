"""What the rules of a review say of names, entries, content and manifests, and what they leave alone."""

from __future__ import annotations

import json
import random
import string
import sysconfig
import time
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import ConfigError
from coding_agents.gitsync.findings.authors import judge_people
from coding_agents.gitsync.findings.content import judge_content
from coding_agents.gitsync.findings.manifests import judge_manifest
from coding_agents.gitsync.findings.model import ABSENT, Change, Entry, Finding, Severity, ranked
from coding_agents.gitsync.findings.modes import judge_link, judge_mode
from coding_agents.gitsync.findings.names import judge_path, judge_rules, passes_for_git
from coding_agents.gitsync.findings.rules import load_rules, parse_rules

ROOT = Path(__file__).parents[2]
BLOCK, WARN, NOTE = Severity.BLOCK, Severity.WARN, Severity.NOTE


# --- names ----------------------------------------------------------------------------------------------

NAMED = {
    "ci": ".github/workflows/ci.yml sub/.github/workflows/x.yaml .gitlab-ci.yml .gitlab/x.yml .ci/run Jenkinsfile",
    "hooks": ".husky/pre-commit lefthook.yml .pre-commit-config.yaml a/.githooks/x/y",
    "git.config": ".gitmodules .lfsconfig .GITMODULES .gitmodules.",
    "git.attributes": ".gitattributes deep/.gitattributes",
    "editor": ".vscode/tasks.json .devcontainer/devcontainer.json x.code-workspace .VSCode/settings.json",
    "environment": ".envrc .env .env.local flake.nix",
    "interpreter": "sitecustomize.py lib/x.pth",
    "agent.config": ".mcp.json .claude/settings.json .coding-agents.toml .cursor/mcp.json",
    "agent.instructions": "CLAUDE.md AGENTS.md .cursor/rules/x.mdc .claude/skills/a.md .github/copilot-instructions.md",
    "package.sources": ".npmrc web/.npmrc pip.conf .cargo/config.toml .yarn/releases/y.cjs",
    "package.build": "setup.py build.rs x.gemspec",
    "build": "Makefile src/Makefile CMakeLists.txt build.gradle.kts Dockerfile Dockerfile.dev docker-compose.yml"
    " conftest.py eslint.config.mjs App.csproj gradle/wrapper/gradle-wrapper.properties",
}
FREE = (
    "README.md src/app.py docs/makefile.md package.jsonx environment a.env.py"
    " .github/ISSUE_TEMPLATE/a.md x/gitlab/y.yml"
)


@pytest.mark.parametrize(
    ("rule", "path"), [(rule, path) for rule, paths in NAMED.items() for path in paths.split()]
)
def test_a_path_that_something_obeys(rule: str, path: str) -> None:
    found = judge_rules(path, load_rules())
    assert found is not None
    assert (found.rule, found.path) == (rule, path)
    assert found.detail


def test_every_rule_by_path_has_a_path_here() -> None:
    assert [rule.id for rule in load_rules().paths] == list(NAMED)


@pytest.mark.parametrize("path", FREE.split())
def test_a_path_that_nothing_obeys(path: str) -> None:
    assert judge_rules(path, load_rules()) is None
    assert list(judge_path(path)) == []


@pytest.mark.parametrize(
    "path",
    [
        ".git", ".GIT/config", "a/.git /hooks/x", "git~1/x", "GIT~27", ".git.../x", ".g\u200cit/x",
        ".git::$INDEX_ALLOCATION/x",
        "a\\.git\\hooks\\x", "\ufeff.git",
    ],
)  # fmt: skip
def test_names_that_pass_for_git(path: str) -> None:
    assert ("path.dotgit", BLOCK) in {(one.rule, one.severity) for one in judge_path(path)}


@pytest.mark.parametrize("path", [".gitignore", ".github/x", "git/x", "a.git/x", ".gitx", "git~x", "git~"])
def test_names_that_do_not(path: str) -> None:
    assert not passes_for_git(path)


@given(st.text(max_size=30), st.sampled_from([".git", ".Git", "GIT~1"]), st.text(" .", max_size=4))
def test_dotgit_is_found_at_every_depth_whatever_follows_it(before: str, name: str, after: str) -> None:
    assert passes_for_git(f"{before}/{name}{after}/config")


@pytest.mark.parametrize("path", ["a\nb", "x\u202ey", "\x1b[2J", "z\u200bw", "f\u3164x", "a\ufe0ex"])
def test_names_that_hide_something(path: str) -> None:
    assert ("path.hidden", BLOCK) in {(one.rule, one.severity) for one in judge_path(path)}


def test_a_name_too_long_for_a_file_system_is_named_and_not_matched() -> None:
    path = "x/" * 3 + "a" * 256 + "/.envrc"
    assert [one.rule for one in judge_path(path)] == ["path.long"]
    assert judge_rules(path, load_rules()) is None


# --- entries --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("100644", "100755", "mode.executable"),
        ("000000", "100755", "mode.executable"),
        ("100755", "100755", None),
        ("000000", "160000", "gitlink"),
        ("160000", "160000", "gitlink"),
        ("000000", "100644", None),
    ],
)
def test_modes(old: str, new: str, rule: str | None) -> None:
    found = list(
        judge_mode(
            Change("src/app", Entry(old, "a" * 40) if old != "000000" else ABSENT, Entry(new, "b" * 40))
        )
    )
    assert [one.rule for one in found] == ([rule] if rule else [])


@pytest.mark.parametrize(
    ("path", "target", "rule"),
    [
        ("a/b/link", "../x", "symlink"), ("a/b/link", "../../x", "symlink"), ("link", "a/b", "symlink"),
        ("a/b/link", "../../../x", "symlink.outside"), ("link", "..", "symlink.outside"),
        ("link", "/etc/passwd", "symlink.outside"), ("link", "C:\\x", "symlink.outside"),
        ("link", "\\\\h\\x", "symlink.outside"),
        ("link", "a/../../x", "symlink.outside"),
        ("a/link", "d/../x", "symlink.outside"),  # d may itself be a link
        ("link", ".git/hooks", "symlink.git"), ("a/link", "../.GIT/config", "symlink.git"),
    ],
)  # fmt: skip
def test_links(path: str, target: str, rule: str) -> None:
    found = judge_link(path, target.encode())
    assert (found.rule, found.severity) == (rule, WARN if rule == "symlink" else BLOCK)


# --- content --------------------------------------------------------------------------------------------


def look(data: bytes, old: bytes = b"", *, executable: bool = False) -> list[tuple[str, str]]:
    found = judge_content("f", data, lambda: old, load_rules(), executable=executable)
    return [(one.rule, one.detail) for one in found]


@pytest.mark.parametrize("char", [*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"])
def test_characters_that_reorder_text_are_found_where_they_are(char: str) -> None:
    assert look(f"a\nb{char}c\n".encode()) == [("text.bidi", "characters that reorder the text in line 2")]


@pytest.mark.parametrize(
    "char",
    [
        "\u200b",
        "\u200e",
        "\u061c",
        "a\u200d",
        "a\u00ad",
        "a\ufeff",
        "\u2063",
        "\u3164",
        "\U000e0041",
        "\U000e0101",
    ],
)
def test_invisible_characters(char: str) -> None:
    assert look(f"x {char}b\n".encode()) == [("text.invisible", "invisible characters in line 1")]


@pytest.mark.parametrize("char", ["\x1b", "\b", "\x7f", "\x9b", "\x01", "\rb"])
def test_control_characters(char: str) -> None:
    assert look(f"x{char}b\n".encode()) == [("text.control", "control characters in line 1")]


@pytest.mark.parametrize(
    "text",
    [
        "plain\r\n\ttext\f\n", "\ufeffbom\n", "grün Ünï 日本語 עברית العربية\n",
        "👩\u200d💻 ❤\ufe0f\n", "नी\u200dक्ष\n", "می\u200cخواهم\n",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f\n",
    ],
)  # fmt: skip
def test_text_of_the_world_is_left_alone(text: str) -> None:
    assert look(text.encode()) == []


def test_what_was_there_before_is_no_finding() -> None:
    old = "keep \u202e this\n"
    assert look((old + "more\n").encode(), old.encode()) == []
    assert [rule for rule, _ in look((old + "and \u202e that\n").encode(), old.encode())] == ["text.bidi"]
    secret = SECRETS["secret.aws"]
    assert look(f"new = {secret}".encode(), f"old = {secret}".encode()) == []


def test_repeating_what_was_there_hides_nothing_behind_it() -> None:
    line = "\u202e\n".encode()
    assert look(line * 90_000, line) == []
    assert [rule for rule, _ in look(line * 150_000 + "\u202e new\n".encode(), line)] == ["text.bidi"]
    secret = SECRETS["secret.aws"].encode() + b"\n"
    other = SECRETS["secret.aws"][:-1].encode() + b"A\n"
    assert [rule for rule, _ in look(secret * 150_000 + other, secret)] == ["secret.aws"]


def test_binary_content() -> None:
    assert look(b"\0\1\2") == [("binary", "binary, 3 bytes")]
    assert look(b"\0\1\2", executable=True)[0][0] == "binary.program"
    assert look(b"\x7fELF\0")[0][0] == "binary.program"
    assert look(b"\0x", b"text\n")[0][0] == "binary.was-text"


def _random(alphabet: str, size: int) -> str:
    chosen = random.Random(f"{alphabet}{size}")
    return "".join(chosen.choice(alphabet) for _ in range(size))


WORD = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
# Made here, so that no scanner of secrets stumbles over this file.
SECRETS = {
    "secret.private-key": "-----BEGIN OPENSSH PRIVATE" + " KEY-----\n" + _random(WORD, 64) + "\n",
    "secret.age": "AGE-SECRET" + "-KEY-1" + _random(string.ascii_uppercase + string.digits, 58),
    "secret.aws": "AK" + "IA" + _random("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16),
    "secret.github": "gh" + "p_" + _random(WORD, 36),
    "secret.gitlab": "gl" + "pat-" + _random(WORD, 20),
    "secret.slack": "xo" + "xb-" + _random(string.digits, 11) + "-" + _random(WORD, 30),
    "secret.stripe": "sk_" + "live_" + _random(WORD, 24),
    "secret.anthropic": "sk-" + "ant-api03-" + _random(WORD, 93),
    "secret.openai": "sk-" + "proj-" + _random(WORD, 20) + "T3Blbk" + "FJ" + _random(WORD, 20),
    "secret.google": "AI" + "za" + _random(WORD, 35),
    "secret.package-registry": "np" + "m_" + _random(WORD, 36),
    "secret.azure": "Account" + "Key=" + _random(WORD, 86) + "==",
    "secret.service": "h" + "f_" + _random(string.ascii_letters, 34),
    "secret.jwt": "ey" + "J" + _random(WORD, 30) + ".ey" + "J" + _random(WORD, 40) + "." + _random(WORD, 43),
    "secret.url": "postgres://app:" + _random(WORD, 20) + "@db.internal/x",
    "secret.assigned": 'api_key = "' + "aZ3" + _random(WORD, 37) + '"',
}  # fmt: skip
MORE_PRIVATE_KEYS = (
    "-----BEGIN PRIVATE" + " KEY-----\\n" + _random(WORD, 64),  # in a string of JSON
    "-----BEGIN RSA PRIVATE"
    + " KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n"
    + _random(WORD, 64),
    "-----BEGIN PGP PRIVATE" + " KEY BLOCK-----\n\n" + _random(WORD, 64),
)


def test_every_secret_rule_has_a_secret_here() -> None:
    assert [rule.id for rule in load_rules().secrets] == list(SECRETS)


@pytest.mark.parametrize(
    ("rule", "text"), [*SECRETS.items(), *(("secret.private-key", text) for text in MORE_PRIVATE_KEYS)]
)
def test_secrets(rule: str, text: str) -> None:
    for before, after in (("", ""), ("x = '", "'"), ("first\n", "\nlast"), ("\0\0", "\0")):
        found = [one for one, _ in look(f"{before}{text}{after}".encode())]
        assert rule in found, (before, after)


@pytest.mark.parametrize(
    "text",
    [
        "AK" + "IAIOSFODNN7EXAMPLE", "ghp_" + "x" * 36, "-----BEGIN PRIVATE" + " KEY-----", "https://user:password@host.example",
        'password = "correct horse battery"', 'token = "{{ secrets.DEPLOY_TOKEN_FOR_PRODUCTION }}"', "sk-ant-…",
        "postgres://app:${PASSWORD_OF_APP}@db/x", 'secret = "AAAAAAAAAAAAAAAAAAAAAAAAAAA1a"',
    ],
)  # fmt: skip
def test_placeholders_are_no_secrets(text: str) -> None:
    assert look(text.encode()) == []


def _sources() -> list[Path]:
    """Real code of other people, and ours."""
    packages = Path(sysconfig.get_path("purelib"))
    theirs = chain.from_iterable(
        packages.rglob(f"*.{suffix}") for suffix in ("py", "pyi", "txt", "toml", "json", "md")
    )
    ours = chain.from_iterable(
        (ROOT / top).rglob("*.*") for top in ("src", "docs", "tests", "images", "agents")
    )
    return [path for path in (*theirs, *ours) if path.is_file() and path.stat().st_size < 1 << 20]


def test_no_secret_is_seen_in_real_code() -> None:
    paths = _sources()
    assert len(paths) > 2000
    hits = [
        (rule.id, path, value)
        for path in paths
        for data in (path.read_bytes(),)
        for rule in load_rules().secrets
        for _, value in rule.values(data)
    ]
    assert hits == []


FLOODS = {
    **{rule.id: b"".join(rule.keywords) for rule in load_rules().secrets},
    "header": b"-----BEGIN PRIVATE" + b" KEY-----\n",
    "headers": b"-----BEGIN RSA PRIVATE" + b" KEY-----\nProc-Type: x\nDEK-Info: y\n",
    "jwt": b"eyJaaaaaaaaaaaaaaaa.",
    "dashes": b"sk-aaaaaaaaaaaaaaaaaaaaT3BlbkFJ",
    "urls": b"://a:bbbbbbbbbbbbbbbbbbbbbbbbb",
    "quotes": b'token="aA1',
    "spaces": b"token  =  ",
    "controls": b"\x1b",
    "bidi": "\u202e".encode(),
    "lines of bidi": "\u202e\n".encode(),
    "one run": b"a",
}


@pytest.mark.parametrize("unit", FLOODS.values(), ids=FLOODS.keys())
def test_hostile_content_needs_no_more_time_than_its_size(unit: bytes) -> None:
    """4 MiB, the most that is looked at: a pattern that is not linear would need minutes."""
    data = unit * ((4 << 20) // len(unit))
    began = time.process_time()
    look(data, data[: 1 << 20])
    assert time.process_time() - began < 12.0


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_content_without_change_has_no_new_secret_and_no_new_deceit(before: bytes, after: bytes) -> None:
    data = before + b"\nkey " + SECRETS["secret.github"].encode() + b" \xe2\x80\xae\n" + after
    assert [rule for rule, _ in look(data, data) if not rule.startswith("binary")] == []
    assert "secret.github" in [rule for rule, _ in look(data)]


# --- manifests ------------------------------------------------------------------------------------------


def manifest(name: str, new: object, old: object = None) -> list[tuple[str, Severity]]:
    before = json.dumps(old).encode() if old is not None else b""
    return [(one.rule, one.severity) for one in judge_manifest(name, json.dumps(new).encode(), before)]


@pytest.mark.parametrize(
    "script", ["preinstall", "install", "postinstall", "prepare", "prepublish", "prepack"]
)
def test_a_script_that_npm_runs_by_itself(script: str) -> None:
    new = {"scripts": {script: "node x.js", "test": "jest"}}
    assert manifest("web/package.json", new) == [("package.lifecycle", BLOCK), ("package.script", WARN)]
    assert manifest("package.json", new, new) == [("package", NOTE)]
    assert manifest("package.json", new, {"scripts": {script: "node y.js", "test": "jest"}}) == [
        ("package.lifecycle", BLOCK)
    ]


def test_other_manifests() -> None:
    assert manifest("composer.json", {"scripts": {"post-install-cmd": "x", "lint": "y"}}) == [
        ("package.lifecycle", BLOCK), ("package.script", WARN),
    ]  # fmt: skip
    backend = b'[build-system]\nbuild-backend = "mine"\nbackend-path = ["."]\n'
    assert [one.rule for one in judge_manifest("pyproject.toml", backend, b"")] == ["package.lifecycle"]
    assert [one.rule for one in judge_manifest("pyproject.toml", backend, backend)] == ["package"]


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b" " * (2 << 20)]
)
def test_a_manifest_that_cannot_be_read_blocks(data: bytes) -> None:
    assert [(one.rule, one.severity) for one in judge_manifest("package.json", data, b"")] == [
        ("package.unreadable", BLOCK)
    ]


@given(st.binary(max_size=300))
def test_no_manifest_makes_us_fail(data: bytes) -> None:
    for name in ("package.json", "composer.json", "pyproject.toml"):
        assert list(judge_manifest(name, data, data))


# --- commits, the list, the rules ------------------------------------------------------------------------


def test_commits_of_somebody_else_are_counted_once() -> None:
    own = (b"Ada L.", b"ada@x.test")
    commits = [
        (b"c1", *own, *own),
        (b"c2", b"Bob", b"bob@x.test", *own),
        (b"c3", b"Bob", b"bob@x.test", *own),
    ]
    found = list(judge_people(commits, "Ada L.", "ada@x.test"))
    assert [one.rule for one in found] == ["commit.author"]
    assert "2 commit(s), such as c2" in found[0].detail
    # git takes such characters off when it commits
    assert (
        list(
            judge_people(
                [(b"c", b"Ada L", b"ada@x.test", b"Ada L", b"ada@x.test")], "Ada <L>.", " ada@x.test"
            )
        )
        == []
    )


def test_a_long_list_is_shortened_aloud_and_begins_with_the_gravest() -> None:
    many = [Finding("n", NOTE, f"p{number:04}", "d") for number in range(1000)]
    shown = ranked([*many, Finding("b", BLOCK, "z", "d"), *many, Finding("w", WARN, "a", "d")])
    assert [one.rule for one in shown[:3]] == ["b", "w", "n"]
    assert shown[2].detail == "800 more of this rule are not listed"
    assert len(shown) == 2 + 201


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        '[secrets]\nstop = []\n[[path]]\nid = "a"',
        "path = []\nsecret = []\nsecrets = {stop = [], x = 1}",
    ],
)
def test_malformed_rules_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_rules(text)
