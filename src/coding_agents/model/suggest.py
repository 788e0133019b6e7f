"""What a person may have meant: known words that are spelled like an unknown one."""

from __future__ import annotations

from collections.abc import Iterable


def close_to(word: str, known: Iterable[str], *, limit: int = 1) -> list[str]:
    """At most `limit` of `known` that look like `word`, the best first."""
    import difflib  # for mistakes only

    return difflib.get_close_matches(word, list(known), n=limit)
