"""The only reader of the process environment: everything else is given a `HostEnvironment`.

It is a value, so tests build one without touching their own process, and a launch can be replayed.
`for_git` is an allow-list, as is `engine.find.engine_environment`: a variable that we did not think of is
not passed on, so that running inside a git hook (GIT_DIR, GIT_INDEX_FILE) or with a stray secret changes nothing.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from coding_agents.model.masked import Masked

Platform = Literal["linux", "wsl", "darwin", "other"]

_APP = "coding-agents"

# What every program needs to find itself, its user and the way out of the host's network.
_COMMON = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TERM", "COLORTERM",
    "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK",
)  # fmt: skip
_GIT = (
    "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_SSH", "GIT_SSH_COMMAND",
    "GIT_SSH_VARIANT", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_PROXY_SSL_CAINFO", "GNUPGHOME",
)  # fmt: skip


class HostEnvironment(Masked, frozen=True):
    """What the launcher knows of the user's process: identity, places, terminal and variables.

    `sudo_user` is the person behind sudo, told to them and recorded, never used to change identity.
    """

    MASKED = frozenset({"environ"})

    environ: Mapping[str, str]
    home: Path
    uid: int
    gid: int
    cwd: Path
    platform: Platform
    stdin_tty: bool = False
    stdout_tty: bool = False
    stderr_tty: bool = False
    sudo_user: str = ""

    @property
    def config_home(self) -> Path:
        return self._xdg("XDG_CONFIG_HOME", ".config")

    @property
    def state_home(self) -> Path:
        return self._xdg("XDG_STATE_HOME", ".local/state")

    @property
    def data_home(self) -> Path:
        return self._xdg("XDG_DATA_HOME", ".local/share")

    @property
    def config_dir(self) -> Path:
        return self.config_home / _APP

    @property
    def state_dir(self) -> Path:
        return self.state_home / _APP

    @property
    def data_dir(self) -> Path:
        return self.data_home / _APP

    @property
    def agents_dir(self) -> Path:
        """The user's own manifests of agents."""
        return self.config_dir / "agents"

    @property
    def pins_dir(self) -> Path:
        """The user's own pins of what agents' images are made of."""
        return self.data_dir / "pins"

    @property
    def user_config(self) -> Path:
        return self.config_dir / "config.toml"

    def for_git(self) -> dict[str, str]:
        """The environment that host-side git starts from; proc.git narrows it further by profile."""
        return self._only((*_COMMON, *_GIT), LC_ALL="C.UTF-8")

    def _only(self, names: Iterable[str], **fixed: str) -> dict[str, str]:
        kept = {name: self.environ[name] for name in names if name in self.environ}
        return {**kept, "HOME": os.fspath(self.home), **fixed}

    def _xdg(self, variable: str, default: str) -> Path:
        # Relative values are to be ignored: XDG Base Directory Specification 0.8, "Basics".
        value = self.environ.get(variable, "")
        return Path(value) if value.startswith("/") else self.home / default


def detect_platform(sys_platform: str, kernel_release: str) -> Platform:
    """The platform whose path rules apply; WSL 1 and 2 both name Microsoft in the kernel release."""
    if sys_platform.startswith("linux"):
        return "wsl" if "microsoft" in kernel_release.lower() else "linux"
    return "darwin" if sys_platform == "darwin" else "other"


def read_environment() -> HostEnvironment:
    """The `HostEnvironment` of this very process."""
    environ = MappingProxyType(dict(os.environ))
    uid = os.geteuid()
    home = environ.get("HOME", "")
    return HostEnvironment(
        environ=environ,
        home=Path(home) if home.startswith("/") else Path(_passwd_home(uid)),
        uid=uid,
        gid=os.getegid(),
        cwd=_cwd(environ),
        platform=detect_platform(sys.platform, os.uname().release),
        stdin_tty=_is_tty(0),
        stdout_tty=_is_tty(1),
        stderr_tty=_is_tty(2),
        sudo_user=environ.get("SUDO_USER", "") if uid == 0 else "",
    )


def _passwd_home(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"


def _cwd(environ: Mapping[str, str]) -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        # The directory was removed under us. Commands that need it fail on it by name; `list` works.
        return Path(environ.get("PWD", "/"))


def _is_tty(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
