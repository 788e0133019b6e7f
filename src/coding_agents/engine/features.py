"""All differences between Docker and Podman, in one table. Code asks for a feature, never for a name."""

from __future__ import annotations

import msgspec

PROXY_VARIABLES = tuple(
    spelled
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for spelled in (name, name.lower())
)


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine needs to be told, and how.

    `minimum` is the oldest version with every flag we use. `create_flags` go to each container.
    `blanks_proxies`: the client adds the proxies of its own configuration (they may hold passwords) unless
    a variable is set, so each is set to nothing. `log_files`: the log driver can rotate. `fits_rlimits`: the
    engine asks for rlimits above its own hard ones and fails, unless given lower ones. `gives_volumes`: the first
    container that mounts an empty volume has its directory given to its own user. `global_runtime`:
    the runtime is an option of the program, not of `create`, and `gvisor_flags` go with gVisor's. `network_flags`
    and `build_env` go to `network create` and to the environment of `build`. `leaves_copies`: what `cp` reads from its
    standard input goes through a file in TMPDIR, which it does not remove.
    """

    name: str
    title: str
    minimum: tuple[int, int]
    create_flags: tuple[str, ...] = ()
    log_driver: str
    log_files: bool
    blanks_proxies: bool
    fits_rlimits: bool
    gives_volumes: bool
    global_runtime: bool
    gvisor_flags: tuple[str, ...] = ()
    network_flags: tuple[str, ...] = ()
    build_env: tuple[tuple[str, str], ...] = ()
    leaves_copies: bool = False


DOCKER = Features(
    name="docker",
    title="Docker",
    minimum=(20, 10),
    log_driver="json-file",
    log_files=True,
    blanks_proxies=True,
    fits_rlimits=False,
    gives_volumes=False,
    global_runtime=False,
    build_env=(("BUILDKIT_PROGRESS", "plain"),),
)

PODMAN = Features(
    name="podman",
    title="Podman",
    minimum=(4, 0),
    # Podman hands the host's proxy variables in by default, and guesses whether a command is systemd.
    create_flags=("--http-proxy=false", "--systemd=false"),
    log_driver="k8s-file",
    log_files=False,
    blanks_proxies=False,
    fits_rlimits=True,
    gives_volumes=True,
    global_runtime=True,
    # It takes no settings of ours from a file. With its own network it takes a kernel since 6.10 for the host's own
    # network namespace (it looks for net.core.rmem_default), and does not start.
    gvisor_flags=("--runtime-flag=network=none",),
    # The resolver at the gateway would be one more host service to open; --dns names the real ones.
    network_flags=("--disable-dns",),
    leaves_copies=True,
)

ENGINES = {features.name: features for features in (DOCKER, PODMAN)}
