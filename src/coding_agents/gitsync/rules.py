"""Load the policy that ships with the package."""

from __future__ import annotations

from importlib.resources import files

from coding_agents.policy.matrix import Policy, parse_matrix


def load_policy() -> Policy:
    """The operation matrix of this version. Raises ConfigError when the installed file is damaged."""
    return parse_matrix(files("coding_agents.policy").joinpath("matrix.toml").read_text("utf-8"))
