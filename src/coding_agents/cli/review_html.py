"""A review as one page that can be sent to somebody: no script, nothing loaded from elsewhere. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from coding_agents.gitsync.findings.rules import load_rules
from coding_agents.terminal.escape import escape

if TYPE_CHECKING:
    from coding_agents.app.review import Review
    from coding_agents.app.review_page import Page

_STYLE: Final = """\
body{font:15px/1.45 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#1c2128}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .5rem;text-align:left;vertical-align:top;
border-bottom:1px solid #d8dee4;overflow-wrap:anywhere}
.block{color:#b3261e;font-weight:bold}.warn{color:#7d4e00}.note{color:#57606a}.accepted{color:#116329}
code,pre{font:.85em/1.4 ui-monospace,monospace}pre{overflow-x:auto;background:#f6f8fa;padding:.5rem}
.add{background:#dafbe1}.del{background:#ffebe9}.head{color:#57606a;font-weight:bold}small{color:#57606a}"""
# No origin may do anything here: no script, image, font, form, frame, base or link that is followed by itself.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def to_html(found: Review, page: Page, *, made: str) -> str:
    """The whole page; `made` is the time, as text. All that the agent wrote is text on it."""
    verdict = (
        f"{len(found.blockers)} finding(s) block a merge" if found.blocking else "nothing blocks a merge"
    )
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>review of {_text(found.branch)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>Review of {_text(found.branch)}</h1>",
            f"<p>{_text(verdict)}. {found.commits} commit(s), {found.files} file(s), from "
            f"<code>{_text(found.base or 'nothing')}</code> to <code>{_text(found.tip or 'nothing')}</code>; "
            f"{_text(made)}. Nothing of it was run.</p>",
            *_findings(found),
            *_commits(page),
            *_changes(page),
            "</body></html>",
            "",
        )
    )


def _findings(found: Review) -> Iterator[str]:
    yield f"<h2>Findings: {len(found.findings)}</h2>"
    if not found.findings:
        return
    reasons = {one.id: one.reason for one in load_rules().texts()}
    yield "<table><tr><th>severity</th><th>rule</th><th>where</th><th>detail</th><th>id</th></tr>"
    for one in found.findings:
        word = found.accepted.get(one.id)
        said = f'<br><span class="accepted">accepted: {_text(word.reason)}</span>' if word else ""
        where = "".join(
            (_text(one.path or "the branch"), f"<br><small>{_text(one.ref)}</small>" if one.ref else "")
        )
        yield (
            f'<tr><td class="{one.severity.value}">{one.severity.value}</td><td><code>{_text(one.rule)}</code>'
            f"<br><small>{_text(reasons.get(one.rule, ''))}</small></td><td><code>{where}</code></td>"
            f"<td>{_text(one.detail)}{said}</td><td><code>{_text(one.id)}</code></td></tr>"
        )
    yield "</table>"


def _commits(page: Page) -> Iterator[str]:
    yield "<h2>Commits</h2><table><tr><th>commit</th><th>author</th><th>subject</th></tr>"
    for one in page.commits:
        yield (
            f"<tr><td><code>{_text(one.oid[:12])}</code></td><td>{_text(one.author)}</td>"
            f"<td>{_text(one.subject)}</td></tr>"
        )
    yield "</table>"


def _changes(page: Page) -> Iterator[str]:
    yield f"<h2>Changes</h2><pre>{_lines(page.stat)}</pre>"
    yield "<pre>"
    for line in page.changes.split("\n"):
        kind = _KINDS.get(line[:1], "")
        if line.startswith(("diff --git ", "+++ ", "--- ", "@@ ")):
            kind = "head"
        yield f'<span class="{kind}">{_text(line)}</span>' if kind else _text(line)
    yield "</pre>"
    if page.cut:
        yield "<p>There is more: <code>coding-agents diff</code> shows all of it.</p>"


_KINDS: Final = {"+": "add", "-": "del"}


def _lines(text: str) -> str:
    return "\n".join(map(_text, text.split("\n")))


def _text(text: str) -> str:
    """Text of anybody's as text of the page: no markup, and no character that is not seen."""
    return html.escape(escape(text, keep="\t"))
