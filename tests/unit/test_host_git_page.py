"""docs/reference/host-git.md against the program, the triggers that are planted, and the git that is installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from coding_agents.proc.git import Profile, git_command
from support.docs import page
from support.triggers import HOOKS, SETTINGS, VARIABLES

PAGE = page("docs/reference/host-git.md").text
DATA = Path(__file__).parent / "data/git-config-keys.txt"
_NAME = re.compile(r"`([^`]+)`")
_ENV = {"PATH": "/usr/bin"}


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """What the rows of a table name in their first cell."""
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in _NAME.findall(row.split(" | ")[0])]


def forced() -> set[str]:
    """Every setting that some call of ours fixes."""
    commands = [git_command((), profile=profile, env=_ENV) for profile in Profile]
    return {word for command in commands for word in command.argv if "=" in word}


def shape(key: str) -> str:
    """`remote.<name>.url` of `remote.origin.url`: the sections whose middle is the user's to name."""
    section_name, _, rest = key.partition(".")
    if section_name in ("alias", "pager"):
        return section_name
    middle, _, name = rest.rpartition(".")
    return f"{section_name}.<>.{name}".lower() if middle else key.lower()


def harmless() -> set[str]:
    return {line for line in DATA.read_text().splitlines() if line and not line.startswith("#")}


def unjudged(keys: set[str], dangerous: set[str], others: set[str]) -> set[str]:
    """Keys that neither the page nor the list of harmless ones has. `family.**` stands for all below it."""
    families = tuple(one.removesuffix("**") for one in others if one.endswith(".**"))
    return {key for key in keys - dangerous - others if not (families and key.startswith(families))}


def test_each_key_of_the_installed_git_is_judged() -> None:
    """A key that is new in this git: does it run a program or reach a network? Then the page, else the list."""
    said = subprocess.run(("git", "help", "--config"), capture_output=True, text=True, check=True).stdout
    keys = {line for line in said.splitlines() if line and " for more information" not in line}
    assert len(keys) > 500
    assert unjudged(keys, set(first_cells(section("Settings"))), harmless()) == set()


def test_an_unknown_key_is_noticed() -> None:
    known = set(first_cells(section("Settings")))
    keys = {"core.runsAProgram", "advice.new", "core.pager", "core.bare"}
    assert unjudged(keys, known, harmless()) == {"core.runsAProgram"}
    assert unjudged({"core.pager"}, known - {"core.pager"}, harmless()) == {"core.pager"}


def test_no_key_is_judged_twice() -> None:
    assert set(first_cells(section("Settings"))) & harmless() == set()
    families = [one.removesuffix("**") for one in harmless() if one.endswith(".**")]
    assert not [key for key in first_cells(section("Settings")) if key.startswith(tuple(families))]


def test_what_is_fixed_is_what_the_page_says() -> None:
    named = set(_NAME.findall(PAGE))
    fixed = {one for one in forced() if not one.startswith("hook.")}
    assert fixed - named == set()
    settings = {one for one in named if re.fullmatch(r"[a-z]+[.][\w.]+=[^ ]*", one)}
    assert settings - forced() - {"hook.EVENT.enabled=false"} == set()


@pytest.mark.parametrize("profile", Profile)
def test_each_call_fixes_what_all_calls_fix(profile: Profile) -> None:
    """The settings of the first list stand in the command line of every profile, in front of git's verb."""
    always = _NAME.findall(section("What each call has").split("\n\n")[1])
    argv = git_command((), profile=profile, env=_ENV).argv
    assert len(always) == 11
    assert set(always) - {"hook.EVENT.enabled=false"} <= set(argv)


def test_what_is_planted_is_on_the_page() -> None:
    """Each trigger of support/triggers.py is named, so nothing that we know to run is left out."""
    named = {shape(key) for key in first_cells(section("Settings"))}
    planted = {shape(key.replace("%", "x")) for one in SETTINGS for key in one.settings}
    switches = {"protocol.<>.allow", "gpg.format", "user.signingkey", "difftool.prompt", "submodule.<>.active",
                "filter.<>.required", "core.repositoryformatversion"}  # fmt: skip
    assert planted - named - switches == set()
    assert {name for one in VARIABLES for name in one.variables} <= set(
        first_cells(section("Environment variables"))
    )
    assert set(HOOKS) <= set(_NAME.findall(section("Hooks")))


def test_a_variable_is_passed_on_only_where_the_page_says_so() -> None:
    user = {name: f"/evil/{name}" for name in first_cells(section("Environment variables"))}
    rows = [row for row in section("Environment variables").splitlines() if row.startswith("| `")]
    passed = {profile: git_command((), profile=profile, env=user).env for profile in Profile}
    for row in rows:
        names, _, where = (cell.strip() for cell in row.strip("| ").split(" | "))
        for name in _NAME.findall(names):
            through = {profile for profile in Profile if passed[profile].get(name) == user[name]}
            allowed = {
                "never": set(), "for a clone, and as you": {Profile.CLONE, Profile.AS_USER}, "always": set(Profile),
                "for reading your repository and writing its files, for a clone, and as you":
                    {Profile.USER_READ, Profile.USER_TREE, Profile.CLONE, Profile.AS_USER},
            }[re.split(r"[;]| yours", where)[0]]  # fmt: skip
            assert through == allowed, name


def test_no_variable_is_passed_on_that_the_page_does_not_name() -> None:
    everything = dict.fromkeys((*_all_passed(), "PATH"), "/evil")
    named = set(first_cells(section("Environment variables")))
    for profile in Profile:
        env = git_command((), profile=profile, env=everything).env
        assert {name for name, value in env.items() if value == "/evil"} <= named


def _all_passed() -> set[str]:
    """Every name that git_command looks up in the user's environment."""
    asked: set[str] = set()

    class Asking(dict[str, str]):
        def get(self, key: str, default: object = None) -> str:  # type: ignore[override]
            asked.add(key)
            return "/evil"

        def __contains__(self, key: object) -> bool:
            asked.add(str(key))
            return False

    for profile in Profile:
        git_command((), profile=profile, env=Asking())
    return asked
