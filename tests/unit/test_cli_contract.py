"""The command line against its contract, and docs/reference/cli.md against both.

The contract is the design's list of verbs and flags, split into what is built and what comes later. A built
one that is missing fails, and so does a later one that is already there: whoever builds it moves it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from coding_agents.cli.main import VERBS, cli
from coding_agents.model.settings import SETTINGS, render_value
from coding_agents.store.sessions import SessionStore
from support.sessions import session_record

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/cli.md").read_text("utf-8")


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BUILT: dict[str, frozenset[str]] = {
    verb: words(flags)
    for verb, flags in {
        "launch": "--agent -b --branch --name -p --prompt -d --detach --rm -y --force --empty --clean --include"
        " --network-proxy --allow --cpu --memory --pids --disk --disk-read --disk-write --bandwidth --time-limit"
        " --allow-ptrace --best-effort"
        " --max-tokens --max-cost --engine --runtime --message --as-agent --no-push --allow-origin-push"
        " --dotnet-preview --dry-run --json --trace",
        "list": "-a --watch --json",
        "connect": "--control",
        "exec": "",
        "tell": "",
        "start": "",
        "stop": "",
        "cp": "--max-size",  # docs/reference/cli.md: beside the design
        "paste": "",
        "wait": "",
        "logs": "",
        "remove": "--force",
        "recover": "",
        "prune": "",
        "diff": "",
        "pull": "--json",  # docs/adr/0014: beside the design
        "review": "--rules --accept --reason --withdraw --into --sarif --html --json",
        "merge": "--into --squash --ff-only --no-ff --message --dry-run --json",
        "nested": "--into --json",  # docs/adr/0013: beside the design
        "approvals list": "-a --json",
        "approvals show": "--json",
        "approvals approve": "-y --json",
        "approvals deny": "--reason --json",
        "approvals watch": "",
        "allowlist show": "--session --json",
        "allowlist add": "--session",
        "allowlist remove": "--session",
        "allowlist explain": "--session --json",
        "allowlist suggest": "--json",
        "audit query": "--session --json",
        "audit verify": "",
        "agents list": "--json",
        "agents show": "--json",
        "agents check": "",
        "images build": "",
        "images list": "",
        "images update": "--check --version --rollback",
        "images prune": "",
        "login": "--api-key --container --env --remove",
        "secrets set": "",
        "secrets list": "--json",
        "secrets remove": "",
        "secrets import": "",
        "mcp list": "--json",
        "mcp trust": "--file --remove -y",
        "mcp convert": "--check --agent",
        "verify": "--quick --baseline --json --html",
        "doctor": "--fix -y --json",
        "config show": "",
        "config set": "",
        "config path": "",
        "config schema": "",
        "completions": "",
        "uninstall": "",
    }.items()
}
LATER_VERBS = words("forward acp policy report dashboard") | {
    "audit tail",
    "audit show",
    "audit export",
}
LATER_FLAGS = {
    "launch": words("--forward --image"),
}
BUILT_COMMANDS = words(
    "coding-agents launch-agent list-agents connect-agent remove-agent run-agent"
    " run-claude run-codex run-copilot run-gemini run-opencode"
)

_FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
_HELP = frozenset({"-h", "--help"})


def verbs(group: click.Group = cli, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every verb that does something, sub-verbs with their group's name in front."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from verbs(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


ACTUAL = dict(verbs())


def flags_of(verb: str) -> frozenset[str]:
    context = click.Context(ACTUAL[verb], help_option_names=["-h", "--help"])
    options = [one for one in ACTUAL[verb].get_params(context) if isinstance(one, click.Option)]
    return frozenset(flag for one in options for flag in (*one.opts, *one.secondary_opts)) - _HELP


def sections(level: str) -> dict[str, str]:
    """Headings of the page at `level` (`##`) with what stands below each, up to the next heading of any level."""
    parts = re.split(r"^(#+) (.+)\n", PAGE, flags=re.MULTILINE)
    return {
        title: text
        for marks, title, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
        if marks == level
    }


def first_cells(text: str) -> str:
    return "\n".join(re.findall(r"^\| (`.+?) \|", text, re.MULTILINE))


@pytest.mark.parametrize("verb", BUILT)
def test_what_is_built_is_there(verb: str) -> None:
    assert verb in ACTUAL
    assert BUILT[verb] <= flags_of(verb)


def test_what_comes_later_is_not_there_yet() -> None:
    assert not LATER_VERBS & set(ACTUAL)
    assert not {verb for verb in LATER_VERBS if " " not in verb} & set(VERBS)
    for verb, flags in LATER_FLAGS.items():
        assert not flags & flags_of(verb)


def test_there_is_no_verb_beside_the_contract() -> None:
    assert set(ACTUAL) == set(BUILT)


def test_console_scripts_are_those_of_the_contract_and_exist() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert set(scripts) == BUILT_COMMANDS
    for target in scripts.values():
        module, _, name = target.partition(":")
        assert callable(getattr(import_module(module), name))


def test_the_page_has_a_section_for_each_verb_and_no_other() -> None:
    groups = {verb.split()[0] for verb in ACTUAL if " " in verb}
    top = {verb for verb in ACTUAL if " " not in verb}
    assert set(sections("##")) == {*top, *groups, "Later"}
    assert set(sections("###")) == {verb for verb in ACTUAL if " " in verb}
    assert {verb.split()[0] for verb in ACTUAL} == set(VERBS)


@pytest.mark.parametrize("verb", ACTUAL)
def test_the_page_lists_exactly_the_flags_of_a_verb(verb: str) -> None:
    section = sections("###" if " " in verb else "##")[verb]
    assert frozenset(_FLAG.findall(first_cells(section))) == flags_of(verb)
    assert f"`coding-agents {verb}" in section, "no line that shows how it is used"


def test_the_page_names_what_comes_later_exactly() -> None:
    later = sections("##")["Later"]
    verb_table, flag_table = later.split("| of | flags |")
    assert set(re.findall(r"`([a-z]+(?: [a-z]+)?)`", first_cells(verb_table))) == LATER_VERBS
    rows = re.findall(r"^\| `([a-z]+)` \| (.+) \|$", flag_table, re.MULTILINE)
    assert {verb: frozenset(_FLAG.findall(flags)) for verb, flags in rows} == LATER_FLAGS


def test_every_help_line_of_the_table_is_shown() -> None:
    shown = click.Context(cli, info_name="coding-agents", terminal_width=200)
    text = cli.get_help(shown)
    assert [line.split()[0] for line in text.split("Commands:\n")[1].splitlines() if line] == list(VERBS)
    assert not [line for _, line in VERBS.values() if line not in text]


@pytest.mark.parametrize("verb", ACTUAL)
def test_help_is_complete_and_its_examples_can_be_typed(verb: str) -> None:
    command = ACTUAL[verb]
    options = [param for param in command.params if isinstance(param, click.Option)]
    assert [option.opts for option in options if not option.help or not option.help.endswith(".")] == []
    spelled = [flag for option in options for flag in (*option.opts, *option.secondary_opts)]
    assert len(set(spelled) | _HELP) == len(spelled) + len(_HELP)
    valued = [
        option for option in options if not option.is_flag and not isinstance(option.type, click.Choice)
    ]
    assert [option.opts for option in valued if not option.metavar] == []
    for line in re.findall(
        r"^  coding-agents (.+)$", (command.epilog or "").partition("Examples:")[2], re.MULTILINE
    ):
        words = shlex.split(line)
        assert words[: len(verb.split())] == verb.split()
        ctx = cli.make_context("coding-agents", words)
        name, found, rest = cli.resolve_command(ctx, words)
        while isinstance(found, click.Group):
            name, found, rest = found.resolve_command(click.Context(found), rest)
        assert found is not None
        found.make_context(name, rest, parent=ctx).close()


def test_defaults_in_help_are_those_of_the_settings() -> None:
    """The help of a flag names its default, and tests hold it to the table of settings."""
    by_flag = {flag: option for option in ACTUAL["launch"].params for flag in option.opts}
    settings = [
        one for one in SETTINGS if one.flag and one.default != () and not isinstance(one.default, bool)
    ]
    assert len(settings) >= 7
    for setting in settings:
        option = by_flag[setting.flag]
        assert isinstance(option, click.Option)
        assert option.help is not None
        default = render_value(setting, setting.default).strip('"')
        assert re.search(rf"\b{default} \(default|\(default:? {default}\)", option.help), setting.key


_HEAVY = words(
    "asyncio concurrent.futures difflib importlib.metadata logging msgspec socket subprocess tarfile tempfile tomlkit"
    " tomllib"
)
_LAYERS = words("app supervisor engine images workspace gitsync network audit proc")
# msgspec reads the records; the module of the files writes some, too.
_RECORDS = frozenset({"app", "msgspec", "proc", "tempfile"})  # of proc nothing that starts a process


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("--help", frozenset()),
        ("launch --help", frozenset({"msgspec"})),  # the values that a verb is given
        ("list", _RECORDS),
        ("list --all --json", _RECORDS),  # not -a: before a short option click tries a long one, with difflib
    ],
)
def test_what_is_asked_most_imports_nothing_heavy(line: str, needed: frozenset[str], tmp_path: Path) -> None:
    """`--help`, and `list` without a session that runs, must be quick (design §6)."""
    store = SessionStore(tmp_path / ".local/state/coding-agents")
    store.create("0123456789ab")
    store.save(session_record("0123456789ab", phase="stopped"))
    code = (
        "import json, sys\n"
        "from coding_agents.cli.main import cli\n"
        f"cli.main({line.split()!r}, standalone_mode=False)\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        (sys.executable, "-c", code),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "coding_agents.cli.main" in loaded
    assert ("coding_agents.cli.launch" in loaded) == ("launch" in line)
    layers = {name.split(".")[1] for name in loaded if name.startswith("coding_agents.")}
    assert sorted(((_HEAVY & loaded) | (_LAYERS & layers)) - needed) == []
    assert ("demo-shop-0123" in done.stdout) == ("--all" in line)
