"""coding-agents: run AI coding agents unattended in a container that they cannot leave."""

__version__ = "0.1.0"
