"""The throw-away user of `verify`: secrets to be found, and a repository with settings that would run something."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from coding_agents.app.trial_place import FILES, MARKER, make_repository, other_home
from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import load_settings
from coding_agents.images.scripted_model import ScriptedModel, scripted_model
from coding_agents.model.limits import Limits
from coding_agents.proc.git import Profile, git
from coding_agents.verify.scene import STORED_HOST, Scene

AGENT: Final = "verify"
_KEY: Final = "VERIFY_API_KEY"
_MANIFEST: Final = f"""\
name = "{AGENT}"
title = "Verification"
model_hosts = ["model.invalid"]

[command]
interactive = ["sh"]
headless = ["sh", "-c", "{{prompt}}"]

[model]
api = "anthropic"
upstream = "https://model.invalid"

[[login]]
kind = "api-key"
header = "x-api-key"
env = ["{_KEY}"]

[endpoint]
VERIFY_MODEL = "http://127.0.0.1:8099"
"""
_HOOKS: Final = (
    "reference-transaction", "post-checkout", "post-merge", "post-commit", "pre-push", "update", "post-update",
    "post-index-change", "pre-auto-gc", "fsmonitor-watchman",
)  # fmt: skip
# Settings whose value git may run, in the user's own repository.
_PROGRAMS: Final = (
    "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "core.gitProxy", "diff.external",
    "diff.evil.textconv", "diff.evil.command", "merge.evil.driver", "gpg.program", "credential.helper",
    "filter.evil.clean", "filter.evil.smudge", "uploadpack.packObjectsHook", "core.alternateRefsCommand",
)  # fmt: skip


class Place(msgspec.Struct, frozen=True):
    """Where verify works: the other user's environment, the scripted model, what is planted, and how it was before."""

    env: HostEnvironment
    model: ScriptedModel
    scene: Scene
    key: str
    refs: Mapping[str, str]
    tree: Mapping[str, str]
    origin: Mapping[str, str]

    @property
    def repo(self) -> Path:
        return self.env.cwd

    @property
    def cage(self) -> Path:
        return Path(self.scene.cage)

    def refs_now(self) -> dict[str, str]:
        """All refs of the repository."""
        return read_refs(self.env, self.repo / ".git")

    def origin_changes(self) -> list[str]:
        """Refs of origin that are not what they were."""
        now = read_refs(self.env, _origin_of(self.env))
        return sorted(name for name in {*now, *self.origin} if now.get(name) != self.origin.get(name))

    def tree_now(self) -> dict[str, str]:
        """A digest of every file of the work tree, and of the repository's own settings and hooks."""
        return _digests(self.repo)


@contextmanager
def verify_place(env: HostEnvironment, *, engine: str, branch: str) -> Iterator[Place]:
    """A place for one verification; nothing of it is left after the block.

    Its settings are the defaults and the organisation's, not those of the user.
    """
    secret, decoy, says = (secrets.token_hex(16) for _ in range(3))
    with scripted_model(says=says, word="hi", credential=secret) as model:
        environ = {
            "CODING_AGENTS_MODEL_UPSTREAM": model.url,
            "CODING_AGENTS_ENGINE": engine,
            "CODING_AGENTS_SIGNING_MODE": "session",  # it needs no key of the user's
            "CODING_AGENTS_ORIGIN_WAIT": "0",  # nobody is there to approve a push
            _KEY: secret,
            "AWS_SECRET_ACCESS_KEY": secret,
            "GITHUB_TOKEN": secret,
            "ANTHROPIC_API_KEY": secret,
            "SOME_VARIABLE": secret,
        }
        with other_home(env, name=f"verify-{secrets.token_hex(4)}", environ=environ) as other:
            (other.home / "config/coding-agents/agents").mkdir(parents=True)
            (other.home / f"config/coding-agents/agents/{AGENT}.toml").write_text(_MANIFEST, "utf-8")
            _plant_secrets(other.home, secret)
            cage = other.home / "cage"
            cage.mkdir()
            foreign = _make_repository(other, decoy, secret)
            hidden = _make_origin(other)
            _plant_settings(other, cage)
            scene = Scene(
                secret=secret, decoy=f"decoy-{decoy}", foreign=foreign, branch=branch, cage=os.fspath(cage),
                markers=(f"/workspace/{MARKER}",), limits=_limits(other),
                hidden=hidden,
            )  # fmt: skip
            refs, origin = read_refs(other, other.cwd / ".git"), read_refs(other, _origin_of(other))
            yield Place(other, model, scene, secret, refs, _digests(other.cwd), origin)


def _limits(env: HostEnvironment) -> Limits:
    """What sessions of this user are limited to."""
    settings = load_settings(env)
    return Limits(
        cpus=settings.limits_cpu,
        memory_bytes=settings.limits_memory,
        pids=settings.limits_pids,
        file_bytes=settings.limits_file,
    )


def read_refs(env: HostEnvironment, git_dir: Path) -> dict[str, str]:
    """Name to object of each ref of a repository."""
    out = _git(env, git_dir, "for-each-ref", "--format=%(refname) %(objectname)")
    return dict(line.split(" ", 1) for line in out.splitlines())


def _plant_secrets(home: Path, secret: str) -> None:
    """The secret at every place where users keep what must not get into a container."""
    for name, content in {
        ".gitconfig": f'[url "https://x:{secret}@host.invalid/"]\n\tinsteadOf = h:\n'
        "[user]\n\tname = V\n\temail = v@host.invalid\n[credential]\n\thelper = store\n",
        ".netrc": f"machine host.invalid login ann password {secret}\n",
        ".git-credentials": f"https://ann:{secret}@host.invalid\nhttps://ann:{secret}@{STORED_HOST}\n",
        ".ssh/id_ed25519": secret,
        ".aws/credentials": f"[default]\naws_secret_access_key = {secret}\n",
        "config/gh/hosts.yml": f"oauth_token: {secret}\n",
        ".claude/.credentials.json": f'{{"accessToken": "{secret}"}}',
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(content, "utf-8")


def _make_repository(env: HostEnvironment, decoy: str, secret: str) -> dict[str, str]:
    """A repository with one commit for sessions; gives objects of it that no session is given."""
    make_repository(env, {**FILES, "decoy.txt": f"decoy-{decoy}\n", "config.toml": _SERVERS})
    git_dir, repo = env.cwd / ".git", env.cwd
    _git(env, git_dir, "symbolic-ref", "HEAD", "refs/heads/main")
    _git(env, git_dir, "add", "--all", tree=repo)
    _git(env, git_dir, *_IDENTITY, "commit", "--quiet", "--message", "first", tree=repo)
    (repo / "private").write_text("the crown jewels", "utf-8")
    blob = _git(env, git_dir, "hash-object", "-w", "private", tree=repo)
    (repo / "private").write_text("never committed", "utf-8")
    unreachable = _git(env, git_dir, "hash-object", "-w", "private", tree=repo)
    (repo / "private").unlink()
    listed = f"100644 blob {blob}\tprivate\n".encode()
    tree = _git(env, git_dir, "mktree", stdin=listed)
    commit = _git(env, git_dir, *_IDENTITY, "commit-tree", tree, "-m", "private")
    _git(env, git_dir, "update-ref", "refs/heads/private", commit)
    # The settings of a user who keeps tokens there.
    _git(env, git_dir, "config", "remote.upstream.url", f"https://ann:{secret}@host.invalid/shop.git")
    _git(env, git_dir, "config", "remote.origin.url", os.fspath(_origin_of(env)))
    _git(env, git_dir, "config", "http.https://host.invalid/.extraHeader", f"Authorization: Bearer {secret}")
    (repo / ".env").write_text(f"TOKEN={secret}\n", "utf-8")
    return {"commit": commit, "blob": blob, "unreachable": unreachable}


def _origin_of(env: HostEnvironment) -> Path:
    return env.home / "origin.git"


def _make_origin(env: HostEnvironment) -> str:
    """Origin is a repository of this machine, so that no packet leaves it; gives a commit that its branches lack."""
    origin, git_dir = _origin_of(env), env.cwd / ".git"
    git(
        ("init", "--quiet", "--bare", os.fspath(origin)), profile=Profile.OWN, env=env.for_git(), cwd=env.home
    )
    pack = git(
        ("pack-objects", "--stdout", "--revs", "-q"), profile=Profile.OWN, env=env.for_git(), git_dir=git_dir,
        stdin=b"refs/heads/main\n",
    ).stdout  # fmt: skip
    _git(env, origin, "unpack-objects", "-q", stdin=pack)
    main = _git(env, git_dir, "rev-parse", "refs/heads/main")
    tree = f"{main}^{{tree}}"
    other, hidden = (
        _git(env, origin, *_IDENTITY, "commit-tree", tree, "-m", name) for name in ("other", "hidden")
    )
    refs = {"heads/main": main, "heads/other": other, "pull/1/head": hidden, "hidden/x": hidden}
    for name, oid in refs.items():
        _git(env, origin, "update-ref", f"refs/{name}", oid)
    _git(env, origin, "symbolic-ref", "HEAD", "refs/heads/main")
    return hidden


_IDENTITY: Final = ("-c", "user.name=Verify", "-c", "user.email=verify@host.invalid")
_SERVERS: Final = f'[mcp_servers.marker]\ncommand = "sh"\nargs = ["/workspace/{MARKER}.sh"]\n'


def _plant_settings(env: HostEnvironment, cage: Path) -> None:
    """The user's own hooks and programs, hooks inside of the work tree: each would leave a file in the cage."""
    repo = env.cwd
    (repo / ".husky").mkdir()
    for hook in _HOOKS:
        _program(repo / ".husky" / hook, cage / f"user-{hook}")
    programs = env.home / "programs"
    programs.mkdir()
    for key in _PROGRAMS:
        _program(programs / key, cage / f"user-{key}")
        _git(env, repo / ".git", "config", key, os.fspath(programs / key))
    _git(env, repo / ".git", "config", "core.hooksPath", ".husky")


def _program(path: Path, leaves: Path) -> None:
    path.write_text(f"#!/bin/sh\n: > '{leaves}'\ncase $1 in '') cat;; esac\n", "utf-8")
    path.chmod(0o755)


def _digests(repo: Path) -> dict[str, str]:
    found = {}
    for directory, names, files in os.walk(repo):
        if Path(directory) == repo / ".git":
            names[:] = [name for name in names if name == "hooks"]
            files = [name for name in files if name in ("config", "HEAD")]
        for name in files:
            path = Path(directory, name)
            content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
            found[os.fspath(path.relative_to(repo))] = hashlib.sha256(content).hexdigest()
    return found


def _git(
    env: HostEnvironment, git_dir: Path, *args: str, tree: Path | None = None, stdin: bytes | None = None
) -> str:
    outcome = git(
        args,
        profile=Profile.OWN,
        env=env.for_git(),
        git_dir=git_dir,
        work_tree=tree,
        cwd=tree or git_dir,
        stdin=stdin,
    )
    return outcome.text().strip()
