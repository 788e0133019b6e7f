"""The rules of rules.toml, parsed once and compared with paths and content. Pure."""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import translate
from functools import cache
from importlib import resources

import msgspec

from coding_agents.errors import ConfigError
from coding_agents.gitsync.findings.model import Severity

_WILD = re.compile(r"[*?\[]")


class PathRule(msgspec.Struct, frozen=True):
    """Files that something obeys. `ends` are literal, `globs` pair a directory with a glob for the last part."""

    id: str
    severity: Severity
    detail: str
    names: frozenset[str]
    name_globs: re.Pattern[str] | None
    ends: tuple[str, ...]
    globs: tuple[tuple[str, re.Pattern[str]], ...]
    directories: tuple[str, ...]

    def match(self, path: str) -> bool:
        """Whether a pattern fits the folded `path` (see `names.folded`)."""
        parent, _, name = f"/{path}".rpartition("/")
        if name in self.names or (self.name_globs is not None and self.name_globs.match(name)):
            return True
        rooted = f"/{path}"
        if rooted.endswith(self.ends) or any(directory in rooted for directory in self.directories):
            return True
        return any(parent.endswith(directory) and glob.match(name) for directory, glob in self.globs)


class SecretRule(msgspec.Struct, frozen=True):
    """A form of secret; see rules.toml for its parts."""

    id: str
    severity: Severity
    detail: str
    keywords: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    entropy: float
    stop: tuple[bytes, ...]

    def values(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Offset and value of each secret in `data`."""
        if not any(keyword in data for keyword in self.keywords):
            return
        group = "secret" if "secret" in self.pattern.groupindex else 0
        for match in self.pattern.finditer(data):
            value = match[group]
            if _entropy(value) >= self.entropy and not any(word in value for word in self.stop):
                yield match.start(group), value


class RuleText(msgspec.Struct, frozen=True):
    """What a person is told of a rule."""

    id: str
    severity: Severity
    reason: str


class Rules(msgspec.Struct, frozen=True):
    """All rules, in the order of the file. `judged` are those that are code."""

    paths: tuple[PathRule, ...]
    secrets: tuple[SecretRule, ...]
    judged: tuple[RuleText, ...] = ()

    def texts(self) -> tuple[RuleText, ...]:
        """Every rule, gravest first."""
        data = [RuleText(one.id, one.severity, one.detail) for one in self.paths]
        data += [RuleText(one.id, one.severity, one.detail) for one in self.secrets]
        order = list(Severity)
        return tuple(sorted((*data, *self.judged), key=lambda one: order.index(one.severity)))

    def path_rule(self, folded: str) -> PathRule | None:
        """The first rule that speaks of the folded path."""
        return next((rule for rule in self.paths if rule.match(folded)), None)


class _PathTable(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    severity: Severity
    detail: str
    patterns: str


class _SecretTable(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    severity: Severity
    detail: str
    keywords: tuple[str, ...]
    pattern: str
    entropy: float


class _Common(msgspec.Struct, forbid_unknown_fields=True):
    stop: tuple[str, ...]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    path: tuple[_PathTable, ...]
    secrets: _Common
    secret: tuple[_SecretTable, ...]
    judged: tuple[RuleText, ...] = ()


@cache
def load_rules() -> Rules:
    """The rules that come with coding-agents."""
    return parse_rules(resources.files(__package__).joinpath("rules.toml").read_text("utf-8"))


def parse_rules(text: str) -> Rules:
    """Raises ConfigError for anything but complete tables of known keys, unique ids and usable patterns."""
    try:
        document = msgspec.convert(tomllib.loads(text), _Document)
        stop = tuple(word.encode() for word in document.secrets.stop)
        paths = tuple(_path_rule(table) for table in document.path)
        secrets = tuple(_secret_rule(table, stop) for table in document.secret)
    except (ValueError, re.error) as error:  # msgspec and tomllib raise kinds of ValueError
        raise ConfigError(f"the rules of review are malformed: {error}") from error
    counts = Counter(one.id for one in Rules(paths, secrets, document.judged).texts())
    if repeated := [rule for rule, count in counts.items() if count > 1]:
        raise ConfigError(f"the rules of review name {repeated[0]!r} twice")
    return Rules(paths, secrets, document.judged)


def _path_rule(table: _PathTable) -> PathRule:
    names: list[str] = []
    globs: list[str] = []
    ends: list[str] = []
    tails: list[tuple[str, re.Pattern[str]]] = []
    directories: list[str] = []
    for pattern in table.patterns.split():
        parent, _, name = pattern.rpartition("/")
        if pattern != pattern.lower() or _WILD.search(parent):
            raise ValueError(f"pattern {pattern!r} has capitals, or a wildcard before its last part")
        if not name:
            directories.append(f"/{pattern}")
        elif parent and _WILD.search(name):
            tails.append((f"/{parent}", re.compile(translate(name))))
        elif parent:
            ends.append(f"/{pattern}")
        else:
            (globs if _WILD.search(name) else names).append(name)
    return PathRule(
        id=table.id,
        severity=table.severity,
        detail=table.detail,
        names=frozenset(names),
        name_globs=re.compile("|".join(map(translate, globs))) if globs else None,
        ends=tuple(ends),
        globs=tuple(tails),
        directories=tuple(directories),
    )


def _secret_rule(table: _SecretTable, stop: Iterable[bytes]) -> SecretRule:
    return SecretRule(
        id=table.id,
        severity=table.severity,
        detail=table.detail,
        keywords=tuple(keyword.encode() for keyword in table.keywords),
        pattern=re.compile(table.pattern.encode()),
        entropy=table.entropy,
        stop=tuple(stop),
    )


def _entropy(value: bytes) -> float:
    """Shannon entropy of the bytes of `value`, in bits each."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values())
