"""Google's Gemini API: what a request may hold, and how an answer tells its usage.

Names are those of the API's reference (v1beta), checked against what Gemini CLI 0.61.0 sends. The service reads each
name in snake_case as well; none of those is known here, so none is let through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coding_agents.brokers.model.shapes import Family, Kind
from coding_agents.brokers.model.usage import Usage, whole
from coding_agents.policy.matrix import Operation

_SERVER = Operation.MODEL_SERVER_TOOL
_REFERENCE = Operation.MODEL_REFERENCE
_UNKNOWN = Operation.MODEL_UNKNOWN

_FILE = {"fileData": (_REFERENCE, "fileData"), "file_data": (_REFERENCE, "file_data")}

REQUEST = Kind(
    opaque=frozenset({"model", "toolConfig", "generationConfig", "safetySettings", "labels"}),
    inside={
        "contents": "content",
        "systemInstruction": "content",
        "tools": "tool",
        "generateContentRequest": "request",
    },
    refused={"cachedContent": (_REFERENCE, "cachedContent")},
    closed=_UNKNOWN,
)

FAMILIES: Mapping[str, Family] = {
    "request": Family({"": REQUEST}, tag=""),
    "content": Family({"": Kind(frozenset({"role"}), {"parts": "part"}, closed=_UNKNOWN)}, tag=""),
    "part": Family(
        {
            "": Kind(
                frozenset({"text", "inlineData", "functionCall", "thought", "thoughtSignature"})
                | {"executableCode", "codeExecutionResult", "videoMetadata"},
                {"functionResponse": "function-response"},
                refused=_FILE,
                closed=_UNKNOWN,
            )
        },
        tag="",
    ),
    "function-response": Family(
        {
            "": Kind(
                frozenset({"id", "name", "response", "willContinue", "scheduling"}),
                {"parts": "part"},
                closed=_UNKNOWN,
            )
        },
        tag="",
    ),
    # The name of the field is the tool: googleSearch, urlContext, codeExecution and what else comes.
    "tool": Family({"": Kind(frozenset({"functionDeclarations"}), closed=_SERVER)}, tag=""),
}


def usage_of(event: Mapping[str, Any]) -> Usage | None:
    """What an event of a stream, or a whole answer, says of the tokens so far."""
    found = event.get("usageMetadata")
    if not isinstance(found, dict):
        return None
    written = whole(found.get("candidatesTokenCount")) + whole(found.get("thoughtsTokenCount"))
    return Usage(whole(found.get("promptTokenCount")), whole(found.get("cachedContentTokenCount")), written)


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error as the API writes it."""
    names = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}
    return {"error": {"code": status, "message": message, "status": names.get(status, "UNAVAILABLE")}}


def personalise(body: dict[str, Any], _session: str) -> None:
    """Nothing in this API says who a request is from, but labels."""
    body.pop("labels", None)
