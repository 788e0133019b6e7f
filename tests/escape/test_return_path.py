"""What comes back is not run, and neither is what the user's own git is set up to run; hostile text stays text.

A trigger is a program that would leave its own name in a directory of the test's (`Canary`).
"""

from __future__ import annotations

import shlex
import stat
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import gitattack
from support.escape import Captive, capture, fresh_repo
from support.product import Product, git, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.escape]

HOOKS = (
    "reference-transaction", "post-checkout", "post-merge", "post-commit", "pre-commit", "pre-push", "pre-receive",
    "post-receive", "update", "post-update", "push-to-checkout", "proc-receive", "post-index-change", "pre-auto-gc",
    "fsmonitor-watchman", "post-rewrite", "sendemail-validate",
)  # fmt: skip
# Keys whose value git may run. `%s` in a value is the trigger's program.
PROGRAMS = (
    "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass", "core.gitProxy",
    "core.alternateRefsCommand", "sequence.editor", "diff.external", "diff.evil.textconv", "diff.evil.command",
    "merge.evil.driver", "gpg.program", "gpg.ssh.program", "credential.helper", "filter.evil.clean",
    "filter.evil.smudge", "uploadpack.packObjectsHook", "pager.diff", "pager.log", "interactive.diffFilter",
    "trailer.x.command", "remote.origin.uploadpack", "remote.origin.receivepack", "remote.origin.vcs",
    "hook.evil.command", "blame.ignoreRevsFile",
)  # fmt: skip
ALIASES = (
    "status",
    "rev-parse",
    "diff-tree",
    "for-each-ref",
    "update-ref",
    "index-pack",
    "pack-objects",
    "cat-file",
)
VARIABLES = (
    "GIT_SSH_COMMAND", "GIT_SSH", "GIT_EXTERNAL_DIFF", "GIT_PAGER", "PAGER", "GIT_EDITOR", "EDITOR", "VISUAL",
    "GIT_SEQUENCE_EDITOR", "GIT_ASKPASS", "SSH_ASKPASS", "GIT_PROXY_COMMAND",
)  # fmt: skip
CLEAN = "filter.evil.clean"


@dataclass(frozen=True)
class Canary:
    """Programs that tell that they ran: each makes a file of its name in `cage`."""

    home: Path

    @property
    def cage(self) -> Path:
        return self.home / "cage"

    def program(self, name: str) -> str:
        """The path of a trigger called `name`; as a filter it passes its input on."""
        path = self.home / "triggers" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n: > {shlex.quote(str(self.cage / name))}\ncase $1 in '') cat;; esac\n")
        path.chmod(0o755)
        return str(path)

    def sang(self) -> set[str]:
        """What has run since the last call."""
        self.cage.mkdir(exist_ok=True)
        ran = {path.name for path in self.cage.iterdir()}
        for path in self.cage.iterdir():
            path.unlink()
        return ran

    def settings(self, hooks: Path) -> dict[str, str]:
        """Every setting of git's that runs something; `hooks` is where hooks lie, inside the work tree."""
        return {
            **{key: self.program(key) for key in PROGRAMS},
            **{f"alias.{name}": f"!{self.program(f'alias.{name}')}" for name in ALIASES},
            "core.hooksPath": str(hooks),
            "hook.evil.event": "reference-transaction",
            "core.attributesFile": str(self._attributes()),
            "init.templateDir": str(self._template()),
            "log.showSignature": "true",
            "gc.auto": "1",
            "gc.autoDetach": "false",
            "maintenance.auto": "true",
            "submodule.recurse": "true",
            "fetch.recurseSubmodules": "true",
            "diff.submodule": "log",
            "commit.gpgSign": "true",
        }

    def _attributes(self) -> Path:
        path = self.home / "attributes"
        path.write_text("*.txt diff=evil merge=evil\n*.usr filter=evil\n")
        return path

    def _template(self) -> Path:
        hooks = self.home / "template/hooks"
        hooks.mkdir(parents=True, exist_ok=True)
        for hook in HOOKS:
            (hooks / hook).unlink(missing_ok=True)
            (hooks / hook).symlink_to(self.program(f"template.{hook}"))
        return hooks.parent


def plant_file(path: Path, settings: Mapping[str, str]) -> None:
    for key, value in settings.items():
        git(path.parent, "config", "--file", str(path), key, value)


def plant_in_repository(repo: Path, canary: Canary, settings: Mapping[str, str]) -> dict[str, str]:
    plant_file(repo / ".git/config", settings)
    return {}


def plant_in_home(repo: Path, canary: Canary, settings: Mapping[str, str]) -> dict[str, str]:
    """By a conditional include: what it names counts as if it stood in the file."""
    plant_file(canary.home / "included", settings)
    with (canary.home / ".gitconfig").open("a") as file:
        file.write(f'[includeIf "gitdir:{repo}/"]\n\tpath = {canary.home / "included"}\n')
    return {}


def plant_in_environment(repo: Path, canary: Canary, settings: Mapping[str, str]) -> dict[str, str]:
    """As settings of git's, and as variables of its own."""
    return {
        "GIT_CONFIG_COUNT": str(len(settings)),
        **{f"GIT_CONFIG_KEY_{number}": key for number, key in enumerate(settings)},
        **{f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(settings.values())},
        **{name: canary.program(name) for name in VARIABLES},
        "GIT_TEMPLATE_DIR": settings["init.templateDir"],
        "GIT_CONFIG_PARAMETERS": f"'core.fsmonitor'='{canary.program('parameters')}'",
        "GIT_EXEC_PATH": str(Path(canary.program("exec-path")).parent),
        "GIT_DIR": str(repo / ".git"),
        "GIT_WORK_TREE": "/",
        "GIT_OBJECT_DIRECTORY": str(canary.home / "nowhere"),
        "GIT_TRACE": str(canary.cage / "trace"),
    }


LEVELS = {
    "repository": plant_in_repository,
    "home": plant_in_home,
    "environment": plant_in_environment,
}

# What the agent commits: everything that somebody's git, editor or terminal could take for more than content.
HOSTILE_COMMIT = r"""
set -e
mkdir -p .husky && for hook in HOOKS; do
    printf '#!/bin/sh\n: > "CAGE/hook.%s"\n' $hook > .husky/$hook; chmod 755 .husky/$hook
done
printf '* filter=evil diff=evil merge=evil ident\n' > .gitattributes
printf '[submodule "x"]\n\tpath = x\n\turl = https://host.invalid/x\n\tupdate = checkout\n' > .gitmodules
printf '[lfs]\n\turl = https://host.invalid/lfs\n\tstandalonetransferagent = x\n' > .lfsconfig
printf '[core]\n\tfsmonitor = CAGE/x\n' > .gitconfig
ln -s /etc/passwd link; ln -s ../../.. up
echo v > ./--upload-pack=x; echo v > ./-d; echo v > 'a b;$(touch shell).txt'
ESC=$(printf '\033'); RLO=$(printf '\342\200\256')
echo v > "${ESC}]0;pwned$(printf '\007').txt"; echo v > "${RLO}gpj.exe.txt"; printf 'x\n' > "$(printf 'two\nlines').txt"
printf "${ESC}[2J${ESC}]52;c;cHduZWQ=$(printf '\007')${RLO}text\n" > screen.txt
git add -A
git update-index --add --cacheinfo 160000,1111111111111111111111111111111111111111,x
git commit -q -m "subject ${ESC}[31m ${RLO}evil" -m "Co-authored-by: ${ESC}]0;x$(printf '\007')"
git push -q local HEAD
"""


def hostile_script(canary: Canary) -> str:
    return HOSTILE_COMMIT.replace("HOOKS", " ".join(HOOKS)).replace("CAGE", str(canary.cage))


def make_user(product: Product) -> tuple[Canary, Path]:
    """A user with triggers, not yet planted, and a repository with a file that a filter of theirs cleans."""
    canary = Canary(product.home)
    return canary, fresh_repo(product, files={"README.md": "hello\n", "a.txt": "a\n", "x.usr": "mine\n"})


@pytest.fixture
def user(owner: Product) -> tuple[Canary, Path]:
    (owner.home / ".gitconfig").write_text("[user]\n\tname = Uma\n\temail = uma@example.invalid\n")
    return make_user(owner)


def give_origin(product: Product, repo: Path) -> Path:
    """A repository beside it that is its origin; who pushes there does not wait for a person, but is told to."""
    settings = product.home / ".config/coding-agents/config.toml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("[origin]\nwait = 0\n")
    origin = repo.with_name(f"{repo.name}.git")
    git(product.home, "clone", "--quiet", "--bare", str(repo), str(origin))
    git(repo, "remote", "add", "origin", str(origin))
    return origin


def session_with_hostile_work(product: Product, canary: Canary, repo: Path) -> Captive:
    captive = capture(product, repo)
    product.exec(captive.name, hostile_script(canary))
    tip = product.exec(captive.name, "git rev-parse HEAD").out.strip()
    wait_for(lambda: git(repo, "rev-parse", captive.branch, check=False) == tip, "the work on its branch")
    return captive


# --- nothing runs --------------------------------------------------------------------------------------------


@pytest.mark.alike
@pytest.mark.parametrize("plant", LEVELS.values(), ids=LEVELS.keys())
def test_no_verb_runs_a_trigger(owner: Product, user: tuple[Canary, Path], plant) -> None:  # type: ignore[no-untyped-def]
    """With the agent's branch checked out, the user's hooks path in it, and every setting armed."""
    canary, repo = user
    origin = give_origin(owner, repo)
    first = session_with_hostile_work(owner, canary, repo)
    git(repo, "switch", "--quiet", first.branch)
    canary.sang()
    env = plant(repo, canary, canary.settings(repo / ".husky"))

    owner.exec(
        first.name, "echo more > more.txt; git add more.txt; git commit -qm more; git push -q local HEAD"
    )
    owner.exec(first.name, "git push -q origin HEAD:refs/heads/out", status=1)
    (asked,) = owner.run("approvals", "list", "--json").json
    incoming = f"refs/coding-agents/incoming/{owner.session(first.name)['id']}"
    wait_for(lambda: git_as_is(repo, "for-each-ref", incoming), "the push that arrived meanwhile")
    assert canary.sang() == set()
    for verb in (["diff", first.name], ["diff", first.name, "--stat"], ["list", "-a"], ["logs", first.name],
                 ["review", first.name], ["merge", first.name, "--into", "main", "--dry-run"],
                 ["approvals", "show", asked["id"]], ["approvals", "approve", asked["id"], "-y"],
                 ["audit", "query", "--session", first.name], ["stop", first.name], ["recover", first.name],
                 ["start", first.name], ["remove", "--force", first.name]):  # fmt: skip
        owner.run(*verb, env=env, cwd=repo)
        assert canary.sang() == set(), verb
    assert git_as_is(repo, "show", f"{incoming}:more.txt") == "more"
    assert git(origin, "show", "out:more.txt") == "more"


@pytest.mark.alike
@pytest.mark.parametrize("plant", LEVELS.values(), ids=LEVELS.keys())
def test_launch_runs_the_users_own_clean_filter_and_nothing_else(
    owner: Product, user: tuple[Canary, Path], plant
) -> None:  # type: ignore[no-untyped-def]
    """What is changed can only be told after cleaning it, by the filter that the user configured."""
    canary, repo = user
    env = plant(repo, canary, canary.settings(repo / ".husky"))
    write_husky(repo, canary)
    (repo / "x.usr").write_text("changed\n")
    canary.sang()
    result = owner.launch(repo, "--", "sh", "-c", "echo w > w.txt; cat x.usr", env=env)
    assert result.out == "changed\n"
    # Settings in the environment are one command's; they are no part of how a repository is read.
    assert canary.sang() == (set() if plant is plant_in_environment else {CLEAN})
    assert git_as_is(repo, "show", "demo/session-1:w.txt") == "w"


@pytest.mark.alike
def test_the_triggers_are_real(owner: Product, user: tuple[Canary, Path]) -> None:
    """Git itself, set up like this, runs them."""
    canary, repo = user
    write_husky(repo, canary)
    plant_in_repository(repo, canary, canary.settings(repo / ".husky"))
    (repo / "x.usr").write_text("changed\n")
    (repo / "a.txt").write_text("changed\n")
    git(repo, "update-ref", "refs/heads/y", "HEAD")
    git(repo, "diff", check=False)
    git(repo, "rev-parse", "HEAD")
    assert canary.sang() >= {"hook.reference-transaction", "core.fsmonitor", "diff.evil.command", CLEAN}


def git_as_is(repo: Path, *args: str) -> str:
    """Git for the test's own questions, that springs none of the triggers planted in the repository."""
    quiet = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "--no-pager")
    return git(repo, *quiet, *args, check=False)


def write_husky(repo: Path, canary: Canary) -> None:
    """Hooks inside the work tree, as husky keeps them."""
    (repo / ".husky").mkdir()
    for hook in HOOKS:
        (repo / ".husky" / hook).write_text(
            f"#!/bin/sh\n: > {shlex.quote(str(canary.cage / f'hook.{hook}'))}\n"
        )
        (repo / ".husky" / hook).chmod(0o755)


@pytest.mark.alike
def test_what_the_agent_planted_in_its_own_git_never_counts_here(
    owner: Product, user: tuple[Canary, Path]
) -> None:
    """Its configuration, hooks and alternates stay in the volume; its files come back from it all the same."""
    canary, repo = user
    captive = capture(owner, repo)
    canary.sang()
    evil = canary.program("guest")
    config = "".join(f"git config {key} {evil};" for key in PROGRAMS)
    owner.exec(
        captive.name,
        "echo c > c.txt; git add c.txt; git commit -qm c; echo u > u.txt; rm -rf .git/hooks; mkdir .git/hooks;"
        f"for hook in {' '.join(HOOKS)}; do printf '#!/bin/sh\\ntouch {canary.cage}/$hook' > .git/hooks/$hook; done;"
        f"chmod 755 .git/hooks/*; {config} git config core.hooksPath .git/hooks; git config include.path /etc/passwd;"
        f"mkdir -p .git/objects/info; echo '{repo}/.git/objects' > .git/objects/info/alternates",
    )
    kill(captive)
    owner.run("recover", captive.name)
    assert git(repo, "show", f"{captive.branch}:c.txt") == "c"
    assert git(repo, "show", f"{captive.branch}:u.txt") == "u"
    assert canary.sang() == set()


@pytest.mark.alike
@pytest.mark.parametrize(
    "replace",
    ["echo 'gitdir: /proc/1/root/REPO/.git' > .git", "ln -s REPO/.git .git", "ln -s / .git"],
    ids=["file", "link to the host", "link to the root"],
)
def test_a_replaced_git_directory_leads_nowhere(
    owner: Product, user: tuple[Canary, Path], replace: str
) -> None:
    _, repo = user
    refs = git(repo, "for-each-ref", "refs/heads/main")
    captive = capture(owner, repo)
    owner.exec(captive.name, f"echo u > u.txt; rm -rf .git; {replace.replace('REPO', str(repo))}")
    kill(captive)
    owner.run("recover", captive.name)
    saved = owner.session(captive.name)["saved"]
    assert git(repo, "show", f"{saved['integrated']}:u.txt") == "u"
    assert git(repo, "for-each-ref", "refs/heads/main") == refs


def kill(captive: Captive) -> None:
    captive.product.engine_run("kill", captive.name)
    wait_for(lambda: captive.product.state(captive.name) == "stopped", "the end of the killed session")


# --- nothing is checked out, nothing is shown raw ------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(owner: Product) -> Captive:
    """A session whose every name and text is hostile."""
    canary, repo = make_user(owner)
    give_origin(owner, repo)
    captive = session_with_hostile_work(owner, canary, repo)
    owner.exec(captive.name, "git push -q origin HEAD:refs/heads/out", status=1)
    return captive


def test_hostile_files_arrive_as_objects_only(shown: Captive) -> None:
    listed = git(shown.repo, "ls-tree", "-r", shown.branch)
    assert "120000 blob" in listed
    assert "160000 commit" in listed
    assert git(shown.repo, "status", "--porcelain") == ""
    assert sorted(path.name for path in shown.repo.iterdir()) == [".git", "README.md", "a.txt", "x.usr"]
    hooks = [path for path in (shown.repo / ".git/hooks").glob("*") if path.suffix != ".sample"]
    assert hooks == []
    for place in (shown.repo / ".git", shown.product.session_dir(shown.name)):
        for path in place.rglob("*"):
            if path.suffix != ".sample" and path.is_file() and not path.is_symlink():
                assert not path.stat().st_mode & stat.S_IXUSR, path


@pytest.mark.alike
@pytest.mark.parametrize(
    "verb",
    ["diff NAME", "diff NAME --stat", "review NAME", "review NAME --json", "list -a", "logs NAME",
     "audit query --session NAME", "list -a --json", "merge NAME --into main --dry-run", "review NAME --sarif",
     "approvals show PUSH", "approvals list -a",
     "audit query --session NAME --json"],
)  # fmt: skip
def test_hostile_text_is_shown_escaped(shown: Captive, verb: str) -> None:
    tip = shown.product.exec(shown.name, "git rev-parse HEAD").out.strip()
    shown.attack(
        gitattack.push_to_refs, tip, ["refs/heads/\x1b]0;title\x07", "refs/heads/\u202egpj", "x\udcff"]
    )
    if "PUSH" in verb:
        verb = verb.replace("PUSH", shown.product.run("approvals", "list", "--json").json[-1]["id"])
    result = shown.product.run(*verb.replace("NAME", shown.name).split())
    assert unsafe(result.out + result.err) == set()
    if verb.startswith("approvals show"):
        assert "subject \\x1b[31m \\u202eevil" in result.out
    if verb == "diff NAME":
        assert "\\x1b]0;pwned\\x07" in result.out or "\\033]0;pwned\\a" in result.out
        assert "\\x1b[2J\\x1b]52;c;cHduZWQ=\\x07\\u202etext" in result.out


@pytest.mark.alike
def test_the_summary_and_hostile_output_are_escaped(owner: Product, user: tuple[Canary, Path]) -> None:
    canary, repo = user
    script = hostile_script(canary) + "\nprintf '\\033]0;x\\007\\033[5n'\n"
    result = owner.launch(repo, "--", "sh", "-c", script)
    assert unsafe(result.err) == set()
    assert "look at" in result.err
    captive = Captive(owner, f"demo-{repo.name}-session-1", repo, result)
    assert unsafe(owner.run("logs", captive.name).out) == set()


def unsafe(text: str) -> set[str]:
    """Characters that move the cursor, hide or reorder text, or are no characters."""
    return {char for char in text if char != "\n" and char != "\t" and unicodedata.category(char)[0] == "C"}
