"""What every verb is given: the host's environment, and from it, only when asked for, settings and store."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from coding_agents.cli.output import Output
from coding_agents.config.environ import HostEnvironment

if TYPE_CHECKING:  # `--help` must not pay for these
    from coding_agents.model.settings import Settings
    from coding_agents.store.sessions import SessionStore


class AppContext(msgspec.Struct, dict=True):
    """The shared object of the command line (`click.pass_obj`)."""

    env: HostEnvironment
    output: Output = msgspec.field(default_factory=lambda: Output(sys.stdout, sys.stderr))

    @cached_property
    def store(self) -> SessionStore:
        from coding_agents.store.sessions import SessionStore

        return SessionStore(self.env.state_dir)

    def settings(self, *, project: Path | None = None, flags: Mapping[str, object] | None = None) -> Settings:
        """The effective settings of a verb; `project` is the repository's root, `flags` by key."""
        from coding_agents.config.load import load_settings

        return load_settings(self.env, project=project, flags=flags)
