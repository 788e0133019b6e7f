"""What is tried in a session, by name: attempts from the facts of the throw-away place that they are aimed at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from coding_agents.model.limits import Limits
from coding_agents.sandbox.spec import HOME, SOCKETS, WORKSPACE
from coding_agents.verify.model import Attempt

SOCKET_NAMES: Final = ("credential.sock", "events.sock", "relay.sock", "sign.sock", "tools.sock")
SLOW_SOCKETS: Final = ("credential.sock", "sign.sock")
"""Those that answer so many requests and no more: noise comes after all that counts."""

STORED_HOST: Final = "127.0.0.1:9"
STORED_PATH: Final = "team/shop.git"
"""A place that the host's git has a password for, and that nobody listens at."""
GUEST: Final = "/opt/coding-agents"
BRIDGE_UID: Final = 1002
SIZED: Final = ("/tmp", "/var/tmp", "/run", SOCKETS, "/dev/shm")  # noqa: S108 - paths inside the container
MASKED: Final = (
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
)
SIGNALS: Final = (9, 19, 11, 6)
KNOCK_S: Final = 1.3

MODEL_TRICKS: Final = (
    "absolute", "connect", "two lengths", "both lengths", "dots", "escaped", "files", "batches", "admin",
    "key in query", "web search", "web fetch", "mcp", "image by url", "unknown",
)  # fmt: skip


class Target(msgspec.Struct, frozen=True):
    """Somebody on this machine who answers: `kind` says who, `address` where a session finds them.

    `there` is the same address as the engine's machine spells it, where that is another way.
    """

    kind: str
    address: str
    port: int
    there: str = ""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that attacks need. `secret` is planted on the host, `decoy` in the repository's own files.

    `foreign` are objects of the repository that no session is given, `hidden` is one of its origin that no branch and
    no tag has, `branch` is the session's, `signing_key` a line of the key that signs its commits, `cage` a directory
    of the host's in which a program that ran would leave a file, `markers` are what servers of the repository would
    make.
    """

    secret: str
    decoy: str
    foreign: Mapping[str, str]
    branch: str
    cage: str
    markers: tuple[str, ...]
    limits: Limits
    hidden: str = ""
    signing_key: str = ""


REFSPECS: Final = {
    "main": "HEAD:refs/heads/main",
    "another branch": "HEAD:refs/heads/verify/another",
    "a tag": "HEAD:refs/tags/v9",
    "notes": "HEAD:refs/notes/commits",
    "replace": "HEAD:refs/replace/{foreign}",
    "an option": "HEAD:refs/heads/--upload-pack=x",
    "incoming": "HEAD:refs/coding-agents/incoming/x",
    "deletion": ":refs/heads/{branch}",
    "case": "HEAD:refs/heads/VERIFY/{last}",
}


def attempts(scene: Scene) -> dict[str, Attempt]:
    """What is tried side by side in every session."""
    backwards = scene.secret[::-1]
    return {
        **bare_attempts(scene),
        "fill": Attempt("files", "fill", (SOCKETS,)),
        "bridge": Attempt("processes", "attack_user", (BRIDGE_UID,)),
        "signal bridge": Attempt("processes", "signal_user", (BRIDGE_UID, SIGNALS)),
        "guest": Attempt("files", "replace_in", (GUEST, "guest.pyz")),
        **{f"replace {name}": Attempt("files", "replace_in", (SOCKETS, name)) for name in SOCKET_NAMES},
        **{
            f"abuse {name}": Attempt("brokers", "abuse_socket", (name, 12))
            for name in SOCKET_NAMES
            if name not in SLOW_SOCKETS
        },
        "credentials": Attempt("git_brokers", "ask_credentials", (STORED_HOST, STORED_PATH)),
        "credential of git": Attempt("git_brokers", "fill", (f"https://{STORED_HOST}/team/another.git",)),
        "signatures": Attempt("git_brokers", "ask_signatures", ("ssh",)),
        "forge": Attempt("brokers", "forge_records"),
        "decoy": Attempt("secrets", "find_text", (scene.decoy[::-1],)),
        "secret": Attempt("secrets", "find_text", (backwards,)),
        "everyday": Attempt("files", "everyday_work"),
        "model": Attempt("brokers", "ask_model", (MODEL_TRICKS,)),
        "plain question": Attempt("brokers", "plain_question"),
        "markers": Attempt("files", "existing", (scene.markers,)),
    }


def bare_attempts(scene: Scene) -> dict[str, Attempt]:
    """What makes sense in any container, also in one that has no walls: nothing there may do harm."""
    directories = ("/tmp", WORKSPACE, HOME, "/dev/shm", "/dev")  # noqa: S108 - likewise
    return {
        "mounts": Attempt("files", "mounts"),
        "writable": Attempt("files", "writable_mounts"),
        "root": Attempt("files", "refusals_in_the_root"),
        "privileged": Attempt("files", "privileged_files"),
        "nodes": Attempt("files", "sockets_and_devices"),
        "kernel files": Attempt("files", "open_for_writing", (("/proc", "/sys"),)),
        "masked": Attempt("files", "masked_bytes", (MASKED,)),
        "make devices": Attempt("files", "make_devices", (directories,)),
        "sizes": Attempt("files", "sizes", (SIZED,)),
        "statuses": Attempt("privileges", "statuses"),
        "become root": Attempt("privileges", "become_root"),
        "leave": Attempt("kernel", "leave_the_container"),
        "user namespace": Attempt("kernel", "use_a_user_namespace"),
        "kernel": Attempt("kernel", "reach_the_kernel"),
        "other abi": Attempt("kernel", "call_by_another_abi"),
        "first process": Attempt("processes", "attack_process", (1,)),
        "signal first": Attempt("processes", "signal_process", (1, SIGNALS)),
        "limits": Attempt("resources", "limits"),
        "rlimits": Attempt("resources", "rlimits"),
        "environment": Attempt("secrets", "environment"),
        "secret": Attempt("secrets", "find_text", (scene.secret[::-1],)),
        "interfaces": Attempt("network", "interfaces"),
        "change network": Attempt("network", "change_the_network"),
    }


ORIGIN_PUSHES: Final = {
    "unapproved": ("origin", "HEAD:refs/heads/{branch}"),
    "protected": ("origin", "HEAD:refs/heads/main"),
    "release": ("origin", "HEAD:refs/heads/release/9"),
    "tag": ("origin", "HEAD:refs/tags/v9"),
    "deletion": ("origin", ":refs/heads/other"),
    "several": ("origin", "HEAD:refs/heads/a", "HEAD:refs/heads/b"),
    "force": ("--force", "origin", "HEAD:refs/heads/other"),
    "option": ("-o", "ci.skip", "origin", "HEAD:refs/heads/{branch}"),
    "elsewhere": ("git://coding-agents/origin/7", "HEAD:refs/heads/{branch}"),
}
"""Pushes to origin: the words of `git push` for each."""

ORIGIN_FETCHES: Final = {
    "works": "refs/heads/main",
    "request": "refs/pull/1/head",
    "hidden": "refs/hidden/x",
    "id": "{hidden}",
}
"""Fetches from origin; all but the first are of what its branches and tags do not have."""


def ways_home(scene: Scene) -> dict[str, Attempt]:
    """Attacks on relay and origin by git, after which the session's work must still come home."""
    found = {}
    last = scene.branch.rpartition("/")[2]
    for name, pattern in REFSPECS.items():
        refspec = pattern.format(branch=scene.branch, last=last, foreign=next(iter(scene.foreign.values())))
        found[f"push {name}"] = Attempt("repository", "push_as_git", ([refspec],))
    for name, oid in scene.foreign.items():
        found[f"fetch {name}"] = Attempt("repository", "fetch_by_id", ([oid], "02"))
    if scene.signing_key:
        found["signing key"] = Attempt("secrets", "find_text", (scene.signing_key[::-1],))
    known = {"branch": scene.branch, "hidden": scene.hidden}
    for name, words in ORIGIN_PUSHES.items():
        filled = [word.format(**known) for word in words]
        found[f"origin push {name}"] = Attempt("origin", "push_words", (filled,))
    for name, wanted in ORIGIN_FETCHES.items():
        found[f"origin fetch {name}"] = Attempt(
            "origin", "fetch_words", (["origin", wanted.format(**known)],)
        )
    return found


def noise() -> dict[str, Attempt]:
    """Noise for those that answer so many requests and no more."""
    return {f"abuse {name}": Attempt("brokers", "abuse_socket", (name, 12)) for name in SLOW_SOCKETS}
