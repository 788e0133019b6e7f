"""All checks, in the order in which they are told."""

from __future__ import annotations

from coding_agents.verify.checks_bounds import bounds_checks
from coding_agents.verify.checks_container import container_checks
from coding_agents.verify.checks_git import git_checks
from coding_agents.verify.checks_host import host_checks
from coding_agents.verify.checks_network import full_checks, network_checks
from coding_agents.verify.checks_origin import origin_checks
from coding_agents.verify.checks_proxy import proxy_checks
from coding_agents.verify.model import Check
from coding_agents.verify.scene import Scene


def all_checks(scene: Scene) -> tuple[Check, ...]:
    """Every check that this version knows; those of the full run among them."""
    network = (*network_checks(), *proxy_checks(), *bounds_checks())
    git = (*git_checks(), *origin_checks())
    return (*container_checks(scene), *network, *host_checks(), *git, *full_checks())
