"""Where the rules of a session's way out come from: files in one grammar, and what of each counts.

A file has a rule a line (`coding_agents_guest.egress.rules`); `#` begins a comment. An empty list allows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from coding_agents.errors import ConfigError, UsageError
from coding_agents_guest.egress.ledger import Limits
from coding_agents_guest.egress.rules import Rule, RuleError, Rules, parse_rule

FILE = "network-allowlist.txt"
"""The user's own rules, in the directory of the user's settings. Sessions that run follow changes of it."""

BUILTIN = Path(__file__).parent / "allowlist.txt"
MAX_BYTES = 16 << 20
SOURCES = ("builtin", "registry", "agent", "private", "settings", "user", "session", "model")
"""Where a rule can come from, as records and `allowlist show` name it."""


class Egress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a session's way out (`egress.json`): texts of rules by their source, and the limits.

    `opened` is as it was at the launch, `closed` as at the latest start; `added` is what a person has allowed this
    session since. Where an organisation manages the list (`managed`), neither that nor the user's file counts. Budgets
    are bytes, 0 for none; `host_proxy` is ADDRESS:PORT of the host's own proxy, "" for none, `names` are addresses by
    the names of private hosts.
    """

    opened: dict[str, tuple[str, ...]] = {}
    closed: dict[str, tuple[str, ...]] = {}
    added: tuple[str, ...] = ()
    upload: int = 0
    download: int = 0
    request_upload: int = 0
    request_download: int = 0
    allow_ech: bool = False
    managed: bool = False
    host_proxy: str = ""
    names: dict[str, str] = {}

    @property
    def limits(self) -> Limits:
        return Limits(
            up=self.upload,
            down=self.download,
            request_up=self.request_upload,
            request_down=self.request_download,
        )


def parse_line(text: str, source: str) -> Rule:
    """The rule of a command line or a setting. Raises UsageError."""
    try:
        return parse_rule(text, source)
    except RuleError as error:
        raise UsageError(
            f"not a rule: {text[:80]!a}",
            details=str(error),
            hint="Write a host (api.example.org), all names below one (*.example.org), with :PORT for another port.",
        ) from error


def parse_rules(text: str, source: str, *, file: str) -> tuple[Rule, ...]:
    """The rules of a file, each once, in order. Raises ConfigError, which names the line."""
    found: dict[str, Rule] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        try:
            rule = parse_rule(words, source)
        except RuleError as error:
            raise ConfigError(
                f"{file}:{number}: not a rule: {words[:80]!a}",
                details=str(error),
                hint="Correct that line; `coding-agents allowlist add` checks what it writes.",
            ) from error
        found[rule.text] = rule
    return tuple(found.values())


def read_rules(path: Path, source: str) -> tuple[Rule, ...]:
    """The rules of the file `path`; none where there is no file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"cannot read {path}: {reason}", hint="Make it readable for you, or remove it."
        ) from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES >> 20} MiB", hint="Shorten it: use *.NAME rules.")
    return parse_rules(text, source, file=str(path))


def builtin_rules() -> tuple[Rule, ...]:
    """What every session of mode `squid` may reach, unless a rule closes it."""
    return read_rules(BUILTIN, "builtin")


def effective(egress: Egress, user: Iterable[Rule]) -> Rules:
    """The rules in force: those of the session, and the user's as they are now."""
    opened = [parse_rule(text, source) for source, text in _pairs(egress.opened)]
    closed = [parse_rule(text, source) for source, text in _pairs(egress.closed)]
    if egress.managed:
        return Rules(opened, closed)
    added = [parse_rule(text, "session") for text in egress.added]
    return Rules([*opened, *added, *user], closed)


def _pairs(texts: Mapping[str, tuple[str, ...]]) -> Iterable[tuple[str, str]]:
    return ((source, text) for source, several in texts.items() for text in several)
