"""`./dev` on machines that lack things: what it installs, what it prints without root, what it leaves alone."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_SCRIPTS = ("dev", ".ci/run", "tools/test-engine", "images/base/finish.sh", "images/npm/fetch.sh")
_TOOLS = ("sh", "dirname", "tr", "cat", "cksum", "seq", "sed", "grep", "rm", "chmod", "mktemp", "echo", "env")
_PROGRAMS = (
    "git", "git-lfs", "tmux", "mmdebstrap", "newuidmap", "shellcheck", "strace", "age-keygen",
    "openssl", "gpg", "gpg-agent", "ssh-keygen", "ip", "nft", "iptables",
    "dockerd", "docker", "runc", "crun", "runsc", "podman",
)  # fmt: skip


class Machine:
    """A checkout and a PATH with nothing on it but what the test puts there."""

    def __init__(self, root: Path) -> None:
        self.checkout = root / "checkout with space"
        self.bin = root / "bin"
        self.log = root / "log"
        self.checkout.mkdir()
        self.bin.mkdir()
        shutil.copy(_ROOT / "dev", self.checkout)
        shutil.copytree(_ROOT / "requirements", self.checkout / "requirements")
        for tool in _TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)
        self.program("id", 'case "$1" in -u) echo 1000 ;; *) echo ada ;; esac')
        self.program("apt-get", f'echo "apt-get $*" >> "{self.log}"')
        self.program("apt-cache", '[ "$2" != docker-cli ]')

    def program(self, name: str, script: str = "exit 0") -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def as_root(self) -> None:
        self.program("id", "echo 0")

    def programs(self, *missing: str) -> None:
        for name in _PROGRAMS:
            if name not in missing:
                self.program(name)

    def venv(self) -> None:
        """A finished .venv whose python must not be called."""
        (self.checkout / ".venv" / "bin").mkdir(parents=True)
        python = self.checkout / ".venv" / "bin" / "python"
        python.write_text(f'#!/bin/sh\necho "python $*" >> "{self.log}"\n')
        python.chmod(0o755)
        files = " ".join(f"requirements/{name}.txt" for name in ("run", "test", "lint"))
        stamp = subprocess.run(
            ["/bin/sh", "-c", f'for f in {files}; do cksum "$f"; done; pwd'],
            cwd=self.checkout, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        (self.checkout / ".venv" / ".requirements-all").write_text(stamp)

    def dev(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(self.checkout / "dev"), *args],
            env={"PATH": str(self.bin), "SBIN": str(self.bin), **env}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def logged(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_root_it_prints_the_one_command_and_exits_30(machine: Machine) -> None:
    done = machine.dev("setup")
    assert done.returncode == 30
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("apt-get update && apt-get install -y --no-install-recommends ")
    # Everything at once, and nothing that this release does not know.
    assert {"git", "git-lfs", "tmux", "mmdebstrap", "uidmap"} <= set(done.stdout.split())
    assert "docker-cli" not in done.stdout
    assert machine.logged() == ""


def test_a_python_without_venv_is_named_too(machine: Machine) -> None:
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        machine.program(name, "exit 1")
    dev = machine.checkout / "dev"
    dev.write_text(dev.read_text().replace("/usr/bin/python3", "/nonexistent"))
    assert "python3 python3-venv git git-lfs" in machine.dev("setup").stdout


def test_as_root_it_installs_only_what_is_missing_and_known(machine: Machine) -> None:
    machine.as_root()
    machine.programs("tmux")
    machine.venv()
    done = machine.dev("setup")
    assert done.returncode == 0, done.stderr
    install = [line for line in machine.logged().splitlines() if " install " in line]
    assert install == ["apt-get -qq install -y --no-install-recommends tmux"]
    machine.log.unlink()
    machine.programs()
    (machine.bin / "docker").unlink()
    machine.dev("setup")
    # docker-cli is a package of later releases only: apt-cache does not know it here.
    assert "--no-install-recommends docker.io\n" in machine.logged()


def test_when_all_is_there_nothing_is_run(machine: Machine) -> None:
    machine.programs()
    machine.venv()
    done = machine.dev("setup")
    assert (done.returncode, machine.logged()) == (0, "")


def test_a_runtime_that_this_release_has_not_is_done_without(machine: Machine) -> None:
    machine.as_root()
    machine.programs("crun", "runsc")
    machine.venv()
    machine.program("apt-cache", '[ "$2" != runsc ]')
    machine.dev("setup")
    assert "--no-install-recommends crun\n" in machine.logged()
    machine.log.unlink()
    machine.program("crun")
    assert machine.dev("setup").returncode == 0
    assert machine.logged() == ""


def test_changed_requirements_are_installed_with_hashes(machine: Machine) -> None:
    machine.programs()
    machine.venv()
    with (machine.checkout / "requirements" / "run.txt").open("a") as file:
        file.write("# changed\n")
    machine.program("python3")
    machine.dev("setup")
    pip = next(line for line in machine.logged().splitlines() if "pip install" in line)
    assert "--require-hashes --only-binary :all:" in pip
    assert pip.count("-r requirements/") == 3


def test_a_given_docker_needs_no_engine_of_our_own(machine: Machine) -> None:
    machine.programs("dockerd", "podman", "runc")
    machine.venv()
    done = machine.dev("setup", CODING_AGENTS_TEST_DOCKER_HOST="unix:///given")
    assert done.returncode == 0, done.stdout


def test_engine_tests_without_root_say_what_else_there_is(machine: Machine) -> None:
    machine.programs()
    machine.venv()
    done = machine.dev("test")
    assert done.returncode == 30
    assert "./dev test --fast" in done.stderr
    assert "pytest" not in machine.logged()


def test_fast_tests_need_neither_root_nor_engine(machine: Machine) -> None:
    machine.programs("dockerd", "docker", "podman", "runc")
    machine.venv()
    assert machine.dev("test", "--fast", "-x").returncode == 0
    call = machine.logged().split()
    assert call[:3] == ["python", "-m", "pytest"]
    assert {"tests/unit", "tests/component", "-x"} <= set(call)
    assert "--require-engine" not in call


def test_help_and_unknown_words(machine: Machine) -> None:
    shown = machine.dev("help")
    assert shown.returncode == 0
    for verb in ("setup", "try", "test", "lint", "bench", "fuzz", "engine", "lock"):
        assert f"./dev {verb}" in shown.stdout
    unknown = machine.dev("nonsense")
    assert (unknown.returncode, "nonsense" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("script", _SCRIPTS)
def test_shell_scripts_are_clean(script: str) -> None:
    found = shutil.which("shellcheck")
    assert found is not None, "./dev setup installs shellcheck"
    done = subprocess.run([found, str(_ROOT / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", ["dev", ".ci/run", "tools/test-engine"])
def test_scripts_are_executable(script: str) -> None:
    assert (_ROOT / script).stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("group", ["run", "test", "lint"])
def test_every_requirement_is_pinned_with_hashes_and_names_no_host(group: str) -> None:
    text = (_ROOT / "requirements" / f"{group}.txt").read_text()
    assert "://" not in text
    assert "index" not in text
    pinned = {}
    for entry in text.replace("\\\n", " ").splitlines():
        name, version = entry.split()[0].split("==")
        pinned[name.lower()] = version
        assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry)) >= 1, entry
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] if group == "run" else project["dependency-groups"][group]
    names = {re.split(r"[<>=\[]", requirement)[0].lower() for requirement in wanted}
    assert names <= set(pinned)


def test_the_engine_tool_touches_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    tool = str(_ROOT / "tools" / "test-engine")
    (tmp_path / "name").write_text("docker0\n")
    for args in (
        ("down", str(tmp_path)),
        ("down", str(tmp_path / "missing")),
        ("nonsense", str(tmp_path)),
        (),
    ):
        done = subprocess.run([tool, *args], capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith(("test-engine: ", "cat: "))
    assert (tmp_path / "name").exists()
    if os.geteuid() == 0:
        done = subprocess.run([tool, "down", str(tmp_path)], capture_output=True, text=True)
        assert "docker0 is not ours" in done.stderr
