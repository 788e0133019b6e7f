"""A verification as one page that can be sent to somebody: no script, nothing loaded from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from coding_agents.verify.model import Report, Result, score
from coding_agents.verify.report import GROUPS, comparable

_STYLE: Final = """\
body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1c2128}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .5rem;text-align:left;vertical-align:top;
border-bottom:1px solid #d8dee4}.passed{color:#116329}.failed{color:#b3261e;font-weight:bold}.unknown{color:#7d4e00}
code{font-size:.85em}small{color:#57606a}"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_ORDER: Final = {"failed": 0, "unknown": 1, "passed": 2}


def to_html(report: Report, *, made: str) -> str:
    """The whole page; `made` is the day, as text. Everything that a container said is text on it."""
    arms = report.baseline or {}
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>coding-agents verify: {report.score} of 100</title><style>{_STYLE}</style></head><body>",
            f"<h1>coding-agents verify: {report.score} of 100</h1>",
            f"<p>{_text(report.engine)} {_text(report.version)}, {_text(made)}. Sessions of a throw-away user were "
            "attacked from inside; the host judged what came of it. No packet left the machine.</p>",
            *_contrast(report, arms),
            *(line for group, title in GROUPS.items() for line in _group(report.results, group, title, arms)),
            "</body></html>",
            "",
        )
    )


def _contrast(report: Report, arms: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    if not arms:
        return
    yield "<h2>For contrast</h2><table><tr><th>where</th><th>stopped</th><th>score</th></tr>"
    for name, found in arms.items():
        same = comparable(report, found)
        yield f"<tr><td>{_text(name)}</td><td>{_stopped(found)}</td><td>{score(found)}</td></tr>"
        yield f"<tr><td>a session, the same attacks</td><td>{_stopped(same)}</td><td>{score(same)}</td></tr>"
    yield "</table>"


def _group(
    results: Sequence[Result], group: str, title: str, arms: Mapping[str, Sequence[Result]]
) -> Iterator[str]:
    found = sorted((one for one in results if one.group == group), key=lambda one: _ORDER[one.status])
    if not found:
        return
    head = "".join(f"<th>{_text(name)}</th>" for name in arms)
    yield f"<h2>{_text(title)}: {_stopped(found)}</h2><table>"
    yield f"<tr><th>check</th><th>tried</th><th>stopped by</th><th>session</th>{head}</tr>"
    for one in found:
        others = "".join(
            _status(next((two for two in arm if two.id == one.id), None)) for arm in arms.values()
        )
        yield (
            f"<tr><td><code>{_text(one.id)}</code><br><small>{_text(one.mode)}</small></td><td>{_text(one.tried)}"
            f"</td><td>{_text(one.stopped_by)}</td>{_status(one)}{others}</tr>"
        )
    yield "</table>"


def _status(result: Result | None) -> str:
    if result is None:
        return "<td></td>"
    detail = f"<br><small>{_text(result.detail)}</small>" if result.detail else ""
    word = {"passed": "stopped", "failed": "NOT STOPPED", "unknown": "unknown"}[result.status]
    return f'<td class="{result.status}">{word}{detail}</td>'


def _stopped(results: Sequence[Result]) -> str:
    return f"{sum(one.status == 'passed' for one in results)} of {len(results)}"


def _text(text: str) -> str:
    """Text of anybody's as text of the page: no markup, and no character that is not seen."""
    seen = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    return html.escape(seen)
