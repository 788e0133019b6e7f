"""Everything by which git can be made to run a program: as data, with a command of git's that does run it.

A trigger leaves its own name in the cage when it runs, so all can be set at once and it still shows which one
ran. The same table is planted in tests/component/test_git_triggers.py.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.repos import commit, git_env, sh

HOOKS: Mapping[str, str] = {
    "reference-transaction": "git update-ref refs/heads/control HEAD",
    "post-checkout": "git checkout -q --detach",
    "pre-commit": "git commit -q --allow-empty -m x",
    "prepare-commit-msg": "git commit -q --allow-empty -m x",
    "commit-msg": "git commit -q --allow-empty -m x",
    "post-commit": "git commit -q --allow-empty -m x",
    "post-rewrite": "git commit -q --allow-empty --amend -m x",
    "post-index-change": "git read-tree HEAD",
    "pre-merge-commit": "git merge -q --no-ff --no-edit side",
    "post-merge": "git merge -q --no-ff --no-edit side",
    "pre-rebase": "git reset -q --hard; git rebase -q side",
    "pre-push": "git push -q . HEAD:refs/heads/control",
    "pre-receive": "git push -q . HEAD:refs/heads/control",
    "update": "git push -q . HEAD:refs/heads/control",
    "post-receive": "git push -q . HEAD:refs/heads/control",
    "post-update": "git push -q . HEAD:refs/heads/control",
    "proc-receive": "git config receive.procReceiveRefs refs; git push -q . HEAD:refs/heads/control",
    "push-to-checkout": "git config receive.denyCurrentBranch updateInstead;"
    "git push -q . $(git commit-tree -p HEAD -m x HEAD^{tree}):$(git symbolic-ref HEAD)",
    "pre-auto-gc": "mkdir -p .git/objects/17; "
    f"for n in 0 1 2; do : > .git/objects/17/{'0' * 37}$n; done;"
    "git -c gc.auto=1 -c gc.autoDetach=false gc --auto -q",
    "applypatch-msg": "git checkout -q main; git format-patch -1 --stdout side | git am -q",
    "pre-applypatch": "git checkout -q main; git format-patch -1 --stdout side | git am -q",
    "post-applypatch": "git checkout -q main; git format-patch -1 --stdout side | git am -q",
}  # fmt: skip
"""Each hook of githooks(5) that git itself calls by its name, and a command that does."""

_CREDENTIAL = "printf 'protocol=https\\nhost=host.invalid\\n\\n' | setsid git credential fill"
_TERMINAL = "script -qec 'git log -1' /dev/null"


@dataclass(frozen=True)
class Trigger:
    """`settings` (or `variables`, of the environment) with `%` for the trigger's program; `control` is a shell
    script with git commands that run it, in a repository of `World`. `since` is the git version that knows it.

    `user_only`: git heeds it in the user's and the system's configuration alone.
    """

    name: str
    control: str
    settings: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    since: tuple[int, ...] = (0,)
    user_only: bool = False


def _key(key: str, control: str, **more: str) -> Trigger:
    return Trigger(key, control, {**more, key: "%"})


_SIGNED = {"commit.gpgSign": "true", "user.signingKey": "x"}
_SSH = {"gpg.format": "ssh"}
_REMOTE = {"protocol.allow": "always"}

SETTINGS: tuple[Trigger, ...] = (
    Trigger("core.hooksPath", "git update-ref refs/heads/control HEAD", {"core.hooksPath": "@REPO/.husky"}),
    Trigger("core.attributesFile", "git diff HEAD~1", {
        "core.attributesFile": "@ROOT/attributes", "diff.far.command": "%"}),
    Trigger("init.templateDir", "git init -q ../new; git -C ../new commit -q --allow-empty -m x", {
        "init.templateDir": "@ROOT/template"}, user_only=True),
    _key("core.fsmonitor", "git status"),
    Trigger("filter.clean", "git add a.txt", {"filter.evil.clean": "%", "filter.evil.required": "true"}),
    # Not `required`: git refuses to read a file whose driver has no clean filter then.
    Trigger("filter.smudge", "rm a.txt; git checkout a.txt", {"filter.evil.smudge": "%"}),
    _key("filter.long.process", "git add c.lng"),
    _key("diff.external", "git diff"),
    _key("diff.evil.command", "git diff"),
    _key("diff.conv.textconv", "git diff"),
    _key("merge.evil.driver", "git merge-tree --write-tree HEAD theirs"),
    _key("core.pager", _TERMINAL),
    _key("pager.log", _TERMINAL),
    _key("core.editor", "git commit --allow-empty"),
    _key("sequence.editor", "git reset -q --hard; git rebase -i HEAD~1"),
    _key("gpg.program", "git commit -q --allow-empty -m x", **_SIGNED),
    _key("gpg.x509.program", "git commit -q --allow-empty -m x", **_SIGNED, **{"gpg.format": "x509"}),
    _key("gpg.ssh.program", "git commit -q --allow-empty -m x", **_SIGNED, **_SSH),
    _key("gpg.ssh.defaultKeyCommand", "git commit -q --allow-empty -m x", **_SSH, **{"commit.gpgSign": "true"}),
    Trigger("log.showSignature", "git log -1 signed", {"log.showSignature": "true", "gpg.openpgp.program": "%"}),
    _key("core.sshCommand", "git ls-remote ssh://host.invalid/x"),
    _key("core.gitProxy", "git ls-remote git://host.invalid/x"),
    _key("credential.helper", _CREDENTIAL),
    _key("core.askPass", _CREDENTIAL),
    _key("core.alternateRefsCommand", "git receive-pack --http-backend-info-refs ."),
    Trigger("uploadpack.packObjectsHook", "git clone -q --bare --no-local . ../copy", {
        "uploadpack.packObjectsHook": "%"}, user_only=True),
    Trigger("url.insteadOf", "git ls-remote https://trap.invalid/x", {
        "url.ext::% .insteadOf": "https://trap.invalid/", "protocol.ext.allow": "always", **_REMOTE}),
    _key("remote.origin.uploadpack", "git fetch origin"),
    _key("remote.origin.receivepack", "git push origin HEAD:refs/heads/control"),
    Trigger("remote.origin.vcs", "git ls-remote origin", {"remote.origin.vcs": "trap"}),
    Trigger("remote.origin.promisor", "git cat-file -p 1111111111111111111111111111111111111111", {
        "remote.far.promisor": "true", "remote.far.partialCloneFilter": "blob:none", "remote.far.url": "@ROOT/up",
        "extensions.partialClone": "far", "core.repositoryFormatVersion": "1", "remote.far.uploadpack": "%"}),
    Trigger("submodule.update", "git submodule update", {"submodule.sub.update": "!%", "submodule.sub.active": "true"}),
    Trigger("alias", "git trapped", {"alias.trapped": "!%"}),
    _key("trailer.x.command", "echo | git interpret-trailers --trailer x=1"),
    _key("tar.evil.command", "git archive --format=evil HEAD"),
    _key("difftool.evil.cmd", "git difftool -y -t evil", **{"difftool.prompt": "false"}),
    Trigger("hook.command", "git update-ref refs/heads/control HEAD", {
        "hook.mine.command": "%", "hook.mine.event": "reference-transaction"}, since=(2, 54)),
    *(Trigger(f"trace2.{kind}Target", "git version", {f"trace2.{kind}Target": f"@CAGE/trace2.{kind}Target"},
              user_only=True) for kind in ("normal", "event", "perf")),
)  # fmt: skip


def _variable(name: str, control: str) -> Trigger:
    return Trigger(name, control, variables={name: "%"})


def _file(name: str, control: str) -> Trigger:
    return Trigger(name, control, variables={name: f"@CAGE/{name}"})


VARIABLES: tuple[Trigger, ...] = (
    _variable("GIT_SSH_COMMAND", "git ls-remote ssh://host.invalid/x"),
    _variable("GIT_SSH", "git ls-remote ssh://host.invalid/x"),
    _variable("GIT_EXTERNAL_DIFF", "git diff"),
    _variable("GIT_PAGER", _TERMINAL),
    _variable("PAGER", _TERMINAL),
    _variable("GIT_EDITOR", "git commit --allow-empty"),
    _variable("VISUAL", "TERM=xterm git commit --allow-empty"),
    _variable("EDITOR", "git commit --allow-empty"),
    _variable("GIT_SEQUENCE_EDITOR", "git reset -q --hard; git rebase -i HEAD~1"),
    _variable("GIT_ASKPASS", _CREDENTIAL),
    _variable("SSH_ASKPASS", _CREDENTIAL),
    _variable("GIT_PROXY_COMMAND", "git ls-remote git://host.invalid/x"),
    Trigger("GIT_EXEC_PATH", "git trap", variables={"GIT_EXEC_PATH": "@ROOT/exec"}),
    Trigger("GIT_TEMPLATE_DIR", "git init -q ../new; git -C ../new commit -q --allow-empty -m x",
            variables={"GIT_TEMPLATE_DIR": "@ROOT/template-of-variable"}),
    Trigger("GIT_CONFIG_PARAMETERS", "git status", variables={"GIT_CONFIG_PARAMETERS": "'core.fsmonitor'='%'"}),
    Trigger("GIT_DIR", "git status", variables={"GIT_DIR": "@ROOT/decoy/.git"}),
    Trigger("GIT_COMMON_DIR", "GIT_DIR=@ROOT/decoy/.git git status", variables={"GIT_COMMON_DIR": "@ROOT/decoy/.git"}),
    _file("GIT_TRACE", "git version"),
    _file("GIT_TRACE_SETUP", "git status"),
    _file("GIT_TRACE2", "git version"),
    _file("GIT_TRACE2_EVENT", "git version"),
    _file("GIT_TRACE_PACKET", "git ls-remote ."),
    _file("GIT_INDEX_FILE", "git read-tree HEAD"),
    Trigger("GIT_OBJECT_DIRECTORY", "echo x | git hash-object -w --stdin",
            variables={"GIT_OBJECT_DIRECTORY": "@CAGE"}),
)  # fmt: skip

BY_DESIGN_AT_LAUNCH = frozenset({"filter.clean", "filter.long.process"})
"""What is changed can be told only after the user's own clean filters ran, as for `git status`."""
BY_DESIGN_AT_CLEAN_LAUNCH = frozenset({"filter.smudge", "filter.long.process"})
"""A checkout of HEAD has the files as the user's own smudge filters write them."""
BY_DESIGN_AT_CLONE = frozenset({"uploadpack.packObjectsHook"})
"""`launch-agent file://…`: git-upload-pack of this host heeds the user's own setting, as for `git clone`."""


@dataclass
class World:
    """A user with a repository in which an earlier branch of the agent's is checked out, and a cage."""

    root: Path
    env: dict[str, str]
    name: str = "repo"

    @property
    def repo(self) -> Path:
        return self.root / self.name

    @property
    def cage(self) -> Path:
        return self.root / "cage"

    def program(self, name: str) -> Path:
        """A program that leaves `name` in the cage; as a filter it passes its input on."""
        path = self.root / "programs" / name
        work = "cat" if name in ("filter.clean", "filter.smudge") else "exit 0"
        if name == "uploadpack.packObjectsHook":
            work = 'exec "$@"'
        if name == "filter.long.process":  # the protocol's greeting (gitattributes(5)), with no capability
            work = "printf '0016git-filter-server\\n000eversion=2\\n00000000'; cat > /dev/null"
        path.write_text(f"#!/bin/sh\n: > {self.cage}/{name}\n{work}\n")
        path.chmod(0o755)
        return path

    def hooks(self, directory: Path, prefix: str) -> None:
        """All hooks into `directory`: each leaves its name after `prefix`."""
        directory.mkdir(parents=True, exist_ok=True)
        for hook in HOOKS:
            (directory / hook).unlink(missing_ok=True)
            (directory / hook).write_text(f"#!/bin/sh\n: > {self.cage}/{prefix}.{hook}\n")
            (directory / hook).chmod(0o755)

    def sang(self) -> set[str]:
        """What has run since the last call."""
        ran = {path.name.partition("/")[0] for path in self.cage.iterdir()}
        for path in self.cage.iterdir():
            path.rename(self.root / "sung" / f"{len(list((self.root / 'sung').iterdir()))}")
        return ran

    def settings(self, triggers: Iterable[Trigger]) -> dict[str, str]:
        return {
            self._fill(key, one): self._fill(value, one)
            for one in triggers
            for key, value in one.settings.items()
        }

    def rendered(self) -> str:
        """All settings that this git knows, as a file of configuration."""
        return _rendered(self.settings(one for one in SETTINGS if one.since <= git_version()))

    def variables(self, triggers: Iterable[Trigger]) -> dict[str, str]:
        return {key: self._fill(value, one) for one in triggers for key, value in one.variables.items()}

    def control(self, trigger: Trigger, env: Mapping[str, str]) -> str:
        """Run the command of git's that springs `trigger`; everything that it said."""
        done = subprocess.run(
            ("sh", "-c", self._fill(trigger.control, trigger)), cwd=self.repo, env=dict(env), timeout=20,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    def _fill(self, text: str, trigger: Trigger) -> str:
        places = {"@REPO": self.repo, "@ROOT": self.root, "@CAGE": self.cage}
        for word, path in places.items():
            text = text.replace(word, str(path))
        return text.replace("%", str(self.program(trigger.name)))


def make_world(root: Path, name: str = "repo") -> World:
    """Work of the agent's that names drivers and hooks; branches to merge; a remote, a submodule; no trigger set.

    The user's repository is called `name`.
    """
    for place in ("cage", "sung", "programs", "exec"):
        (root / place).mkdir(parents=True)
    env = git_env(root / "home")
    world = World(root, {**env, "PATH": f"{root}/bin:{env['PATH']}", "TERM": "dumb"}, name)
    (root / "bin").mkdir()
    for place, trigger in (("bin/git-remote-trap", "remote.origin.vcs"), ("exec/git-trap", "GIT_EXEC_PATH")):
        (root / place).symlink_to(world.program(trigger))
    for place, trigger in (("template", "init.templateDir"), ("template-of-variable", "GIT_TEMPLATE_DIR")):
        (root / place / "hooks").mkdir(parents=True)
        (root / place / "hooks/post-commit").symlink_to(world.program(trigger))
    (root / "attributes").write_text("*.far diff=far\n")
    for place in ("up", name, "decoy"):
        (root / place).mkdir()
        sh(root / place, "init", "-q", env=env)
        commit(root / place, "README", f"{place}\n", env=env)
    sh(root / "decoy", "config", "core.fsmonitor", str(world.program("GIT_DIR")), env=env)
    _fill_repository(world, env)
    return world


def _fill_repository(world: World, env: Mapping[str, str]) -> None:
    repo = world.repo

    def git(*args: str) -> str:
        return sh(repo, *args, env=env)

    git("remote", "add", "origin", str(world.root / "up"))
    git("branch", "side")
    git("checkout", "-q", "-b", "demo/earlier")
    world.hooks(repo / ".husky", "husky")
    (repo / ".gitattributes").write_text(
        "*.txt filter=evil diff=evil merge=evil\n*.cnv diff=conv\n*.lng filter=long\n"
    )
    for name in ("a.txt", "b.cnv", "c.lng", "d.far"):
        (repo / name).write_text("1\n2\n3\n")
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(world.root / "up"), "sub")
    git("add", "--all")
    git("commit", "-q", "-m", "the agent's")
    git("branch", "theirs")
    git("checkout", "-q", "theirs")
    commit(repo, "a.txt", "1\n2\nthree\n", env=env)
    git("checkout", "-q", "side")
    commit(repo, "side", "side\n", env=env)
    git("checkout", "-q", "demo/earlier")
    for name, text in (("a.txt", "1\n2\n3, mine\n"), ("d.far", "far\n")):
        commit(repo, name, text, env=env)
    signed = sh(repo, "cat-file", "commit", "HEAD", env=env).replace(
        "\n\n", "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n", 1
    )
    oid = sh(repo, "hash-object", "-t", "commit", "-w", "--stdin", env=env, stdin=f"{signed}\n")
    git("update-ref", "refs/heads/signed", oid)
    (repo / ".git/objects/info/alternates").write_text(f"{world.root}/up/.git/objects\n")
    for name in ("a.txt", "b.cnv", "c.lng", "README"):  # changed, and of another length
        (repo / name).write_text("changed\n")
    git("config", "submodule.sub.active", "true")
    sub = repo / "sub"
    sh(sub, "checkout", "-q", "--detach", env=env)
    commit(sub, "more", "more\n", env=env)


def plant(world: World, level: str, triggers: Iterable[Trigger]) -> dict[str, str]:
    """Set `triggers` at one level of git's configuration; the user's environment from then on."""
    triggers = tuple(triggers)
    settings = world.settings(triggers)
    env = {**world.env, **world.variables(triggers)}
    if level == "environment":
        pairs = list(settings.items())
        return {
            **env,
            **({"GIT_CONFIG_COUNT": str(len(pairs))} if pairs else {}),
            **{f"GIT_CONFIG_KEY_{number}": key for number, (key, _) in enumerate(pairs)},
            **{f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in enumerate(pairs)},
        }
    home, dot_git = Path(world.env["HOME"]), world.repo / ".git"
    path = {
        "repository": dot_git / "config",
        "worktree": dot_git / "config.worktree",
        "submodule": dot_git / "modules/sub/config",
        "included": world.root / "included",
        "user": home / ".gitconfig",
        "xdg": home / ".config/git/config",
        "conditional": world.root / "included",
        "system": world.root / "system",
    }[level]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(_rendered(settings))
    if level == "worktree":
        sh(world.repo, "config", "extensions.worktreeConfig", "true", env=world.env)
    if level == "included":
        sh(world.repo, "config", "include.path", str(path), env=world.env)
    if level == "conditional":
        with (home / ".gitconfig").open("a") as file:
            file.write(f'[includeIf "gitdir:{world.root}/"]\n\tpath = {path}\n')
    if level == "system":
        del env["GIT_CONFIG_NOSYSTEM"]
        env["GIT_CONFIG_SYSTEM"] = str(path)
    return env


REPOSITORY_LEVELS = ("repository", "worktree", "included")
USER_LEVELS = ("user", "xdg", "conditional", "system")


def _rendered(settings: Mapping[str, str]) -> str:
    lines = []
    for key, value in settings.items():
        section, _, rest = key.partition(".")
        subsection, _, name = rest.rpartition(".")
        head = f'[{section} "{subsection}"]' if subsection else f"[{section}]"
        lines.append(f'{head}\n\t{name} = "{value}"\n')
    return "".join(lines)


def git_version() -> tuple[int, ...]:
    """The version of the git that is first on PATH."""
    said = subprocess.run(("git", "version"), capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in re.findall(r"\d+", shlex.split(said)[2])[:3])
