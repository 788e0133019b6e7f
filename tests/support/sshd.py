"""A real sshd on this host's loopback that serves git repositories to listed keys, and notes what each asked for."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.keys import SshKey, ssh_key

HOST = "forge.test"  # only the configuration that we write knows this name

# What a key may do: its name, then `REPOSITORY read|write` lines in a file of that name. git-shell runs the rest.
_GATE = """#!/bin/sh
set -eu
printf '%s %s\\n' "$1" "${{SSH_ORIGINAL_COMMAND:-}}" >> '{log}'
case ${{SSH_ORIGINAL_COMMAND:-}} in git-upload-pack\\ *) want='read\\|write' ;; git-receive-pack\\ *) want=write ;;
  *) echo "no shell here" >&2; exit 1 ;; esac
cd '{root}'
name=$(printf '%s' "$SSH_ORIGINAL_COMMAND" | sed "s/^[^ ]* '\\{{0,1\\}}\\/\\{{0,1\\}}//; s/'$//; s/\\.git$//")
grep -qx "$name \\($want\\)" '{access}'/"$1" || {{ echo "ERROR: $name is not for $1" >&2; exit 1; }}
export GIT_CONFIG_NOSYSTEM=1 HOME='{root}'
[ ! -x '{access}/banner' ] || '{access}/banner' >&2
exec git-shell -c "${{SSH_ORIGINAL_COMMAND%% *}} './$name.git'"
"""

_CONFIG = """HostKey {key}
AuthorizedKeysFile {authorized}
AcceptEnv GIT_PROTOCOL
AuthenticationMethods publickey
PermitRootLogin forced-commands-only
StrictModes no
UsePAM no
PrintMotd no
PidFile none
LogLevel VERBOSE
AllowTcpForwarding no
AllowAgentForwarding no
X11Forwarding no
"""


@dataclass
class SshForge:
    """A running server for the repositories below `root`."""

    root: Path
    directory: Path
    port: int
    host_key: SshKey
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def url(self, name: str) -> str:
        """As `ssh://`, for the client configuration of `client`."""
        return f"ssh://{getpass.getuser()}@{HOST}/{name}.git"

    def scp_like(self, name: str) -> str:
        return f"{getpass.getuser()}@{HOST}:{name}.git"

    def allow(self, who: str, key: SshKey, **may: str) -> None:
        """Let a key in, for repositories (`__` is a slash) to `read` or to `write`."""
        lines = "".join(f"{one.replace('__', '/')} {right}\n" for one, right in may.items())
        (self.directory / "access" / who).write_text(lines)
        with (self.directory / "authorized").open("a") as handle:
            handle.write(f'restrict,command="{self.directory}/gate {who}" {key.public}\n')

    def client(self, home: Path, *identities: SshKey, agent: Path | None = None) -> Path:
        """A configuration for `ssh -F`: it knows the host's key and where the host is.

        ssh takes the home of the account, not HOME, so that a test's own needs `core.sshCommand`."""
        home.mkdir(parents=True, exist_ok=True)
        known = home / "known_hosts"
        known.write_text(f"{HOST} {self.host_key.public}\n")
        path = home / "ssh_config"
        keys = "".join(f"  IdentityFile {one.path}\n" for one in identities)
        path.write_text(
            f"Host {HOST}\n  HostName 127.0.0.1\n  Port {self.port}\n  HostKeyAlias {HOST}\n{keys}"
            f"  IdentitiesOnly {'no' if agent else 'yes'}\n  IdentityAgent {agent or 'none'}\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile none\n"
            "  StrictHostKeyChecking yes\n  UpdateHostKeys no\n"
        )
        return path

    def trust(self, home: Path, *identities: SshKey, agent: Path | None = None) -> None:
        """Let git of who has this home reach the server with these keys."""
        path = self.client(home, *identities, agent=agent)
        with (home / ".gitconfig").open("a") as handle:
            handle.write(f"[core]\n\tsshCommand = ssh -F {path}\n")

    def banner(self, script: str) -> None:
        """A shell script whose output each visitor gets on standard error, before git."""
        path = self.directory / "access/banner"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        """Each visit: the name of the key, and the command that it sent."""
        log = self.directory / "log"
        return log.read_text().splitlines() if log.exists() else []


@contextmanager
def ssh_forge(directory: Path, root: Path) -> Iterator[SshForge]:
    """Serve `root`; skips where there is no sshd, which a person's machine need not have (CI does)."""
    program = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if program is None:
        if os.environ.get("CODING_AGENTS_NO_SERVICES") == "1":
            pytest.fail("CI has no sshd: ./dev setup installs openssh-server there")
        pytest.skip("no sshd here (Debian: openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where a root's sshd locks its children up
    (directory / "access").mkdir(parents=True)
    authorized, host_key = directory / "authorized", ssh_key(directory / "host_key")
    gate = directory / "gate"
    gate.write_text(_GATE.format(log=directory / "log", root=root, access=directory / "access"))
    gate.chmod(0o755)
    config = directory / "sshd_config"
    config.write_text(_CONFIG.format(key=host_key.path, authorized=authorized))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        forge = SshForge(root, directory, listener.getsockname()[1], host_key)
        argv = (program, "-i", "-f", str(config), "-E", str(directory / "sshd.log"))
        thread = threading.Thread(target=_accept, args=(listener, forge, argv))
        thread.start()
        try:
            yield forge
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for child in forge.children:
                child.terminate()
                child.wait(10)


def _accept(listener: socket.socket, forge: SshForge, argv: tuple[str, ...]) -> None:
    """One sshd a connection, as inetd does: no port of a daemon's own, and no daemon."""
    with suppress(OSError):
        while True:
            link, _ = listener.accept()
            with link:
                child = subprocess.Popen(
                    argv, stdin=link.fileno(), stdout=link.fileno(), stderr=subprocess.DEVNULL
                )
            forge.children[:] = [one for one in forge.children if one.poll() is None]
            forge.children.append(child)
