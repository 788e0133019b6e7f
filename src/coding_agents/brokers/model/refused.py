"""Records of requests to a model that were not carried out."""

from __future__ import annotations

from coding_agents.model.audit import AuditEvent, Outcome, RecordType
from coding_agents.policy.matrix import Tier


def denied(rule: str, subject: str, reason: str) -> AuditEvent:
    """The record of a request that was refused."""
    return _event("denied", rule, subject, reason)


def failed(subject: str, reason: str) -> AuditEvent:
    """The record of a request that the provider did not answer."""
    return _event("failed", "model-upstream", subject, reason)


def _event(outcome: Outcome, rule: str, subject: str, reason: str) -> AuditEvent:
    return AuditEvent(
        RecordType.MODEL_REFUSED,
        outcome=outcome,
        tier=int(Tier.ASK),
        rule=rule,
        subject=subject,
        detail={"reason": reason},
    )
