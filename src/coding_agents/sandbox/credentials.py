"""Recognises credentials by their published formats and by the names they are kept under.

Used where nothing secret may stand: environment, command line and labels of a container. It is a second
look at values that should not be there in the first place, so it may refuse a harmless value, and it
cannot know every format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Prefixes as their issuers document them for secret scanning.
_FORMATS = (
    ("GitHub token", r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}"),
    ("GitLab token", r"gl(?:pat|ptt|rt|dt|cbt|agent)-[A-Za-z0-9_-]{20,}"),
    ("Anthropic key", r"sk-ant-[A-Za-z0-9]{2,}[0-9]*-[A-Za-z0-9_-]{20,}"),
    ("OpenAI key", r"sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{40,}"),
    ("Google key", r"AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|1//0[A-Za-z0-9_-]{40,}"),
    ("AWS key", r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    ("Slack token", r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("npm token", r"npm_[A-Za-z0-9]{36}"),
    ("PyPI token", r"pypi-[A-Za-z0-9_-]{50,}"),
    ("Hugging Face token", r"hf_[A-Za-z0-9]{30,}"),
    ("Docker token", r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}"),
    ("Stripe key", r"[rs]k_live_[A-Za-z0-9]{20,}"),
    ("JSON web token", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"),
    ("private key", r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY"),
    ("URL with a password", r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@"),
)
_PATTERNS = tuple((label, re.compile(pattern)) for label, pattern in _FORMATS)

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:TOKEN|KEY|APIKEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(?:_[0-9]+)?$", re.IGNORECASE
)
_DUMMY = re.compile(r"(?:[A-Za-z-]*-)?(?:dummy|placeholder|unused|not-a-secret)(?:-[a-z-]*)?|", re.IGNORECASE)


def credential_in(text: str) -> str:
    """What kind of credential `text` contains, empty for none.

    >>> credential_in("ghp_" + "a" * 36)
    'GitHub token'
    """
    return next((label for label, pattern in _PATTERNS if pattern.search(text)), "")


def credentials_in_environment(env: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each variable that holds a credential, by its format or by its name; never the value."""
    problems = []
    for name, value in env:
        if kind := credential_in(value):
            problems.append(f"environment variable {name} holds a {kind}")
        elif _SECRET_NAME.search(name) and not _DUMMY.fullmatch(value):
            problems.append(f"environment variable {name} has the name of a secret and a value")
    return problems
