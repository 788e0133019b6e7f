"""The table of all settings: one record each for its key, grammar, default, help and who may set it.

Everything about settings is made from this table: reading TOML files, the environment and flags,
`config show`, the JSON schema and docs/reference/config.md, so that they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum, IntEnum

import msgspec

from coding_agents.model.limits import (
    GIB,
    MIB,
    NO_DISK,
    NO_IO,
    NO_RATE,
    NO_TIME,
    NO_TRAFFIC,
    Limits,
    parse_cpus,
    parse_disk,
    parse_file_size,
    parse_io,
    parse_memory,
    parse_pids,
    parse_rate,
    parse_relay_refs,
    parse_relay_size,
    parse_reserve,
    parse_time,
    parse_traffic,
)
from coding_agents.model.notice import SHOWN, Shown
from coding_agents.model.origin import FETCHED, PROTECTED
from coding_agents.model.release import FILES
from coding_agents.model.runtimes import AUTO, RUNTIMES
from coding_agents.model.signing import MODES
from coding_agents.model.spending import NO_COST, NO_TOKENS, NONE, parse_cost, parse_tokens
from coding_agents.model.values import (
    TRAILERS,
    Value,
    measure,
    parse_addresses,
    parse_auth_files,
    parse_best_effort,
    parse_bool,
    parse_choice,
    parse_duration,
    parse_egress,
    parse_endpoints,
    parse_file,
    parse_globs,
    parse_indexes,
    parse_key_grants,
    parse_line,
    parse_person,
    parse_prices,
    parse_protected,
    parse_refspecs,
    parse_releases,
    parse_require,
    parse_slug,
    parse_tools,
    parse_trailers,
    parse_upstream,
    parse_wait,
    parse_words,
    quote,
    render,
)

_DEFAULT = Limits()
_SIZE_SCHEMA = {"type": ["string", "integer"]}
_NUMBER = (int, Decimal)


class Source(IntEnum):
    """Where a value comes from; a later one is applied over an earlier one."""

    DEFAULT = 0
    ORGANISATION = 1
    USER = 2
    PROJECT = 3
    ENVIRONMENT = 4
    COMMAND_LINE = 5


class Tighten(Enum):
    """In which direction a repository, or whoever a managed key binds, may move a value."""

    NEVER = "not at all"
    LOWER = "to a smaller value"
    STRICTER = "to a stricter one"
    ADD = "by adding to it"


class Setting(msgspec.Struct, frozen=True):
    """One setting. `parse` turns a TOML value or a text into a `Value`, or raises ValueError.

    `choices` go from widest to strictest where `tighten` is STRICTER, `schema` is its JSON schema, `unit` that of a
    number ("bytes", "time", "rate", "io", "traffic", "budget" or ""); `example` is how a value is written where the
    default shows nothing. `adds` tells that lists of several layers add up, which the words of a command do not.
    """

    key: str
    default: Value
    help: str
    parse: Callable[[object], Value]
    schema: Mapping[str, object]
    tighten: Tighten = Tighten.NEVER
    choices: tuple[str, ...] = ()
    flag: str = ""
    unit: str = ""
    example: str = ""
    adds: bool = True

    @property
    def field(self) -> str:
        """Its name as an attribute of `Settings`."""
        return self.key.replace(".", "_")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "CODING_AGENTS_" + self.field.upper()

    def written(self) -> str:
        """How a value of it is written in a settings file: the example, or the default."""
        return self.example or render_value(self, self.default)

    def word(self) -> str:
        """The same as a word of a command line or of the environment."""
        text = self.written()
        return text if " " in text else text.strip('[]"')

    def is_tighter(self, value: Value, bound: Value) -> bool:
        """Whether `value` allows nothing that `bound` does not: equal counts as tighter."""
        if value == bound:
            return True
        match self.tighten:
            case Tighten.LOWER:
                return isinstance(value, _NUMBER) and isinstance(bound, _NUMBER) and value <= bound
            case Tighten.STRICTER:
                return self.choices.index(str(value)) >= self.choices.index(str(bound))
            case Tighten.ADD:
                return isinstance(value, tuple) and isinstance(bound, tuple) and set(value) >= set(bound)
            case Tighten.NEVER:
                return False


_STRINGS = {"type": "array", "items": {"type": "string"}}
_ENGINES = ("auto", "docker", "podman")
_RUNTIMES = (AUTO, *RUNTIMES)
_NETWORKS = ("allow-all", "squid", "restricted")

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "engine", "auto", "Container engine; auto takes Docker when it answers, else Podman.",
        parse_choice(*_ENGINES), {"enum": list(_ENGINES)}, choices=_ENGINES, flag="--engine",
    ),
    Setting(
        "runtime", AUTO, "Runtime of a session: the engine's own choice, or one of these; runsc is gVisor.",
        parse_choice(*_RUNTIMES), {"enum": list(_RUNTIMES)}, choices=_RUNTIMES, flag="--runtime",
        example='"runsc"',
    ),
    Setting(
        "agent", "claude", "Coding agent that a launch without --agent runs.",
        parse_slug, {"type": "string"}, flag="--agent",
    ),
    Setting(
        "limits.cpu", _DEFAULT.cpus, "CPUs that a session may use.",
        measure(parse_cpus), {"type": ["number", "string"]}, Tighten.LOWER, flag="--cpu",
    ),
    Setting(
        "limits.memory", _DEFAULT.memory_bytes, "Memory of a session, without any swap: 8g, 512m.",
        measure(parse_memory), {"type": ["string", "integer"]}, Tighten.LOWER, flag="--memory", unit="bytes",
    ),
    Setting(
        "limits.pids", _DEFAULT.pids, "Processes and threads of a session.",
        measure(parse_pids), {"type": "integer"}, Tighten.LOWER, flag="--pids",
    ),
    Setting(
        "limits.time", NO_TIME, "Time that a start of a session may take, then it is saved and stopped: 90m, 2h.",
        measure(parse_time), {"type": ["string", "integer"]}, Tighten.LOWER, flag="--time-limit", unit="time",
    ),
    Setting(
        "limits.bandwidth", NO_RATE, "What passes the network a second, in and out each: 10mbit, 500kbit.",
        measure(parse_rate), {"type": ["string", "integer"]}, Tighten.LOWER, flag="--bandwidth", unit="rate",
    ),
    Setting(
        "limits.disk", NO_DISK, "File system of its own that a session's workspace and home share: 5g.",
        measure(parse_disk), _SIZE_SCHEMA, Tighten.LOWER, flag="--disk", unit="io", example='"5g"',
    ),
    Setting(
        "limits.disk_read", NO_IO, "What is read from the engine's disk a second: 50m.",
        measure(parse_io), _SIZE_SCHEMA, Tighten.LOWER, flag="--disk-read", unit="io",
    ),
    Setting(
        "limits.disk_write", NO_IO, "What is written to it a second: 50m.",
        measure(parse_io), _SIZE_SCHEMA, Tighten.LOWER, flag="--disk-write", unit="io",
    ),
    Setting(
        "limits.file", _DEFAULT.file_bytes, "Largest file that a program of a session may write.",
        measure(parse_file_size), _SIZE_SCHEMA, Tighten.LOWER, unit="bytes",
    ),
    Setting(
        "limits.disk_reserve", 5 * GIB,
        "Room that sessions leave on the engine's disk, at most a tenth of it; at less they are ended and saved.",
        measure(parse_reserve), _SIZE_SCHEMA, unit="bytes",
    ),
    Setting(
        "sandbox.allow_ptrace", False, "Debuggers and tracers (gdb, strace) of what the agent itself runs.",
        parse_bool, {"type": "boolean"}, Tighten.LOWER, flag="--allow-ptrace",
    ),
    Setting(
        "network.mode", "allow-all", "What a session reaches: the internet, allow-listed hosts, or nothing.",
        parse_choice(*_NETWORKS), {"enum": list(_NETWORKS)}, Tighten.STRICTER, _NETWORKS, "--network-proxy",
        example='"restricted"',
    ),
    Setting(
        "network.private", (),
        "Private ADDRESS:PORT pairs that are opened, such as a company mirror; mode squid needs NAME= before.",
        parse_endpoints, _STRINGS, example='["mirror.example.org=10.1.2.3:443"]',
    ),
    Setting(
        "network.allow", (), "Further rules of mode squid: hosts, *.NAME for all below one, [http://]HOST[:PORT][/PATH].",
        parse_egress, _STRINGS, flag="--allow", example='["api.example.org"]',
    ),
    Setting(
        "network.deny", (), "Rules of mode squid that close what others allow; a repository may add to them.",
        parse_egress, _STRINGS, Tighten.ADD, example='["*.example.org"]',
    ),
    Setting(
        "network.allow_ech", False, "TLS clients of mode squid may hide which host they mean (ECH).",
        parse_bool, {"type": "boolean"}, Tighten.LOWER,
    ),
    Setting(
        "network.upload", NO_TRAFFIC, "What a start of a session may send in mode squid, in all: 500m.",
        measure(parse_traffic), _SIZE_SCHEMA, Tighten.LOWER, unit="traffic",
    ),
    Setting(
        "network.download", NO_TRAFFIC, "What it may receive in mode squid, in all: 20g.",
        measure(parse_traffic), _SIZE_SCHEMA, Tighten.LOWER, unit="traffic",
    ),
    Setting(
        "network.request_upload", NO_TRAFFIC, "What one request or tunnel may send in mode squid: 50m.",
        measure(parse_traffic), _SIZE_SCHEMA, Tighten.LOWER, unit="traffic",
    ),
    Setting(
        "network.request_download", NO_TRAFFIC, "What one request or tunnel may receive in mode squid: 2g.",
        measure(parse_traffic), _SIZE_SCHEMA, Tighten.LOWER, unit="traffic",
    ),
    Setting(
        "network.ca", "host", "Extra certificate authorities for sessions and builds: the host's, or none.",
        parse_choice("host", "none"), {"enum": ["host", "none"]}, choices=("host", "none"),
    ),
    Setting(
        "workspace.include", (), "Patterns of git-ignored files that are copied in as well.",
        parse_globs, _STRINGS, flag="--include", example='["build/*.json"]',
    ),
    Setting(
        "git.message", "Save work of the coding agent", "Message of the commit that saves uncommitted work.",
        parse_line, {"type": "string"}, flag="--message",
    ),
    Setting(
        "git.push", True, "Bring the branch back to the repository; otherwise it stays in the volume.",
        parse_bool, {"type": "boolean"}, flag="--no-push",
    ),
    Setting(
        "identity.as_agent", False, "Commits are by the agent, instead of by you; it commits them in any case.",
        parse_bool, {"type": "boolean"}, flag="--as-agent",
    ),
    Setting(
        "identity.bot", "", "Who the agent is in commits: NAME <ADDRESS>; empty for its title at localhost.",
        parse_person, {"type": "string"}, example='"Robot <robot@example.org>"',
    ),
    Setting(
        "identity.trailers", TRAILERS, "Which trailers commits are given: agent, session.",
        parse_trailers, _STRINGS, adds=False,
    ),
    Setting(
        "signing.mode", "auto",
        "Who signs commits: user (your key), session (a key of its own), merge (yours, when you take them in), off; "
        "auto is user where your git signs, else off.",
        parse_choice(*MODES), {"enum": list(MODES)}, Tighten.STRICTER, MODES, example='"session"',
    ),
    Setting(
        "origin.access", True, "The host fetches from origin for sessions, and pushes there what you approve.",
        parse_bool, {"type": "boolean"}, Tighten.LOWER,
    ),
    Setting(
        "origin.fetch", FETCHED, "Refs of origin that sessions may have: refs/heads/NAME, refs/tags/PREFIX/*.",
        parse_refspecs, _STRINGS, adds=False,
    ),
    Setting(
        "origin.allow", (), "Further addresses that the host fetches for sessions, such as those of submodules.",
        parse_addresses, _STRINGS, example='["https://forge.example/team/library.git"]',
    ),
    Setting(
        "origin.protected", PROTECTED,
        "Branches that nothing is pushed to from a session, and while there are any origin's default branch.",
        parse_protected, _STRINGS, Tighten.ADD, adds=False,
    ),
    Setting(
        "origin.wait", 120, "How long a push waits for you before it tells the agent to come again: 0, 120, 5m.",
        parse_wait, {"type": ["string", "integer"]},
    ),
    Setting(
        "model.upstream", "", "Gateway to the agent's model, with its prefix; empty for the provider itself.",
        parse_upstream, {"type": "string"}, example='"https://gateway.example/anthropic"',
    ),
    Setting(
        "model.server_tools", (), "Tools that may run at the model's provider, by what their names begin with.",
        parse_tools, _STRINGS, example='["web_search"]',
    ),
    Setting(
        "model.max_tokens", NO_TOKENS, "Tokens that a session may use, read and written: 200k, 5m.",
        measure(parse_tokens), {"type": ["string", "integer"]}, Tighten.LOWER, flag="--max-tokens",
        unit="budget",
    ),
    Setting(
        "model.max_cost", NO_COST, "Dollars that a session may use, by model.prices.",
        measure(parse_cost), {"type": ["string", "number"]}, Tighten.LOWER, flag="--max-cost", unit="budget",
    ),
    Setting(
        "model.prices", (), "Dollars for a million tokens, NAME=READ,CACHED,WRITTEN; a name may end in *.",
        parse_prices, _STRINGS, example='["claude-opus-*=5,0.5,25"]',
    ),
    Setting(
        "registry.pip", (),
        "Python indexes that the host reads for sessions: URL [files=URL] [secret=NAME] [user=NAME].",
        parse_indexes("pip", 8), _STRINGS, example='["https://index.example/simple secret=INDEX_TOKEN"]',
    ),
    Setting(
        "registry.npm", (), "Registry of npm's that the host reads for sessions, written alike.",
        parse_indexes("npm", 1), _STRINGS, example='["https://index.example/npm secret=INDEX_TOKEN"]',
    ),
    Setting(
        "credentials.release", (),
        "Places whose real credential sessions may be given, and take away: https://[USER@]HOST[:PORT]/PATH.",
        parse_releases, _STRINGS, example='["https://git.example/team/project"]',
    ),
    Setting(
        "credentials.ssh_agent", (),
        "Keys of your ssh-agent with which sessions may log in at one host each: SHA256:FINGERPRINT HOST[:PORT].",
        parse_key_grants, _STRINGS,
        example='["SHA256:uNiVztksCsDhcc0u9e8BrqGmZ1GKlBCnxYKJvcJkrKg git.example"]',
    ),
    Setting(
        "credentials.files", (),
        f"Configurations with logins that sessions may read, and take away: {', '.join(FILES)}.",
        parse_auth_files, _STRINGS, example='["gh"]',
    ),
    Setting(
        "credentials.gitconfig", True,
        "Your git's identity, aliases and harmless preferences go into sessions; nothing that runs or holds a secret.",
        parse_bool, {"type": "boolean"}, Tighten.LOWER,
    ),
    Setting(
        "notify.command", (), "Program, with its first words, that is run on this host when a session needs you.",
        parse_words, _STRINGS, example='["notify-send", "-a", "coding-agents"]', adds=False,
    ),
    Setting(
        "notify.terminal", "bell",
        "How terminals of yours tell it: osc9, a notification and the bell; bell; off.",
        parse_choice(*SHOWN), {"enum": list(SHOWN)}, choices=SHOWN, example='"osc9"',
    ),
    Setting(
        "secrets.age_identity", "", "File of an age identity for which secrets are encrypted; empty for none.",
        parse_file, {"type": "string"}, example='"~/.config/age/identity.txt"',
    ),
    Setting(
        "session.stop_timeout", 120, "Time that a stopping session has to save its work: 120, 90s, 2m.",
        parse_duration, {"type": ["string", "integer"]},
    ),
    Setting(
        "relay.push", 512 * MIB, "Largest push of a session, on the wire.",
        measure(parse_relay_size), _SIZE_SCHEMA, Tighten.LOWER, unit="bytes",
    ),
    Setting(
        "relay.object", 100 * MIB,
        "Largest file, or other git object, that a session may push; a large file of Git LFS goes in pieces.",
        measure(parse_relay_size), _SIZE_SCHEMA, Tighten.LOWER, unit="bytes",
    ),
    Setting(
        "relay.disk", 2 * GIB, "What a session's pushes may take of the host's disk.",
        measure(parse_relay_size), _SIZE_SCHEMA, Tighten.LOWER, unit="bytes",
    ),
    Setting(
        "relay.unpacked", 20 * GIB, "The same as it would be unpacked.",
        measure(parse_relay_size), _SIZE_SCHEMA, Tighten.LOWER, unit="bytes",
    ),
    Setting(
        "relay.refs", 1000, "Old tips and automatic saves that are kept of a session.",
        measure(parse_relay_refs), {"type": "integer"}, Tighten.LOWER,
    ),
    Setting(
        "require", (), "Protections that must be in force, or the launch is refused.",
        parse_require, {"type": "object", "additionalProperties": {"const": True}}, Tighten.ADD,
        example='["seccomp"]',
    ),
    Setting(
        "best_effort", (), "Protections that may be missing although you asked for them.",
        parse_best_effort, _STRINGS, flag="--best-effort", example='["swap"]',
    ),
)  # fmt: skip

BY_KEY: Mapping[str, Setting] = {setting.key: setting for setting in SETTINGS}


class Origin(msgspec.Struct, frozen=True):
    """Where a value was set: the layer, and the file and line, variable or flag."""

    source: Source
    where: str = ""


class Settings(msgspec.Struct, frozen=True):
    """All settings with their effective values. Memory in bytes, times in seconds.

    `origins` says for each key where its value was set; `managed` are the keys that the organisation binds, and
    `organisation` is its file, "" where there is none; `demanded` are the protections that this file requires.
    """

    engine: str
    runtime: str
    agent: str
    limits_cpu: Decimal
    limits_memory: int
    limits_pids: int
    limits_time: int
    limits_bandwidth: int
    limits_disk: int
    limits_disk_read: int
    limits_disk_write: int
    limits_file: int
    limits_disk_reserve: int
    sandbox_allow_ptrace: bool
    network_mode: str
    network_private: tuple[str, ...]
    network_allow: tuple[str, ...]
    network_deny: tuple[str, ...]
    network_allow_ech: bool
    network_upload: int
    network_download: int
    network_request_upload: int
    network_request_download: int
    network_ca: str
    workspace_include: tuple[str, ...]
    git_message: str
    git_push: bool
    identity_as_agent: bool
    identity_bot: str
    identity_trailers: tuple[str, ...]
    signing_mode: str
    origin_access: bool
    origin_fetch: tuple[str, ...]
    origin_allow: tuple[str, ...]
    origin_protected: tuple[str, ...]
    origin_wait: int
    model_upstream: str
    model_server_tools: tuple[str, ...]
    model_max_tokens: int
    model_max_cost: Decimal
    model_prices: tuple[str, ...]
    registry_pip: tuple[str, ...]
    registry_npm: tuple[str, ...]
    credentials_release: tuple[str, ...]
    credentials_ssh_agent: tuple[str, ...]
    credentials_files: tuple[str, ...]
    credentials_gitconfig: bool
    notify_command: tuple[str, ...]
    notify_terminal: Shown
    secrets_age_identity: str
    session_stop_timeout: int
    relay_push: int
    relay_object: int
    relay_disk: int
    relay_unpacked: int
    relay_refs: int
    require: tuple[str, ...]
    best_effort: tuple[str, ...]
    origins: Mapping[str, Origin]
    managed: frozenset[str] = frozenset()
    organisation: str = ""
    demanded: frozenset[str] = frozenset()

    def value(self, key: str) -> Value:
        """The effective value of a key of the table."""
        value: Value = getattr(self, BY_KEY[key].field)
        return value


_NONE = (NO_TOKENS, NO_COST, NO_TIME, NO_RATE, NO_IO, NO_DISK, NO_TRAFFIC)


def render_value(setting: Setting, value: Value) -> str:
    """A value as it is written in a settings file."""
    if setting.unit in ("budget", "time", "rate", "io", "traffic") and value in _NONE:
        return quote(NONE)
    return render(value, unit=setting.unit)
