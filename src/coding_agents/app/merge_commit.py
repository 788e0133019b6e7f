"""The commit of a merge or a squash: what it says, whose it is, and whether it is signed."""

from __future__ import annotations

from enum import Enum

from coding_agents.brokers.sign.config import read_config
from coding_agents.brokers.sign.signer import sign_commit, users_signer
from coding_agents.errors import MergeError
from coding_agents.gitsync.discover import read_facts
from coding_agents.gitsync.findings.objects import READ_S, reading
from coding_agents.gitsync.merge_commit import make_commit, signed_commit
from coding_agents.gitsync.packs import Store
from coding_agents.model.refs import Oid
from coding_agents.model.repo import Identity
from coding_agents.proc.git import owner_of, require_ok
from coding_agents.proc.runner import run
from coding_agents.supervisor.context import SessionContext, facts_of, session_settings
from coding_agents.terminal.escape import escape

_MAX_SUBJECTS = 100
_MAX_SUBJECT = 200
_MAIN = ("main", "master")


class Style(Enum):
    """How a branch is merged; `auto` makes no commit where a fast-forward does."""

    AUTO = "auto"
    FF_ONLY = "ff-only"
    NO_FF = "no-ff"
    SQUASH = "squash"


def commit_of(
    session: SessionContext,
    store: Store,
    tree: str,
    *,
    style: Style,
    old: Oid | None,
    tip: Oid,
    into: str,
    message: str,
) -> Oid:
    """Write the commit of `tree` to `store`: the child of `old` and, but for a squash, of `tip`.

    `message` "" is one of ours. It has no signature yet. Raises MergeError, GitError.
    """
    branch = session.record.branch
    if style is Style.SQUASH:
        parents = [old] if old is not None else []
        text = message or _squash_message(session, store, old, tip)
    else:
        parents = [old, tip] if old is not None else [tip]
        text = message or f"Merge branch '{branch}'{'' if into in _MAIN else f' into {into}'}\n"
    return make_commit(store, tree, parents, text, by=_identity(session))


def is_signed_at_merge(session: SessionContext) -> bool:
    """Whether the user's signature is to be there for what they take in: then a merge makes a commit. ConfigError."""
    return session_settings(session).signing_mode == "merge"


def sign_for_user(session: SessionContext, store: Store, commit: Oid) -> Oid | None:
    """`commit`, of the user's own, with their signature; None when they do not sign. Only for what a person has seen.

    It is as with their own `git commit`, who may be asked for a passphrase: `signing.mode` chooses for the agent's
    commits, and here it switches off (`off`), or on (`user`, `merge`). Raises ConfigError, SigningError, GitError.
    """
    mode = session_settings(session).signing_mode
    if mode == "off":
        return None
    repo, env = facts_of(session.record), session.env.for_git()
    config = read_config(env, repo.git_dir, owner_of(repo))
    if not config.signs and mode not in ("user", "merge"):
        return None
    signer = users_signer(config, env, owner_of(repo), may_ask=True)
    object_format = repo.object_format
    return signed_commit(store, commit, lambda data: sign_commit(data, signer, object_format=object_format))


def _squash_message(session: SessionContext, store: Store, old: Oid | None, tip: Oid) -> str:
    """The subjects of the commits, oldest first, as text that hides nothing, and where they are from."""
    unlike = ("--not", old) if old is not None else ()
    args = ("rev-list", "--reverse", "--format=%s", f"--max-count={_MAX_SUBJECTS}", tip, *unlike)
    listing = require_ok(run(reading(store, args, timeout_s=READ_S)), "git rev-list").text().split("\n")
    subjects = [f"* {escape(line)[:_MAX_SUBJECT]}" for line in listing[1::2] if line]
    trailers = f"Agent: {session.record.agent}\nSession: {session.record.id}\n"
    return "\n".join([f"Squash branch '{session.record.branch}'", "", *subjects, "", trailers])


def _identity(session: SessionContext) -> Identity:
    """Who merges: the user, by their own configuration as it is now. Raises MergeError."""
    repo = facts_of(session.record)
    found = read_facts(
        repo.kind, repo.name, work_tree=repo.work_tree, git_dir=repo.git_dir, common_dir=repo.common_dir,
        object_format=repo.object_format, env=session.env.for_git(), owner=owner_of(repo),
    ).identity  # fmt: skip
    if found is None:
        raise MergeError(
            "git does not know who you are",
            hint='Tell it: git config --global user.name "…", and user.email.',
        )
    return found
