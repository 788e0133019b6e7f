"""Paths that deserve a look."""

from __future__ import annotations

import pytest

from coding_agents.gitsync.attention import LARGE_BYTES, Change, attention


def change(path: str, *, old: str = "100644", new: str = "100644", size: int = 10) -> Change:
    return Change(path, old, new, size)


@pytest.mark.parametrize(
    "path",
    [
        ".github/workflows/ci.yml", "sub/.github/workflows/x.yaml", ".gitlab-ci.yml", ".husky/pre-commit",
        "lefthook.yml", ".pre-commit-config.yaml", ".gitattributes", "deep/.gitattributes", ".gitmodules",
        "package.json", "web/package.json", "setup.py", "pyproject.toml", "Makefile",
        "src/Makefile", "CMakeLists.txt",
        "build.gradle.kts", "Dockerfile", "Dockerfile.dev", "docker-compose.yml", "conftest.py",
        ".vscode/tasks.json",
        ".envrc", ".env", "CLAUDE.md", "AGENTS.md", ".claude/settings.json", ".mcp.json",
        ".cursor/rules/x.mdc",
        "sitecustomize.py", "x.pth", ".GIT/config", "a/.git /hooks/x", "git~1/x", "a\nb",
        "x\u202ey", ".npmrc",
        "build.rs", ".coding-agents.toml", "eslint.config.mjs", "App.csproj",
        ".devcontainer/devcontainer.json",
    ],
)  # fmt: skip
def test_named(path: str) -> None:
    note = attention(change(path))
    assert note is not None
    assert note.path == path
    assert note.why


@pytest.mark.parametrize(
    "path", ["README.md", "src/app.py", "docs/makefile.md", "package.jsonx", "environment", "a.env.py"]
)
def test_not_named(path: str) -> None:
    assert attention(change(path)) is None


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("100644", "100755", "became executable"),
        ("000000", "100755", "became executable"),
        ("100755", "100755", None),
        ("000000", "120000", "symbolic link"),
        ("000000", "160000", "submodule"),
    ],
)
def test_modes(old: str, new: str, why: str | None) -> None:
    note = attention(change("src/app", old=old, new=new))
    assert (note.why if note else None) == why


def test_a_deletion_runs_nothing() -> None:
    assert attention(change("Makefile", new="000000")) is None


def test_large_files() -> None:
    note = attention(change("data.bin", size=LARGE_BYTES))
    assert note is not None
    assert "10 MiB" in note.why
