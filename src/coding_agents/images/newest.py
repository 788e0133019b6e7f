"""Which version of an agent's packages is the newest, and its integrity: from npm's answers, which are hostile.

What npm says is held against what was asked and against the manifest's own schema; it names no package, no file and no
address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import NoReturn

import msgspec
from msgspec.structs import replace

from coding_agents.errors import ImageUpdateError
from coding_agents.model.packages import ARCH, Package, Packages, package_problems, release_key

NpmView = Callable[[Sequence[str]], Sequence[bytes]]
"""What `npm view SPEC name version dist.integrity --json` says of each SPEC."""

_ABSENT = ("E404", "ETARGET")  # npm's codes: no such package, no such version
_MAX_SHOWN = 200


class _Answer(msgspec.Struct, frozen=True, rename={"integrity": "dist.integrity"}):
    name: str
    version: str
    integrity: str = ""


class _Reason(msgspec.Struct, frozen=True):
    code: str = ""
    summary: str = ""


class _Failure(msgspec.Struct, frozen=True):
    error: _Reason


def newest(packages: Packages, view: NpmView, *, today: date, wanted: Mapping[str, str]) -> Packages:
    """The packages at their newest versions, pinned `today`; at those in `wanted`, by directory, where it has one.

    Raises ImageUpdateError for a version that npm does not know, or gives no integrity of for a processor that was
    pinned before.
    """
    asking = [
        (name, f"{package.of(arch)[0]}@{package.follow}")
        for name, package in packages.items()
        if name not in wanted
        for arch in package.integrity
    ]
    releases: dict[str, list[str]] = {}
    for (name, spec), answer in zip(
        asking, view([spec for _, spec in asking]) if asking else (), strict=True
    ):
        releases.setdefault(name, []).append(_latest(spec, answer))
    chosen = {name: wanted.get(name) or _earliest(releases[name]) for name in packages}
    return _pinned({name: _at(packages[name], version) for name, version in chosen.items()}, view, today)


def _latest(spec: str, answer: bytes) -> str:
    """The version that `spec` means now: the last one of a range."""
    found = [one.version for one in _read(spec, answer)]
    final = [version for version in found if "-" not in version]
    return max(final or found, key=lambda version: release_key(version) or (0, 0, 0, False))


def _earliest(versions: Sequence[str]) -> str:
    """A package is published for one processor after the other: the version that all may have."""
    return min(versions, key=lambda version: release_key(version) or (0, 0, 0, False))


def _at(package: Package, version: str) -> Package:
    """The package at another version, spelt as the one before: with a processor behind it, or without."""
    suffix = package.version[package.version.index("-") :] if ARCH in package.version else ""
    return replace(package, version=version + suffix, integrity=dict.fromkeys(package.integrity, ""))


def _pinned(packages: Packages, view: NpmView, today: date) -> Packages:
    asking = [(name, arch) for name, package in packages.items() for arch in package.integrity]
    specs = ["@".join(packages[name].of(arch)) for name, arch in asking]
    found: dict[str, dict[str, str]] = {}
    for (name, arch), spec, answer in zip(asking, specs, view(specs), strict=True):
        answers = _read(spec, answer)
        if len(answers) != 1 or answers[0].version != packages[name].of(arch)[1]:
            _fail(spec, "npm answers with another version")
        if not answers[0].integrity:
            _fail(spec, "npm gives no integrity of it")
        found.setdefault(name, {})[arch] = answers[0].integrity
    made = {name: replace(packages[name], integrity=found[name], pinned=today) for name in packages}
    for name, package in made.items():
        for problem in package_problems(f"packages.{name}", name, package):
            _fail(package.package, f"npm's answer cannot be pinned: {problem[:_MAX_SHOWN]}")
    return made


def _read(spec: str, answer: bytes) -> Sequence[_Answer]:
    """npm's answers about one package. Raises ImageUpdateError for all that is something else."""
    if not answer.strip():
        _fail(spec, "npm does not know it")
    try:
        failure = msgspec.json.decode(answer, type=_Failure).error
    except msgspec.MsgspecError:
        pass
    else:
        reason = f"npm failed: {failure.code} {failure.summary}".strip()
        _fail(spec, "npm does not know it" if failure.code in _ABSENT else reason[:_MAX_SHOWN])
    try:
        found = msgspec.json.decode(answer, type=_Answer | list[_Answer])
    except msgspec.MsgspecError as error:
        _fail(spec, f"npm's answer is not understood: {error}"[:_MAX_SHOWN])
    answers = [found] if isinstance(found, _Answer) else found
    name = re.sub(r"(?<=.)@.*", "", spec)
    if not answers or any(one.name != name or release_key(one.version) is None for one in answers):
        _fail(spec, "npm's answer is about something else")
    return answers


def _fail(spec: str, why: str) -> NoReturn:
    raise ImageUpdateError(
        f"{spec} cannot be pinned: {why}",
        hint="Look at what the registry has, with `npm view`, or choose another version with --version.",
    )
