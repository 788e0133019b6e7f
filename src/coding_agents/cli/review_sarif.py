"""A review as SARIF 2.1.0 (OASIS), which code hosts and editors show. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

from coding_agents import __version__
from coding_agents.gitsync.findings.rules import load_rules
from coding_agents.terminal.escape import escape

if TYPE_CHECKING:
    from coding_agents.app.review import Review
    from coding_agents.gitsync.findings.model import Finding

_NO_NAMES = frozenset({"", ".", ".."})  # parts of a path by which a URI leads elsewhere
_LEVEL = {"block": "error", "warn": "warning", "note": "note"}
_ROOT = "SRCROOT"
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def to_sarif(found: Review) -> dict[str, object]:
    """The log: one run, every rule, a result for each finding; accepted ones are suppressed results.

    Texts are escaped, and a path is a relative URI of its bytes: nothing in it can become another address.
    """
    texts = load_rules().texts()
    index = {one.id: number for number, one in enumerate(texts)}
    rules = [
        {
            "id": one.id,
            "shortDescription": {"text": one.reason},
            "defaultConfiguration": {"level": _LEVEL[one.severity.value]},
        }
        for one in texts
    ]
    run = {
        "tool": {"driver": {"name": "coding-agents", "semanticVersion": __version__, "rules": rules}},
        "automationDetails": {"id": f"coding-agents/review/{escape(found.branch)}/"},
        "columnKind": "utf16CodeUnits",
        "originalUriBaseIds": {_ROOT: {"description": {"text": "the root of the repository"}}},
        "results": [_result(one, found, index) for one in found.findings],
        "properties": {"branch": escape(found.branch), "base": found.base or "", "tip": found.tip or ""},
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(finding: Finding, found: Review, index: dict[str, int]) -> dict[str, object]:
    result: dict[str, object] = {
        "ruleId": finding.rule,
        "ruleIndex": index[finding.rule],
        "level": _LEVEL[finding.severity.value],
        "message": {"text": escape(f"{finding.path}: {finding.detail}" if finding.path else finding.detail)},
        "partialFingerprints": {"codingAgentsFinding/v1": finding.id},
        "properties": {"ref": escape(finding.ref or found.branch), "commit": finding.commit},
    }
    if finding.path and _NO_NAMES.isdisjoint(finding.path.split("/")):
        uri = quote_from_bytes(finding.path.encode("utf-8", "surrogateescape"), safe="/")
        place = {"artifactLocation": {"uri": uri, "uriBaseId": _ROOT}}
        result["locations"] = [{"physicalLocation": place}]
    if word := found.accepted.get(finding.id):
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": word.reason}]
    return result
