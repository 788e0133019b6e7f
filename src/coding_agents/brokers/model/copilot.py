"""GitHub's Copilot service: bodies of OpenAI's and of Anthropic's APIs, as Copilot CLI 1.0.102 sends them.

Recorded from the program, which was given a dummy for a token; no account was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from coding_agents.brokers.model import anthropic, openai
from coding_agents.brokers.model.shapes import Family, Kind
from coding_agents.brokers.model.usage import Usage

_BESIDE = frozenset({"snippy"})  # whether an answer is compared with public code
_ANTHROPIC = "anthropic-{}"


def _renamed(kind: Kind) -> Kind:
    """The same with Anthropic's families by other names: OpenAI's have some of these, too."""
    return replace(kind, inside={name: _ANTHROPIC.format(family) for name, family in kind.inside.items()})


def _with_beside(kind: Kind) -> Kind:
    return replace(kind, opaque=kind.opaque | _BESIDE)


CHAT = _with_beside(openai.CHAT)
RESPONSES = _with_beside(openai.RESPONSES)
MESSAGES = _with_beside(_renamed(anthropic.REQUEST))

FAMILIES: Mapping[str, Family] = {
    **openai.FAMILIES,
    **{
        _ANTHROPIC.format(name): replace(
            family, kinds={tag: _renamed(kind) for tag, kind in family.kinds.items()}
        )
        for name, family in anthropic.FAMILIES.items()
    },
}


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """What an event of a stream, or a whole answer, says of the tokens so far, in the words of either API."""
    is_message = str(event.get("type", "")).startswith("message")
    return anthropic.usage_of(event) if is_message else openai.usage_of(event)


def personalise(body: dict[str, Any], session: str) -> None:
    """Put the session in the place of whoever the request says that it is from."""
    for name in ("user", "safety_identifier", "prompt_cache_key"):
        if name in body:
            body[name] = session
    if "metadata" in body:
        body["metadata"] = {"user_id": session}
