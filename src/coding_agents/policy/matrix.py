"""The operation matrix as frozen values; `parse_matrix` is pure, its text comes from matrix.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from enum import Enum, IntEnum

import msgspec

from coding_agents.errors import ConfigError

_KEYS = frozenset({"id", "operation", "tier", "effect", "reason"})


class Tier(IntEnum):
    """1 silent, 2 allowed and recorded, 3 a person decides or it is refused."""

    SILENT = 1
    RECORDED = 2
    ASK = 3


class Operation(Enum):
    """Everything that an enforcer asks about. A new member is refused until the matrix has a row for it."""

    PUSH_SESSION_BRANCH = "push.session-branch"
    PUSH_AUTOSAVE = "push.autosave"
    PUSH_NESTED = "push.nested"
    PUSH_TO_SIGN = "push.to-sign"
    PUSH_LFS = "push.lfs"
    PUSH_REWRITE = "push.rewrite"
    PUSH_OTHER_REF = "push.other-ref"
    PUSH_DELETE = "push.delete"
    PUSH_SALVAGE = "push.salvage"
    FETCH_RELAY = "fetch.relay"
    MODEL_REQUEST = "model.request"
    MODEL_MALFORMED = "model.malformed"
    MODEL_ENDPOINT = "model.endpoint"
    MODEL_UNKNOWN = "model.unknown"
    MODEL_SERVER_TOOL = "model.server-tool"
    MODEL_REFERENCE = "model.reference"
    MCP_SERVER = "mcp.server"
    MCP_OTHER_SERVER = "mcp.other-server"
    MCP_REFLECTED = "mcp.reflected"
    REGISTRY_READ = "registry.read"
    REGISTRY_OTHER = "registry.other"
    REGISTRY_REFLECTED = "registry.reflected"
    CREDENTIAL_RELEASE = "credential.release"
    CREDENTIAL_SESSION = "credential.session"
    CREDENTIAL_MALFORMED = "credential.malformed"
    SSH_AGENT_SIGN = "ssh-agent.sign"
    SSH_AGENT_OTHER = "ssh-agent.other"
    AUTH_FILE = "auth.file"
    SIGN_COMMIT = "sign.commit"
    SIGN_FOREIGN = "sign.foreign"
    SIGN_TAG = "sign.tag"
    SIGN_OTHER = "sign.other"
    ORIGIN_FETCH = "origin.fetch"
    ORIGIN_PUSH = "origin.push"
    ORIGIN_PUSH_ALLOWED = "origin.push-allowed"
    ORIGIN_PUSH_APPROVED = "origin.push-approved"
    ORIGIN_PROTECTED = "origin.protected"
    ORIGIN_OTHER = "origin.other"


class Rule(msgspec.Struct, frozen=True):
    """One row of the matrix."""

    rule_id: str
    operation: Operation
    tier: Tier
    allow: bool
    reason: str


class Policy(msgspec.Struct, frozen=True):
    """The rules by operation, at most one each."""

    rules: Mapping[Operation, Rule]


def parse_matrix(text: str) -> Policy:
    """The matrix in `text` (TOML). Raises ConfigError for anything but complete, known, unique rows."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the policy is not valid TOML: {error}") from error
    rows = document.get("rule")
    if set(document) != {"rule"} or not isinstance(rows, list):
        raise ConfigError("the policy must consist of [[rule]] tables")
    rules: dict[Operation, Rule] = {}
    for row in rows:
        rule = _parse_rule(row)
        if rule.operation in rules or any(rule.rule_id == other.rule_id for other in rules.values()):
            raise ConfigError(f"the policy has two rules for {rule.operation.value} or named {rule.rule_id}")
        rules[rule.operation] = rule
    return Policy(rules)


def _parse_rule(row: object) -> Rule:
    if not isinstance(row, dict) or set(row) != _KEYS:
        raise ConfigError(f"a policy rule must have exactly the keys {', '.join(sorted(_KEYS))}")
    strings = [row[key] for key in ("id", "operation", "effect", "reason")]
    if not all(isinstance(value, str) and value for value in strings) or type(row["tier"]) is not int:
        raise ConfigError("a policy rule has a value of the wrong type")
    try:
        operation, tier = Operation(row["operation"]), Tier(row["tier"])
    except ValueError as error:
        raise ConfigError(f"unknown value in the policy: {error}") from error
    allow = row["effect"] == "allow"
    if not allow and row["effect"] != "refuse":
        raise ConfigError(f"unknown effect {row['effect']!r} in the policy")
    if allow and tier is Tier.ASK:
        raise ConfigError(f"rule {row['id']} allows without asking what its tier says a person decides")
    return Rule(row["id"], operation, tier, allow, row["reason"])
