"""The only way to run git on the host.

Two things must never happen: code that came from a container or from the tree runs because *we* called
git, and git asks a question or reaches a network that nobody asked for. So every call fixes the settings
that run programs (hooks, fsmonitor, maintenance, submodule recursion, transports, credential helpers),
builds its environment from nothing, and names the repository by an explicit git directory.

Whether a repository is trusted is decided once, by git's own rule with the user's own configuration
(`gitsync.discover`, which calls without `git_dir`). With an explicit git directory git does not ask
again, so no `safe.directory` has to be generated. Reading objects by `fetch` from a path is avoided on
purpose: its upload-pack child loses our `-c` settings; objects move as packs over pipes (`gitsync.packs`).
"""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from coding_agents.errors import GitError
from coding_agents.model.repo import RepoFacts
from coding_agents.proc.runner import Command, Outcome, Owner, run

_EMPTY: Mapping[str, str] = MappingProxyType({})


class Profile(Enum):
    """Whose configuration counts, and what the call may reach."""

    USER_READ = "read the user's repository with the user's own configuration"
    USER_WRITE = "write objects and refs into the user's repository, repository configuration only"
    USER_TREE = (
        "bring the user's work tree to another commit, with the user's own line endings and no program"
    )
    OWN = "work on our own bare repositories, no configuration of the user's"
    CLONE = "fetch from a URL with the user's own configuration and credentials"
    AS_USER = "reach one literal address, or ask helpers, as the user and without a question (proc.git_user)"


# Events of githooks(5) that the commands we use can raise.
_EVENTS = (
    "reference-transaction", "post-index-change", "post-checkout", "pre-auto-gc", "pre-receive", "update",
    "proc-receive", "post-receive", "post-update", "push-to-checkout",
)  # fmt: skip
_ALWAYS = (
    "core.hooksPath=/dev/null",
    # Hooks that are settings (`hook.NAME.command`) heed no directory: git >= 2.55 asks these; ignored before.
    *(f"hook.{event}.enabled=false" for event in _EVENTS),
    "core.fsmonitor=false",
    "core.alternateRefsCommand=true",  # no `.have` lines: they name tips of another repository
    "core.pager=cat",
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "log.showSignature=false",  # would run gpg.program
    "protocol.allow=never",
)
_NO_CREDENTIALS = ("credential.helper=", "core.askPass=")
# A power cut must not lose a branch that we have reported as saved (git >= 2.36; ignored before). The method is
# fixed, too: a repository may say `writeout-only`, which leaves data in the drive's cache.
_DURABLE = ("core.fsync=objects,derived-metadata,reference", "core.fsyncMethod=fsync")
# What came back is hostile: git streams larger files and counts no lines in them. A hundred megabytes of line
# breaks, which fit into a hundred kilobytes of a pack, would take four gigabytes of memory to count.
# And git maps a gigabyte of a pack at once, and as many as it likes: too much where its address space is limited.
_BOUNDED = ("core.bigFileThreshold=8m", "core.packedGitWindowSize=64m", "core.packedGitLimit=1g")
# What a diff shows is not for the agent's `.gitattributes` to say: git 2.43 to 2.45 read that of a bare
# repository's HEAD unless another tree is named; one that does not exist has no attributes.
_NO_ATTRIBUTES = ("core.attributesFile=/dev/null", "attr.tree=")
# For what a guest has asked for, in the name of a user who does not look: no question, nothing sent elsewhere or
# beside what was named. An empty GIT_ASKPASS is a program that is not asked, and hides the user's own (prompt.c).
_UNATTENDED = (
    "core.askPass=", "credential.interactive=false", "http.followRedirects=false", "push.gpgSign=false",
    "push.followTags=false", "push.recurseSubmodules=no", "push.useForceIfIncludes=false", "fetch.prune=false",
    "fetch.pruneTags=false", "fetch.writeCommitGraph=false",
)  # fmt: skip
_NEVER_ASKING: Mapping[str, str] = {"GIT_ASKPASS": "", "GCM_INTERACTIVE": "never"}
# An address that the server names would be one that nobody asked for (git >= 2.40; ignored before).
_NO_BUNDLES = ("transfer.bundleURI=false",)
# strerror(3) of ENOSPC and EDQUOT, and git's own words for a write that was cut short.
_FULL = (b"No space left on device", b"Disk quota exceeded", b"Out of diskspace", b"couldn't write ")
_MAKE_ROOM = "Make room on that disk, then try again."
# Names that Windows or macOS take for `.git` are refused on every system: a work tree may be moved there.
_PROTECTED = ("core.protectHFS=true", "core.protectNTFS=true")
_CLONE_PROTOCOLS = ("https", "http", "ssh", "git", "file")
_REMOTE_PROFILES = (Profile.CLONE, Profile.AS_USER)
_REACHING = (*_NO_BUNDLES, *(f"protocol.{name}.allow=always" for name in _CLONE_PROTOCOLS))
_PROFILE_CONFIG: Mapping[Profile, tuple[str, ...]] = {
    Profile.USER_READ: _NO_CREDENTIALS,
    Profile.USER_WRITE: (*_NO_CREDENTIALS, *_DURABLE, *_BOUNDED, *_NO_ATTRIBUTES),
    Profile.USER_TREE: (*_NO_CREDENTIALS, *_DURABLE, *_BOUNDED, *_PROTECTED),
    Profile.OWN: (*_NO_CREDENTIALS, *_DURABLE, *_BOUNDED, *_NO_ATTRIBUTES),
    Profile.CLONE: _REACHING,
    Profile.AS_USER: (*_REACHING, *_UNATTENDED, *_DURABLE, *_BOUNDED, *_NO_ATTRIBUTES),
}

_FIXED_ENV: Mapping[str, str] = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    # Below a file there can be none. Of one that is there, be it empty, git complains to whoever pushes.
    "GIT_GRAFT_FILE": f"{os.devnull}/none",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    # A trace would go where the user's trace2.* settings say, standard error among it, which we read.
    "GIT_TRACE2": "0",
    "GIT_TRACE2_EVENT": "0",
    "GIT_TRACE2_PERF": "0",
}
_NO_USER_CONFIG: Mapping[str, str] = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
}
_USER_CONFIG = ("HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")
REMOTE_ENV = (
    *_USER_CONFIG, "USER", "LOGNAME", "SSH_AUTH_SOCK", "GIT_SSH", "GIT_SSH_COMMAND",
    "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "GNUPGHOME",
    "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_PROXY_SSL_CAINFO",
)  # fmt: skip
_PASSED: Mapping[Profile, tuple[str, ...]] = {
    Profile.USER_READ: _USER_CONFIG,
    Profile.USER_WRITE: (),
    Profile.USER_TREE: _USER_CONFIG,
    Profile.OWN: (),
    Profile.CLONE: REMOTE_ENV,
    Profile.AS_USER: REMOTE_ENV,
}


def git(
    args: Sequence[str],
    *,
    profile: Profile,
    env: Mapping[str, str],
    git_dir: Path | None = None,
    work_tree: Path | None = None,
    cwd: Path | None = None,
    owner: Owner | None = None,
    stdin: bytes | None = None,
    env_extra: Mapping[str, str] = _EMPTY,
    timeout_s: float = 60.0,
    check: bool = True,
) -> Outcome:
    """Run `git ARGS` to its end; arguments as for `git_command`.

    Raises GitError with the command and its output when `check` and the status is not 0.
    """
    outcome = run(
        git_command(
            args,
            profile=profile,
            env=env,
            git_dir=git_dir,
            work_tree=work_tree,
            cwd=cwd,
            owner=owner,
            stdin=stdin,
            env_extra=env_extra,
            timeout_s=timeout_s,
        )
    )
    return require_ok(outcome, f"git {args[0]}") if check else outcome


def git_command(
    args: Sequence[str],
    *,
    profile: Profile,
    env: Mapping[str, str],
    git_dir: Path | None = None,
    work_tree: Path | None = None,
    cwd: Path | None = None,
    owner: Owner | None = None,
    stdin: bytes | None = None,
    env_extra: Mapping[str, str] = _EMPTY,
    timeout_s: float = 60.0,
) -> Command:
    """The process for `git ARGS`.

    `env` is the user's environment, from which only what `profile` names is passed on; `env_extra`
    (variables of this one call, such as GIT_INDEX_FILE) wins. `git_dir` and `work_tree` name the
    repository explicitly; `cwd` defaults to the first of them. `owner` is the uid that the repository
    belongs to: root becomes that user, and then that user's home counts and not root's environment.
    """
    argv = ["git"]
    for setting in (*_ALWAYS, *_PROFILE_CONFIG[profile]):
        argv += ["-c", setting]
    if git_dir is not None:
        argv.append(f"--git-dir={git_dir}")
    if work_tree is not None:
        argv.append(f"--work-tree={work_tree}")
    other = owner if owner is not None and os.geteuid() == 0 and owner.uid != 0 else None
    return Command(
        argv=(*argv, *args),
        env={**_environment(profile, env, other), **env_extra},
        cwd=cwd or work_tree or git_dir,
        stdin=stdin,
        timeout_s=timeout_s,
        owner=other,
    )


def owner_of(repo: RepoFacts) -> Owner:
    """The host user to whom `repo` belongs, for the `owner` argument."""
    return Owner(repo.owner_uid, repo.owner_gid)


def home_of(owner: Owner) -> str:
    """The home directory of a host user; `/` for one without an account."""
    try:
        return pwd.getpwuid(owner.uid).pw_dir
    except KeyError:  # a uid without an account has no configuration of its own
        return "/"


def require_ok(outcome: Outcome, what: str) -> Outcome:
    """Give back an outcome with status 0; raise GitError naming `what` otherwise."""
    if not outcome.ok:
        reason = (
            "timed out" if outcome.timed_out else _last_line(outcome.stderr) or f"status {outcome.status}"
        )
        hint = _MAKE_ROOM if any(said in outcome.stderr for said in _FULL) else ""
        raise GitError(f"{what} failed: {reason}", details=outcome.describe(), hint=hint)
    return outcome


def cannot_write(directory: Path, error: OSError) -> GitError:
    """The error for what we ourselves could not write below a git directory."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = "the disk is full" if full else (error.strerror or str(error)).lower()
    hint = _MAKE_ROOM if full else "Check its owner and its mode."
    return GitError(f"cannot write to {directory}: {reason}", hint=hint)


def _environment(profile: Profile, env: Mapping[str, str], other: Owner | None) -> dict[str, str]:
    # Overrides every protocol.*.allow, also one of a repository's own configuration.
    protocols = ":".join(_CLONE_PROTOCOLS) if profile in _REMOTE_PROFILES else ""
    chosen = {"PATH": env.get("PATH", os.defpath), **_FIXED_ENV, "GIT_ALLOW_PROTOCOL": protocols}
    if profile is Profile.AS_USER:
        chosen |= _NEVER_ASKING
    if profile in (Profile.USER_WRITE, Profile.OWN):
        return {**chosen, **_NO_USER_CONFIG, "HOME": "/"}
    if other is not None:
        return {**chosen, "HOME": home_of(other)}
    return {**chosen, **dict(_present(env, _PASSED[profile]))}


def _present(env: Mapping[str, str], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if name in env:
            yield name, env[name]


def _last_line(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines or [""])[-1][:300]
