"""Which settings of the user's repository travel into the container.

The guest's `.git/config` is made from an allow-list: the settings that define what `git status` prints,
each with a checked value, and the addresses of submodules. Nothing that runs a program, names a remote or
holds a credential can get in, whatever the user's configuration says. `core.ignoreCase` stays behind: it says what
the user's disk is like. On a container's, which tells names apart, git would leave files out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from urllib.parse import urlsplit, urlunsplit

Setting = tuple[str, str]
"""Key as git prints it (section and name in lower case) and value."""

_BOOL = re.compile(r"(?i:true|false|yes|no|on|off|0|1)")
_TRAVEL: dict[str, re.Pattern[str]] = {
    "core.autocrlf": re.compile(r"(?i:true|false|yes|no|on|off|0|1|input)"),
    "core.eol": re.compile(r"(?i:lf|crlf|native)"),
    "core.filemode": _BOOL,
    "core.precomposeunicode": _BOOL,
    "core.symlinks": _BOOL,
    "core.quotepath": _BOOL,
    "core.bigfilethreshold": re.compile(r"\d{1,12}[kKmMgG]?"),
    "status.showuntrackedfiles": re.compile(r"(?i:no|normal|all|true|false)"),
    "status.renames": re.compile(r"(?i:true|false|yes|no|on|off|0|1|copies|copy)"),
    "status.renamelimit": re.compile(r"\d{1,9}"),
    "diff.renames": re.compile(r"(?i:true|false|yes|no|on|off|0|1|copies|copy)"),
    "diff.renamelimit": re.compile(r"\d{1,9}"),
    "diff.ignoresubmodules": re.compile(r"none|untracked|dirty|all"),
    "i18n.commitencoding": re.compile(r"[A-Za-z0-9_.:-]{1,40}"),
}
_SUBMODULE = re.compile(r"submodule\.(?P<name>.+)\.(?P<name_of>url|active|ignore)", re.DOTALL)
_URL_SCHEMES = ("https", "http", "ssh", "git")
# Always the program that the base image has, whatever command the user's configuration names.
_LFS: tuple[Setting, ...] = (
    ("filter.lfs.clean", "git-lfs clean -- %f"),
    ("filter.lfs.smudge", "git-lfs smudge -- %f"),
    ("filter.lfs.process", "git-lfs filter-process"),
    ("filter.lfs.required", "true"),
)
_LOCAL_SCOPES = ("system", "global", "local", "worktree")


def parse_config(output: bytes) -> list[Setting]:
    """Settings from `git config --list --null --show-scope`, in order, without our own `-c` ones.

    A key without a value means true.
    """
    fields = output.decode("utf-8", "replace").split("\0")
    settings = []
    for scope, record in zip(fields[::2], fields[1::2], strict=False):
        key, found, value = record.partition("\n")
        if scope in _LOCAL_SCOPES:
            settings.append((key, value if found else "true"))
    return settings


def travelling(settings: Iterable[Setting]) -> list[Setting]:
    """The settings that the container gets; of a key given several times, git's choice: the last."""
    last = dict(settings)
    chosen = [
        (key, last[key]) for key, allowed in _TRAVEL.items() if key in last and allowed.fullmatch(last[key])
    ]
    if "filter.lfs.clean" in last or "filter.lfs.process" in last:
        chosen += _LFS
    return chosen + list(_submodules(last))


def render_config(settings: Iterable[Setting]) -> str:
    """A git configuration file with `settings`, every value quoted."""
    lines = []
    for section, group in groupby(settings, lambda setting: setting[0].rpartition(".")[0]):
        name, dot, subsection = section.partition(".")
        lines.append(f'[{name} "{_escape(subsection)}"]' if dot else f"[{name}]")
        for key, value in group:
            text = _escape(value).replace("\n", "\\n").replace("\t", "\\t")
            lines.append(f'\t{key.rpartition(".")[2]} = "{text}"')
    return "\n".join(lines) + "\n"


def _submodules(settings: dict[str, str]) -> Iterator[Setting]:
    for key, value in settings.items():
        match = _SUBMODULE.fullmatch(key)
        if match is None or "\n" in key or "\0" in value:
            continue
        if match["name_of"] != "url":
            if re.fullmatch(r"[a-z]{1,10}", value):
                yield key, value
        elif url := without_userinfo(value):
            yield key, url


def without_userinfo(url: str) -> str:
    """`url` without user and password, or empty when it is not an address of a remote git server."""
    if not url.isprintable() or url.startswith("-"):
        return ""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return ""
    if parts.scheme in _URL_SCHEMES and host:
        user = "git@" if parts.scheme == "ssh" and parts.netloc.startswith("git@") else ""
        return urlunsplit((parts.scheme, user + host, parts.path, "", ""))
    # `git@host:path`: the user name is part of the address and no secret.
    return url if re.fullmatch(r"git@[A-Za-z0-9.-]+:[^:@]+", url) else ""


def _escape(text: str) -> str:
    """Text for between double quotes in a configuration file (git-config(1), Syntax)."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
