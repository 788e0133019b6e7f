"""A user for the check of an agent's new version: a home without a login, and a repository that starts programs.

Nothing of the user's own is in it but the way to the engine: no setting, no credential, no repository.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.find import engine_environment
from coding_agents.images.rootfs import scratch_dir
from coding_agents.proc.git import Profile, git

MARKER = "started-by-the-repository"
"""What the files of the repository make when an agent runs them by itself."""

_START = f"/workspace/{MARKER}.sh"
_HOOKS = {"SessionStart": [{"hooks": [{"type": "command", "command": f"sh {_START} < /dev/null"}]}]}
_SERVERS = {"marker": {"command": "sh", "args": [_START]}}

_OURS = (
    "PYTHONPATH",
)  # by which the session's supervisor finds our own modules, where they are not installed

# The places in which the agents that we ship look for programs of a repository: docs/adr/0019.
FILES: Mapping[str, str] = {
    "README.md": "A repository for the check of a new version of a coding agent.\n",
    f"{MARKER}.sh": f"#!/bin/sh\ntouch /workspace/{MARKER}\nexec cat > /dev/null\n",
    ".mcp.json": json.dumps({"mcpServers": _SERVERS}),
    ".claude/settings.json": json.dumps({"enableAllProjectMcpServers": True, "hooks": _HOOKS}),
    ".codex/config.toml": f'[mcp_servers.marker]\ncommand = "sh"\nargs = ["{_START}"]\n',
    ".codex/hooks.json": json.dumps({"hooks": _HOOKS}),
    ".gemini/settings.json": json.dumps(
        {
            "mcp": {"allowed": ["marker"]},
            "mcpServers": _SERVERS,
            "hooksConfig": {"enabled": True},
            "hooks": _HOOKS,
            "tools": {"discoveryCommand": f"sh {_START} < /dev/null"},
        }
    ),
    ".github/mcp.json": json.dumps({"mcpServers": _SERVERS}),
    ".github/hooks/marker.json": json.dumps(
        {"version": 1, "hooks": {"sessionStart": [{"type": "command", "bash": f"sh {_START} < /dev/null"}]}}
    ),
    "opencode.json": json.dumps(
        {"mcp": {"marker": {"type": "local", "enabled": True, "command": ["sh", _START]}}}
    ),
    ".opencode/plugin/marker.js": f'import fs from "node:fs";\nfs.writeFileSync("/workspace/{MARKER}", "");\n',
    "tsconfig.json": json.dumps({"compilerOptions": {"paths": {"/opt/*": ["./.opencode/plugin/marker.js"]}}}),
}


@contextmanager
def trial_place(env: HostEnvironment, *, name: str, environ: Mapping[str, str]) -> Iterator[HostEnvironment]:
    """The environment of a user whose working directory is the repository `name`; `environ` comes on top.

    Sessions are the real user's, who finds them with `list` should this process be killed.
    """
    with other_home(env, name=name, environ=environ) as trial:
        _link(trial.home / "config/coding-agents/agents", env.agents_dir)
        make_repository(trial, FILES)
        yield trial


@contextmanager
def other_home(env: HostEnvironment, *, name: str, environ: Mapping[str, str]) -> Iterator[HostEnvironment]:
    """The environment of a user with an empty home, who has our way to the engine and `environ`, in a directory `name`.

    It is not there yet. Nothing of the home is left after the block.
    """
    with scratch_dir(env.environ) as scratch:
        home = scratch / "home"
        home.mkdir(mode=0o700)
        for own, place in ((env.config_home, "config"), (env.data_home, "data")):
            _link(home / place / "containers", own / "containers")  # Podman's settings and its images
        yield replace(
            env,
            environ={**_environ(env, home), **environ},
            home=home,
            cwd=home / name,
            stdin_tty=False,
            stdout_tty=False,
            stderr_tty=False,
        )


def has_marker(env: HostEnvironment, branch: str) -> bool:
    """Whether the agent's branch of the repository has what the repository's own files make."""
    wanted = f"refs/heads/{branch}:{MARKER}"
    found = git(
        ("cat-file", "-e", wanted),
        profile=Profile.OWN,
        env=env.for_git(),
        git_dir=env.cwd / ".git",
        check=False,
    )
    return found.ok


def _environ(env: HostEnvironment, home: Path) -> dict[str, str]:
    """The way to the engine; no proxy, for the model is on the loopback."""
    kept = {
        name: value
        for name, value in engine_environment(env.environ).items()
        if not name.upper().endswith("_PROXY")
    }
    ours = {name: env.environ[name] for name in _OURS if name in env.environ}
    return (
        kept
        | ours
        | {
            "HOME": os.fspath(home),
            "DOCKER_CONFIG": env.environ.get("DOCKER_CONFIG") or os.fspath(env.home / ".docker"),
            "XDG_CONFIG_HOME": os.fspath(home / "config"),
            "XDG_DATA_HOME": os.fspath(home / "data"),
            "XDG_STATE_HOME": os.fspath(env.state_home),
        }
    )


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        path.symlink_to(target)


def make_repository(env: HostEnvironment, files: Mapping[str, str]) -> None:
    """A repository without a commit in the working directory of `env`."""
    for name, content in files.items():
        (env.cwd / name).parent.mkdir(parents=True, exist_ok=True)
        (env.cwd / name).write_text(content, "utf-8")
    git(("init", "--quiet", os.fspath(env.cwd)), profile=Profile.OWN, env=env.for_git(), cwd=env.cwd)
