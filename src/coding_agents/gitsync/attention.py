"""Paths that deserve a look before a branch is used, because something on the host later runs or obeys them.

The table is data: a rule's patterns are compared without regard to letter case with the whole path and
with each of its ends (`*` also matches `/`), so a folder that is opened on its own counts as well.
"""

from __future__ import annotations

import re
from fnmatch import translate
from functools import cache

import msgspec

LARGE_BYTES = 10 << 20

_RULES: tuple[tuple[str, str], ...] = (
    (
        "runs in CI, with its secrets",
        """
        .github/workflows/* .github/actions/* .gitlab-ci.yml .gitlab/*.yml .circleci/* jenkinsfile*
        azure-pipelines*.y*ml .travis.yml bitbucket-pipelines.yml .buildkite/* .drone.y*ml
        .woodpecker* appveyor.yml .teamcity/* cloudbuild.y*ml .ci/*
        """,
    ),
    (
        "git hook manager",
        """
        .husky/* .githooks/* lefthook*.y*ml .lefthook* .pre-commit-config.y*ml
        .pre-commit-hooks.y*ml .overcommit.yml .huskyrc* .lintstagedrc*
        """,
    ),
    (
        "git obeys it",
        """
        .gitattributes .gitmodules .lfsconfig .gitconfig .git-blame-ignore-revs
        """,
    ),
    (
        "package scripts or sources",
        """
        package.json .npmrc .yarnrc* .pnp.* .pnpmfile.* binding.gyp setup.py setup.cfg
        pyproject.toml pip.conf pdm.toml hatch_build.py cargo.toml build.rs .cargo/config*
        composer.json gemfile *.gemspec mix.exs go.work package.swift nuget.config
        """,
    ),
    (
        "build file",
        """
        makefile gnumakefile *.mk cmakelists.txt *.cmake meson.build justfile taskfile.y*ml rakefile
        build.gradle* settings.gradle* gradlew* gradle/wrapper/* pom.xml mvnw* .mvn/* build.xml
        *.csproj *.fsproj *.vbproj *.props *.targets *.sln build.bazel workspace.bazel module.bazel
        *.bzl .bazelrc sconstruct gruntfile.* gulpfile.* webpack.config.* vite.config.*
        rollup.config.* next.config.* babel.config.* .babelrc* *.eslintrc* eslint.config.*
        .prettierrc* prettier.config.* postcss.config.* tailwind.config.* jest.config.*
        vitest.config.* noxfile.py tox.ini conftest.py dodo.py dockerfile* *.dockerfile
        docker-compose*.y*ml compose*.y*ml vagrantfile tiltfile procfile configure autogen.sh
        """,
    ),
    (
        "editor settings or tasks",
        """
        .vscode/* .idea/* *.code-workspace .vimrc .nvimrc .exrc .nvim.lua .dir-locals.el
        .editorconfig .zed/* .fleet/* *.sublime-project .devcontainer/* .devcontainer.json
        """,
    ),
    (
        "shell environment",
        """
        .envrc .env .env.* .tool-versions mise.toml .mise.toml .mise/* flake.nix shell.nix
        default.nix devbox.json .bashrc .zshrc .profile .autoenv* .python-version .nvmrc
        """,
    ),
    (
        "instructs or configures an AI agent",
        """
        agents.md claude.md claude.local.md gemini.md .claude/* .codex/* .gemini/* .cursor/*
        .cursorrules .windsurf* .continue/* .aider* .opencode/* opencode.json* .mcp.json mcp.json
        .github/copilot* .github/instructions/* .coding-agents.toml .coding-agents/*
        """,
    ),
    (
        "the interpreter loads it by itself",
        """
        sitecustomize.py usercustomize.py *.pth pyvenv.cfg .pythonstartup .node_repl* .irbrc .rspec
        .yardopts .pdbrc .gdbinit .lldbinit ld.so.preload
        """,
    ),
)

# Names that a file system may take for `.git` (git's own fsck refuses most; see its "hasDotgit").
_DOT_GIT = frozenset({".git", "git~1"})
_EXECUTABLE = "100755"
_SYMLINK = "120000"
_GITLINK = "160000"


class Attention(msgspec.Struct, frozen=True):
    """A changed path and why it deserves a look. The path is hostile text: escape it before showing it."""

    path: str
    why: str


class Change(msgspec.Struct, frozen=True):
    """One changed path: file modes as git writes them ("000000": absent), size of the new blob in bytes."""

    path: str
    old_mode: str
    new_mode: str
    size: int


def attention(change: Change) -> Attention | None:
    """Why `change` deserves a look, or None. Deletions run nothing."""
    if change.new_mode == "000000":
        return None
    why = _by_mode(change) or _by_path(change.path) or _by_size(change)
    return Attention(change.path, why) if why else None


def _by_mode(change: Change) -> str:
    if change.new_mode == _SYMLINK:
        return "symbolic link"
    if change.new_mode == _GITLINK:
        return "submodule"
    return "became executable" if change.new_mode == _EXECUTABLE != change.old_mode else ""


def _by_path(path: str) -> str:
    if any(part.lower().rstrip(" .") in _DOT_GIT for part in path.split("/")):
        return "looks like a .git directory"
    if not path.isprintable():
        return "unprintable characters in its name"
    lower = path.lower()
    return next((why for why, matcher in _matchers() if matcher.match(lower)), "")


@cache
def _matchers() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """The rules, compiled at their first use: every command imports this module, few look at paths."""
    return tuple(
        (
            why,
            re.compile("|".join(f"(?:.*/)?{translate(pattern)}" for pattern in patterns.split()), re.DOTALL),
        )
        for why, patterns in _RULES
    )


def _by_size(change: Change) -> str:
    return f"large file ({change.size >> 20} MiB)" if change.size >= LARGE_BYTES else ""
