"""How old the pins of agents are, for people: known from their files alone, without a network."""

from __future__ import annotations

from contextlib import suppress
from datetime import date

from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import CodingAgentsError, StoreError
from coding_agents.images.manifests import AgentSource, agent_names, find_agent, pins_file
from coding_agents.model.packages import oldest_pin
from coding_agents.model.pins import stale_days
from coding_agents.store.files import make_dir, read_record, write_atomic


def age_told(source: AgentSource, today: date) -> str:
    """When the agent's packages were pinned; "" where nothing is, or nobody knows."""
    oldest = oldest_pin(source.manifest.packages)
    if oldest is None:
        return ""
    days = (today - oldest).days
    return "today" if days <= 0 else "yesterday" if days == 1 else f"{days} days ago"


def origin_told(env: HostEnvironment, source: AgentSource, today: date) -> str:
    """Where the pins in force are from, and since when; "" for an agent without any."""
    if not source.manifest.packages:
        return ""
    own = pins_file(env.pins_dir, source.manifest.name)
    age = age_told(source, today) or "on a day that nobody wrote down"
    if source.pins is None:
        return f"pinned {age}, by the manifest"
    if source.unused:
        return f"pinned {age}, by the manifest; {own} is not used: {source.unused}"
    return f"pinned {age}, by {own}"


def stale_agents(env: HostEnvironment, today: date) -> dict[str, int]:
    """The agents whose pins are too old, and how many days. One whose files are invalid is told elsewhere."""
    found: dict[str, int] = {}
    with suppress(CodingAgentsError):
        for name in agent_names(env.agents_dir):
            with suppress(CodingAgentsError):
                source = find_agent(name, env.agents_dir, env.pins_dir)
                found[name] = stale_days(source.manifest.packages, today)
    return {name: days for name, days in found.items() if days}


def launch_notice(env: HostEnvironment, agent: str, today: date) -> str:
    """What a launch says of an agent whose pins are too old: once a day and agent, and "" on all others."""
    told = env.state_dir / "pins-told" / agent
    with suppress(CodingAgentsError):
        days = stale_days(find_agent(agent, env.agents_dir, env.pins_dir).manifest.packages, today)
        if days and _last_told(env, agent) != str(today):
            make_dir(told.parent)
            write_atomic(told, str(today).encode())
            return f"{agent} was pinned {days} days ago; is there a newer one? coding-agents images update {agent}"
    return ""


def _last_told(env: HostEnvironment, agent: str) -> str:
    with suppress(FileNotFoundError, StoreError):
        return read_record(env.state_dir / "pins-told" / agent, limit=64).decode("ascii", "replace")
    return ""
