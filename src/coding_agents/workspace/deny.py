"""The deny-list of secrets: which paths most likely hold one. The rules are data, in deny.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from fnmatch import translate
from functools import cache
from importlib import resources

import msgspec

from coding_agents.errors import ConfigError

CONTENT_LIMIT_BYTES = 64 * 1024
"""How much of a settings file is looked at for a credential."""

_WILD = re.compile(r"[*?]")


class DenyList(msgspec.Struct, frozen=True):
    """Parsed rules; `patterns` is their portable form for the guest.

    In `patterns` a leading `!` marks one that wins over all others. Rules by content are there by name
    only: the guest, which commits by itself, leaves such files out without a look.
    """

    patterns: tuple[str, ...]
    _deny: _Globs
    _allow: _Globs
    _content: Mapping[str, re.Pattern[bytes]]

    @classmethod
    def parse(cls, text: str) -> DenyList:
        """Raises ConfigError when `text` is not TOML of exactly the keys deny, allow and content."""
        try:
            table = tomllib.loads(text)
            deny, allow, content = table.pop("deny"), table.pop("allow"), table.pop("content")
            if any(_WILD.search(name) or "/" in name for name in content):
                raise ValueError("rules by content are for literal file names")
            parsed = cls(
                patterns=(*deny, *content, *(f"!{pattern}" for pattern in allow)),
                _deny=_Globs.parse(deny),
                _allow=_Globs.parse(allow),
                _content={name.lower(): re.compile(rule.encode(), re.I) for name, rule in content.items()},
            )
        except (tomllib.TOMLDecodeError, KeyError, AttributeError, TypeError, ValueError, re.error) as error:
            raise ConfigError(f"the deny-list is malformed: {error!r}") from error
        if table:
            raise ConfigError(f"the deny-list has unknown keys: {', '.join(sorted(table))}")
        return parsed

    def matches(self, path: str) -> bool:
        """Whether the name alone tells that `path` most likely holds a secret."""
        lower = path.lower()
        return self._deny.match(lower) and not self._allow.match(lower)

    def depends_on_content(self, path: str) -> bool:
        """Whether the file must be looked at: `matches_content` decides."""
        return _name(path.lower()) in self._content

    def matches_content(self, path: str, content: bytes) -> bool:
        """Whether `content`, the beginning of the file at `path`, holds a credential."""
        rule = self._content.get(_name(path.lower()))
        return rule is not None and rule.search(content) is not None


@cache
def load_deny_list() -> DenyList:
    """The rules that come with coding-agents."""
    return DenyList.parse(resources.files(__package__).joinpath("deny.toml").read_text("utf-8"))


class _Globs(msgspec.Struct, frozen=True):
    """A set of patterns, sorted by shape: 100,000 paths are matched in 0.1 s, a regex alone needs 1 s."""

    names: frozenset[str]
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]
    others: re.Pattern[str] | None
    ends: tuple[str, ...]
    directories: tuple[str, ...]

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> _Globs:
        """Raises ValueError for a pattern with both "/" and a wildcard, or with a `[`."""
        lower = [pattern.lower() for pattern in patterns]
        names = [pattern for pattern in lower if "/" not in pattern]
        paths = [pattern for pattern in lower if "/" in pattern]
        for pattern in lower:
            if "[" in pattern or ("/" in pattern and _WILD.search(pattern)):
                raise ValueError(f"unsupported wildcard in {pattern!r}")
        prefixes = [name[:-1] for name in names if name.endswith("*") and not _WILD.search(name[:-1])]
        suffixes = [name[1:] for name in names if name.startswith("*") and not _WILD.search(name[1:])]
        literal = [name for name in names if not _WILD.search(name)]
        simple = {*literal, *(f"{prefix}*" for prefix in prefixes), *(f"*{suffix}" for suffix in suffixes)}
        rest = [translate(name) for name in names if name not in simple]
        return cls(
            names=frozenset(literal),
            prefixes=tuple(prefixes),
            suffixes=tuple(suffixes),
            others=re.compile("|".join(rest)) if rest else None,
            ends=tuple(f"/{path}" for path in paths if not path.endswith("/")),
            directories=tuple(f"/{path}" for path in paths if path.endswith("/")),
        )

    def match(self, path: str) -> bool:
        """Whether a pattern fits the lower-case `path`."""
        name = _name(path)
        if name in self.names or name.startswith(self.prefixes) or name.endswith(self.suffixes):
            return True
        if self.others is not None and self.others.match(name):
            return True
        rooted = f"/{path}"
        return rooted.endswith(self.ends) or any(directory in rooted for directory in self.directories)


def _name(path: str) -> str:
    return path[path.rfind("/") + 1 :]
