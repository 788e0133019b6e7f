"""The demo agent on real repositories: what it writes is true, checked and committed, or nothing changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from coding_agents.images.data import data_dir
from support.repos import git_env, sh

_PROGRAM = data_dir("images") / "agents" / "demo" / "demo-agent"


class Repo:
    """A repository and the agent run in it."""

    def __init__(self, path: Path, *init: str) -> None:
        self.path = path
        self.env = git_env(path.parent / "home")
        path.mkdir()
        self.git("init", "--quiet", *init)

    def git(self, *args: str) -> str:
        return sh(self.path, *args, env=self.env)

    def commit(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_bytes(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=files")

    def agent(self, *args: str, stdin: str = "", cwd: str = ".") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(_PROGRAM), *args],
            cwd=self.path / cwd,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "repo")


def test_it_indexes_checks_and_commits(repo: Repo) -> None:
    repo.commit(
        {
            "a.py": b"1\n2\n3",  # the last line has no end, and counts
            "src/b.py": b"x\n",
            "doc/read.md": b"# hi\r\n\r\n",
            "logo.png": b"\x89PNG\0\n\n",
            "Makefile": b"all:\n",
            "empty.txt": b"",
            "odd\n|name`.rs": b"fn main() {}\n",
        }
    )
    (repo.path / "link.py").symlink_to("a.py")
    repo.commit({})
    done = repo.agent("-p", "index it\x1b[31m\nplease", cwd="src")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "check passed: git counts the same 8 lines" in done.stdout
    text = (repo.path / "CONTENTS.md").read_text()
    assert "7 files, 8 lines." in text
    assert "| Python | 2 | 4 | 50 % |" in text
    assert "| Binary | 1 | 0 | 0 % |" in text
    assert "| Make | 1 | 1 | 12 % |" in text
    assert "| `odd??name?.rs` | 1 |" in text
    assert "link.py" not in text
    message = repo.git("log", "-1", "--format=%B")
    assert message.startswith("Add CONTENTS.md, an index of the repository\n")
    assert message.rstrip().endswith("Task: index it [31m please")
    assert repo.git("show", "--name-only", "--format=").split() == ["CONTENTS.md"]
    assert repo.git("status", "--porcelain") == ""


def test_a_second_run_updates_or_says_that_nothing_changed(repo: Repo) -> None:
    repo.commit({"a.py": b"1\n"})
    assert repo.agent("-p", "").returncode == 0
    head = repo.git("rev-parse", "HEAD")
    assert "nothing to commit" in repo.agent("-p", "again").stdout
    assert repo.git("rev-parse", "HEAD") == head
    repo.commit({"b.go": b"1\n"})
    assert repo.agent("-p", "again").returncode == 0
    assert repo.git("log", "-1", "--format=%s") == "Update CONTENTS.md, an index of the repository"


@pytest.mark.parametrize("init", [(), ("--object-format=sha256",), ("--initial-branch=trunk",)])
def test_an_empty_repository_and_other_formats(tmp_path: Path, init: tuple[str, ...]) -> None:
    repo = Repo(tmp_path / "repo", *init)
    done = repo.agent("-p", "start")
    assert done.returncode == 0, done.stderr
    assert "0 files, 0 lines." in (repo.path / "CONTENTS.md").read_text()
    assert repo.git("rev-list", "--count", "HEAD") == "1"


def test_other_peoples_files_and_staged_work_stay_as_they_are(repo: Repo) -> None:
    repo.commit({"CONTENTS.md": b"mine\n", "a.py": b"1\n"})
    (repo.path / "a.py").write_text("changed\nlines\n")
    (repo.path / "new.py").write_text("x\n")
    repo.git("add", "new.py")
    assert repo.agent("-p", "x").returncode == 0
    assert (repo.path / "CONTENTS.md").read_text() == "mine\n"
    assert repo.git("show", "--name-only", "--format=").split() == ["CONTENTS-demo.md"]
    assert repo.git("status", "--porcelain").splitlines() == [" M a.py", "A  new.py"]


def test_submodules_and_binary_attributes_are_no_hindrance(repo: Repo) -> None:
    repo.commit({"a.svg": b"1\n2\n", ".gitattributes": b"*.svg -diff\n"})
    head = repo.git("rev-parse", "HEAD")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{head},module")
    repo.git("commit", "--quiet", "--message=gitlink")
    done = repo.agent("-p", "x")
    assert done.returncode == 0, done.stderr
    assert "2 files, 3 lines." in (repo.path / "CONTENTS.md").read_text()


def test_a_failure_changes_nothing(repo: Repo) -> None:
    repo.commit({"CONTENTS.md": b"mine\n", "CONTENTS-demo.md": b"mine too\n"})
    head = repo.git("rev-parse", "HEAD")
    done = repo.agent("-p", "x")
    assert done.returncode == 1
    assert "files of this repository's own" in done.stderr
    assert (repo.git("rev-parse", "HEAD"), repo.git("status", "--porcelain")) == (head, "")


def test_a_wrong_count_is_caught_by_the_check(repo: Repo, tmp_path: Path) -> None:
    """The check is independent: an agent that counts wrongly does not commit and leaves no file."""
    repo.commit({"a.py": b"1\n2\n"})
    broken = tmp_path / "broken"
    source = _PROGRAM.read_text()
    assert 'return blob.count(b"\\n") +' in source
    broken.write_text(source.replace('return blob.count(b"\\n") +', "return 7 +"))
    broken.chmod(0o755)
    done = subprocess.run(
        [str(broken), "-p", "x"], cwd=repo.path, env=repo.env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "check failed: a.py has 7 lines here, 2 by git" in done.stderr
    assert not (repo.path / "CONTENTS.md").exists()


def test_outside_a_repository(tmp_path: Path) -> None:
    env = {"PATH": "/usr/bin:/bin", "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    done = subprocess.run([str(_PROGRAM), "-p", "x"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, "not a git repository" in done.stderr) == (1, True)


def test_interactively_it_takes_tasks_until_an_empty_line(repo: Repo) -> None:
    repo.commit({"a.py": b"1\n"})
    done = repo.agent(stdin="and again\n\nnever read\n")
    assert done.returncode == 0
    assert "task: and again" in done.stdout
    assert "never read" not in done.stdout
