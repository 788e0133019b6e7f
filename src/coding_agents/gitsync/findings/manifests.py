"""Manifests of package managers, by content: what a package manager runs by itself. Pure."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from coding_agents.gitsync.findings.model import Finding, Severity, clipped

_MAX_JSON_BYTES = 1 << 20
# tomllib needs time by the square of a dotted key's length: a second for one of this size.
_MAX_TOML_BYTES = 64 << 10

# npm-scripts(7) "Life Cycle Scripts": what install, ci, pack and publish run without being asked.
_NPM = frozenset(
    {
        "preinstall", "install", "postinstall", "prepublish", "prepublishOnly", "preprepare", "prepare",
        "postprepare", "prepack", "postpack", "dependencies",
    }
)  # fmt: skip
# Composer's manual, "Scripts": what install and update run without being asked.
_COMPOSER = ("pre-", "post-")
_NOTHING = "package manifest; no script that runs by itself has changed"

Judge = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Iterator[Finding]]


def is_manifest(path: str) -> bool:
    """Whether `judge_manifest` understands the file of this name."""
    return _name(path) in _MANIFESTS


def judge_manifest(path: str, new: bytes, old: bytes) -> Iterator[Finding]:
    """Findings about a changed manifest: each script that runs by itself and is new or different."""
    parse, judge = _MANIFESTS[_name(path)]
    try:
        table = parse(new)
    except (ValueError, RecursionError):
        yield Finding(
            "package.unreadable", Severity.BLOCK, path, "manifest that cannot be read: it may run anything"
        )
        return
    try:
        before = parse(old) if old else {}
    except (ValueError, RecursionError):
        before = {}
    found = list(judge(path, table, before))
    yield from found or [Finding("package", Severity.NOTE, path, _NOTHING)]


def _npm(path: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[Finding]:
    for name, command in _changed(_scripts(new), _scripts(old)):
        if name in _NPM:
            yield Finding(
                "package.lifecycle", Severity.BLOCK, path, clipped(f"npm runs scripts.{name}: {command}")
            )
        else:
            yield Finding("package.script", Severity.WARN, path, clipped(f"scripts.{name}: {command}"))
    if new.get("gypfile") and not old.get("gypfile"):
        yield Finding("package.lifecycle", Severity.BLOCK, path, "gypfile: npm runs node-gyp")


def _composer(path: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[Finding]:
    for name, command in _changed(_scripts(new), _scripts(old)):
        if name.startswith(_COMPOSER):
            shown = clipped(f"composer runs scripts.{name}: {command}")
            yield Finding("package.lifecycle", Severity.BLOCK, path, shown)
        else:
            yield Finding("package.script", Severity.WARN, path, clipped(f"scripts.{name}: {command}"))


def _pyproject(path: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[Finding]:
    if new.get("build-system") != old.get("build-system"):
        shown = clipped(f"runs when the package is built or installed: {new.get('build-system')}")
        yield Finding("package.lifecycle", Severity.BLOCK, path, shown)
    if new.get("tool") != old.get("tool"):
        yield Finding("package.tools", Severity.WARN, path, "settings of tools, some of which load plug-ins")


def _scripts(table: Mapping[str, Any]) -> Mapping[str, Any]:
    scripts = table.get("scripts")
    return scripts if isinstance(scripts, dict) else {}


def _changed(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in new.items():
        if old.get(name) != value:
            yield name, value


def _json(data: bytes) -> Mapping[str, Any]:
    return _table(json.loads(_bounded(data, _MAX_JSON_BYTES)))


def _toml(data: bytes) -> Mapping[str, Any]:
    return tomllib.loads(_bounded(data, _MAX_TOML_BYTES))


def _bounded(data: bytes, limit: int) -> str:
    if len(data) > limit:
        raise ValueError("larger than a manifest is")
    return data.decode("utf-8-sig")


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _name(path: str) -> str:
    return path[path.rfind("/") + 1 :].lower()


_MANIFESTS: Mapping[str, tuple[Callable[[bytes], Mapping[str, Any]], Judge]] = {
    "package.json": (_json, _npm),
    "composer.json": (_json, _composer),
    "pyproject.toml": (_toml, _pyproject),
}
