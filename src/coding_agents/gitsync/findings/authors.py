"""Commits that say they are by somebody else than the session. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from coding_agents.gitsync.findings.model import Finding, Severity, clipped
from coding_agents.model.commit import clean_person


def judge_people(
    commits: Iterable[tuple[bytes, ...]],
    name: str,
    address: str,
    committer_name: str = "",
    committer_address: str = "",
) -> Iterator[Finding]:
    """One finding for each foreign author or committer, with the number of commits and one of them.

    `commits` are (commit, author's name, address, committer's name, address); `name` and `address` are the
    session's, and so are `committer_name` and its address ("": no further one) as a committer. A guest writes what it
    likes here: that a commit is by the session proves nothing either.
    """
    own = clean_person(name), clean_person(address)
    committers = {own, (clean_person(committer_name or name), clean_person(committer_address or address))}
    counts: Counter[tuple[str, str, str]] = Counter()
    example: dict[tuple[str, str, str], str] = {}
    for commit, *texts in commits:
        author_name, author, by, committer = (text.decode("utf-8", "surrogateescape") for text in texts)
        for role, who in (("author", (author_name, author)), ("committer", (by, committer))):
            if (clean_person(who[0]), clean_person(who[1])) not in (
                committers if role == "committer" else {own}
            ):
                key = (role, clipped(who[0]), clipped(who[1]))
                counts[key] += 1
                example.setdefault(key, commit.decode("ascii", "replace"))
    for (role, other, mail), count in counts.items():
        such = f"{count} commit(s), such as {example[role, other, mail]}"
        detail = f"{role} {other} <{mail}> is not the session's: {such}"
        yield Finding(f"commit.{role}", Severity.WARN, "", detail)
