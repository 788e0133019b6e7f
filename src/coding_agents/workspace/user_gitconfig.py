"""What of the user's own ~/.gitconfig a session gets: who they are, and how they like git to show and to do things.

By a list of keys: nothing that names a program (helpers, editors, pagers, signing, ssh, hooks, drivers), a file to
include or to read, an address or a header, as all of these may run something or hold a secret. An alias goes in when it
is one of git's own commands. The agent may change the file: no guard depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from coding_agents.model.gitconfig import Section, render
from coding_agents.proc.git import Profile, git
from coding_agents.proc.git_user import NO_REPOSITORY
from coding_agents.sandbox.credentials import credential_in

_MAX_FILE = 1 << 20
_MAX_SETTINGS = 300
_MAX_VALUE = 500
_BY_SECTION = {
    "user": "name email useconfigonly",
    "init": "defaultbranch",
    "commit": "verbose cleanup status",
    "tag": "sort",
    "branch": "sort",
    "core": "abbrev commentchar quotepath whitespace",
    "color": "ui branch decorate diff grep interactive showbranch status",
    "column": "ui branch status tag",
    "log": "abbrevcommit date decorate follow mailmap",
    "diff": "algorithm colormoved colormovedws context dirstat indentheuristic interhunkcontext mnemonicprefix "
    "noprefix relative renamelimit renames statgraphwidth submodule suppressblankempty wserrorhighlight",
    "merge": "autostash conflictstyle ff log renamelimit renames stat verbosity",
    "pull": "ff rebase",
    "rebase": "abbreviatecommands autosquash autostash missingcommitscheck rebasemerges stat updaterefs",
    "rerere": "enabled autoupdate",
    "stash": "showincludeuntracked showpatch showstat",
    "status": "aheadbehind branch displaycommentprefix relativepaths short showstash showuntrackedfiles",
    "grep": "column extendedregexp fullname linenumber patterntype",
    "blame": "blankboundary coloring date showemail showroot",
    "help": "autocorrect",
    "apply": "ignorewhitespace whitespace",
    "i18n": "commitencoding logoutputencoding",
}
_SAFE = frozenset(f"{section}.{name}" for section, names in _BY_SECTION.items() for name in names.split())
_COLOR = re.compile(r"color\.(?:branch|decorate|diff|grep|interactive|status)\.[a-z]{1,30}")
_ADVICE = re.compile(r"advice\.[a-z]{1,40}")
_ALIAS = re.compile(r"alias\.([a-z][a-z0-9-]{0,40})")
# A word of an alias that runs something, or that is a setting of its own.
_RUNS = re.compile(r"(?:^|\s)(?:-c\b|--config-env|--exec|--upload-pack|--receive-pack|-x\b|!)|`|\$\(")


def user_gitconfig(env: Mapping[str, str]) -> bytes:
    """The file for a session's home; b"" where the user has none, or one that git does not understand.

    Included files do not count: which they are may depend on the repository, and people keep tokens in them.
    """
    outcome = git(
        ("config", "--global", "--no-includes", "--list", "--null"),
        profile=Profile.USER_READ,
        env=env,
        git_dir=NO_REPOSITORY,
        cwd=Path("/"),
        check=False,
    )
    if not outcome.ok or len(outcome.stdout) > _MAX_FILE:
        return b""
    return sanitised(outcome.stdout)


def sanitised(listed: bytes) -> bytes:
    """The harmless ones of the settings that `git config --list --null` printed, as a file."""
    chosen: dict[str, str] = {}
    for record in listed.decode("utf-8", "replace").split("\0"):
        key, found, value = record.partition("\n")
        if _is_harmless(key, value if found else "true"):
            chosen[key] = value if found else "true"  # of several git takes the last
    return render(tuple(_sections(list(chosen.items())[:_MAX_SETTINGS]))).encode()


def _is_harmless(key: str, value: str) -> bool:
    if not value.isprintable() or len(value) > _MAX_VALUE or "\ufffd" in value or credential_in(value):
        return False
    if _ALIAS.fullmatch(key):
        return value[:1].isalpha() and not _RUNS.search(value)
    return key in _SAFE or bool(_COLOR.fullmatch(key) or _ADVICE.fullmatch(key))


def _sections(settings: Iterable[tuple[str, str]]) -> Iterator[Section]:
    grouped: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for key, value in settings:
        name, _, rest = key.partition(".")
        below, _, last = rest.rpartition(".")
        grouped.setdefault((name, below), []).append((last, value))
    for (name, below), several in grouped.items():
        yield Section(name, tuple(several), below)
