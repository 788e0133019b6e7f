"""What the user's git says of signing. Loaded by every launch, so it needs little."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coding_agents.model.signing import SIGNING_KEYS, SigningConfig, parse_signing
from coding_agents.proc.git import Profile, git
from coding_agents.proc.runner import Owner


def read_config(env: Mapping[str, str], git_dir: Path, owner: Owner | None) -> SigningConfig:
    """What git says of signing for the repository at `git_dir`, whose owner is `owner`. Raises GitError."""
    args = ("config", "--null", "--show-scope", "--includes", "--get-regexp", SIGNING_KEYS)
    listed = git(args, profile=Profile.USER_READ, env=env, git_dir=git_dir, owner=owner, check=False)
    return parse_signing(listed.text())
