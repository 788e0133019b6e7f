"""Reading the project's Markdown: its files, links, anchors, code and prose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(?P<language>[a-z]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_OUR_PATH = re.compile(r"(?:src|tests|images|agents|docs|tools|changelog\.d)/[A-Za-z0-9_./-]*[A-Za-z0-9_/]")


@dataclass(frozen=True)
class Page:
    """One Markdown file of the project; `name` is its path from the root."""

    name: str
    text: str

    @property
    def blocks(self) -> list[tuple[str, str]]:
        """Language and text of each fenced block."""
        return [(match["language"], match["body"]) for match in _FENCE.finditer(self.text)]

    @property
    def prose(self) -> str:
        """The text without fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def links(self) -> list[str]:
        return _LINK.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """What `#…` can name, as the usual renderers spell it."""
        kept = (re.sub(r"[^\w\- ]", "", title.lower()) for title in _HEADING.findall(self.prose))
        return {title.strip().replace(" ", "-") for title in kept}

    @property
    def paths(self) -> list[str]:
        """Paths of this project that stand alone between backticks."""
        return [code for code in _CODE.findall(self.prose) if _OUR_PATH.fullmatch(code)]

    def commands(self) -> Iterator[list[str]]:
        """The words of every command line of ours: in `sh` blocks, and between backticks."""
        lines = [line for language, body in self.blocks if language == "sh" for line in body.splitlines()]
        for line in (*lines, *_CODE.findall(self.prose)):
            words = line.split("#")[0].replace("…", "x").split()
            if words[:1] in (["coding-agents"], ["launch-agent"], ["list-agents"]):
                yield words


def pages() -> list[Page]:
    """All Markdown files of the project, sorted by name."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("changelog.d/*.md")]
    return [Page(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in sorted(found)]


def page(name: str) -> Page:
    return Page(name, (ROOT / name).read_text("utf-8"))
