"""One place starts processes, one runs git: every other module is searched for ways around them."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.doors import Found, describes, programs, starts
from support.product import ROOT

HOST, GUEST = ROOT / "src/coding_agents", ROOT / "src/coding_agents_guest"
ATTACKS = "attacks/"  # below HOST: their text goes into containers, and nothing of them runs here
DOOR = "proc/runner.py"

MAY_START = {
    "brokers/http/tls.py": {"sys.modules"},  # to load the ssl that the supervisor leaves out
    "proc/bounded.py": {"import subprocess"},  # PIPE and DEVNULL of what the runner spawns
    "proc/foreground.py": {"import subprocess"},  # PIPE and DEVNULL of a child whose output is filtered
    "cli/main.py": {"import_module of a computed name"},  # the verb's module, from the table VERBS
    "supervisor/__main__.py": {"sys.modules"},  # says that ssl is not there
}
"""What may stand where, beside `proc/runner.py` itself."""

MAY_DESCRIBE = {
    "proc/git.py",  # git
    "engine/program.py",  # docker or podman, as engine.find found them
    "supervisor/client.py",  # our own interpreter
    "images/rootfs.py",  # mmdebstrap
    "supervisor/notify.py",  # the user's own command
    "supervisor/merge_request.py",  # gh, as the user
    "supervisor/look_apart.py",  # our own interpreter
    "app/apparmor.py",  # apparmor_parser and tee of the system, by sudo
    "quota/image.py",  # mkfs.ext4, mount and umount of the system, as root
    "terminal/clipboard.py",  # the desktop's program for its clipboard
    "credentials/asking.py",  # the user's own, which print secrets
    "credentials/sealing.py",  # age
    "brokers/sign/signer.py",  # the user's own gpg or ssh-keygen
    "brokers/sign/own_key.py",  # ssh-keygen, for a session's own key
    "workspace/source.py",  # cat and cp, as the owner of a repository
}
"""Who may say which program the runner starts, and which that is."""

MAY_NAME = {
    "app/apparmor.py": {("sudo", "call _program"), ("sudo", "value of hints")},
    "app/doctor.py": {("git", "call _guarded"), ("git", "call Check")},  # names of a check
    "credentials/authfiles.py": {  # names of the user's configurations
        (name, "call MappingProxyType") for name in ("gh", "git-credentials")},
    "model/release.py": {(name, "value of FILES") for name in ("gh", "git-credentials")},
    "supervisor/credential_settings.py": {  # inside the container
        ("/usr/lib/coding-agents/git-credential", "value of _HELPER")},
    "app/pasting.py": {("sh", "value of keep")},  # inside the container
    "brokers/sign/answers.py": {("git", "value of NAMESPACE")},  # what signatures of ssh are for
    "errors.py": {("git", "value of code")},  # the code of an error
    "gitsync/gates.py": {("git-protocol", "value of PROTOCOL")},  # a rule of the policy
    "gitsync/origin_service.py": {("git", "call RelayEvent")},
    "gitsync/origin_urls.py": {("git", "value of _PORTS"), ("git", "call dict.fromkeys")},  # a scheme, a user
    "gitsync/relay.py": {("git", "call RelayEvent")},  # who refused, in the audit log
    "gitsync/relay_push.py": {("git", "call self._note")},
    "gitsync/service_request.py": {  # words of the guest's request line
        ("git-upload-pack", "value of FETCH"), ("git-receive-pack", "value of PUSH")},
    "gitsync/splice.py": {("git-protocol", "call Deny")},
    "gitsync/urls.py": {("git", "call frozenset")},  # a scheme of URLs
    "app/trial_place.py": {  # a repository's own hooks, inside the container
        ("sh", "value of _SERVERS"), ("sh", "call json.dumps"), ("bash", "call json.dumps")},
    "workspace/settings.py": {("git", "value of _URL_SCHEMES")},
    "mcp/apart.py": {  # commands of servers, which are given no secret
        (name, "call frozenset") for name in (
            "bash", "busybox", "dash", "ksh", "nohup", "nsenter", "parallel", "setsid", "sh", "su", "sudo", "unshare",
            "xargs", "zsh")},
    "mcp/formats.py": {("bash", "value of hook")},  # a key of Copilot's
    "model/manifest.py": {("sh", "function resume_argv")},  # inside the container
    "proc/git.py": {("git", "value of argv"), ("git", "value of _CLONE_PROTOCOLS")},
    "cli/completions.py": {  # shells that a script is written for
        (shell, where) for shell in ("bash", "zsh") for where in ("value of _HOW", "call click.Choice")},
    "images/rootfs.py": {("unshare", "value of argv")},  # mounts of its own for mmdebstrap
    "supervisor/merge_request.py": {("gh", "value of argv")},
    "quota/probe.py": {("unshare", "call run")},  # a mount namespace for a mount that is to go by itself
    "sandbox/guest.py": {("/usr/bin/python3", "value of PYTHON")},  # inside the container
    "sandbox/rules.py": {("/usr/bin/python3", "value of _GUEST_INTERPRETER")},
    "app/verify_full.py": {("sh", "call engine.exec")},  # likewise
    "verify/checks_container.py": {  # names of attempts
        (name, "call not_done") for name in ("sudo", "su", "setpriv", "chroot")} | {("chroot", "value of _LEAVE")},
    "verify/program.py": {("/usr/bin/python3", "value of _PYTHON")},  # likewise
}  # fmt: skip
"""Words that are the name of such a program and mean something else, and the one place that means git."""

GUEST_STARTS = {"__main__.py", "autosave.py", "bridge.py", "children.py", "egress/program.py", "egress/serving.py",
                "gitwork.py", "gvisor.py", "holder.py", "mcp_server.py", "privileges.py", "session.py",
                "sign_client.py", "trailers.py"}  # fmt: skip
"""Modules of the guest, which runs inside: none of them may be loaded by the host. That of the proxy starts squid."""

OUTSIDE = {
    "tools/build_test_images.py": set(),  # images between the test engines
    "tools/emulated_guest.py": {
        ("unshare", "call _run"),
        ("setpriv", "function _qemu"),
    },  # a guest in emulation, which ends with the tool
    "tools/record_session.py": {
        ("git", "call subprocess.run"),
        ("sh", "call os.execvpe"),
    },  # in a repository of its own
    "bench/brokers.py": {("git", "call subprocess.run")},  # makes the origin that it measures with
    "bench/commands.py": set(),  # measures a bare interpreter
    "bench/launches.py": set(),  # measures cp
    "bench/model.py": set(),  # measures a client of its own
    "bench/returns.py": {("sh", "call user.run")},  # in the container, by `exec`
    "bench/user.py": {("git", "call subprocess.run")},  # makes the repository that it measures with
}
"""What is not the product: it may start processes, and git only on repositories of its own."""


def sources(directory: Path) -> dict[str, str]:
    """What of a directory runs on the host, or in the guest."""
    found = {
        path.relative_to(directory).as_posix(): path.read_text("utf-8") for path in directory.rglob("*.py")
    }
    return {name: found[name] for name in sorted(found) if not name.startswith(ATTACKS)}


def test_only_the_runner_starts_processes() -> None:
    found = {name: {one.what for one in starts(source)} for name, source in sources(HOST).items()}
    assert found.pop(DOOR)
    assert {name: what for name, what in found.items() if what} == MAY_START


def test_only_these_modules_say_which_program_is_started() -> None:
    found = {name for name, source in sources(HOST).items() if describes(source)}
    assert found == MAY_DESCRIBE


def test_only_one_module_names_git() -> None:
    found = {
        name: {(one.what, one.where) for one in programs(source)} for name, source in sources(HOST).items()
    }
    assert {name: words for name, words in found.items() if words} == MAY_NAME


def test_no_attack_is_loaded_by_the_host_and_none_needs_more_than_the_standard_library() -> None:
    """So they may start what they like: it is the container's."""
    package = "coding_agents.attacks"
    assert [name for name, source in sources(HOST).items() if package in _packages(source)] == []
    attacks = {path.name: path.read_text("utf-8") for path in (HOST / ATTACKS).glob("*.py")}
    assert len(attacks) > 5
    for name, source in attacks.items():
        tops = {module.partition(".")[0] for module in _modules(source)} - {"coding_agents"}
        assert tops <= set(sys.stdlib_module_names), name
        assert {one for one in _modules(source) if one.startswith("coding_agents")} <= {
            f"{package}.{Path(other).stem}" for other in attacks
        }, name


def _modules(source: str) -> set[str]:
    """The modules that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
    return found


def _packages(source: str) -> set[str]:
    """The packages two levels deep, however they are imported."""
    names = {
        f"{node.module}.{one.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module == "coding_agents"
        for one in node.names
    }
    return {".".join(name.split(".")[:2]) for name in _modules(source)} | names


def test_what_the_host_loads_of_the_guest_starts_nothing() -> None:
    """Also what that loads in turn."""
    guest = sources(GUEST)
    assert {name for name, source in guest.items() if starts(source)} == GUEST_STARTS
    loaded: set[str] = set()
    waiting = set().union(*(_of_guest(source) for source in sources(HOST).values()))
    while waiting:
        loaded |= (now := waiting)
        waiting = set().union(*(_of_guest(guest[name]) for name in now)) - loaded
    assert {"wire.py", "events.py", "mux.py", "guard.py", "egress/rules.py", "egress/hosts.py"} <= loaded
    assert loaded & GUEST_STARTS == set()


def _of_guest(source: str) -> set[str]:
    """Files of the guest's package that a module loads."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("coding_agents_guest"):
            stem = node.module.partition(".")[2]
            names |= {stem} if stem else set()
            names |= {f"{stem}.{one.name}".strip(".") for one in node.names}
        elif isinstance(node, ast.Import):
            names |= {
                one.name.partition(".")[2]
                for one in node.names
                if one.name.startswith("coding_agents_guest.")
            }
    paths = {f"{name.replace('.', '/')}.py" for name in names}
    return {path for path in paths if (GUEST / path).is_file()}


def test_tools_and_measurements_run_git_only_on_what_they_made() -> None:
    found = {
        f"{place}/{name}": {(one.what, one.where) for one in programs(source)}
        for place in ("tools", "bench")
        for name, source in sources(ROOT / place).items()
        if starts(source) or programs(source)
    }
    assert found == OUTSIDE


def test_shell_scripts_run_git_only_on_a_clone_of_this_project() -> None:
    """`./dev try` clones this project and looks at that clone; no other script of ours runs git on the host."""
    scripts = [ROOT / "dev", ROOT / ".ci/run", ROOT / "tools/test-engine"]
    lines = [
        line.strip()
        for script in scripts
        for line in script.read_text("utf-8").splitlines()
        if re.search(r"(?:^|[\s;|&(])git (?!-lfs)", line.split("# ")[0])
    ]
    assert len(lines) == 4
    assert all('"$scratch/coding-agents"' in line for line in lines), lines


# --- each way around is found --------------------------------------------------------------------------------

WAYS_TO_START = (
    "import subprocess",
    "import subprocess as sp",
    "from subprocess import run as r",
    "import asyncio\nasyncio.create_subprocess_exec('x')",
    "from asyncio import create_subprocess_shell",
    "from asyncio import subprocess",
    "import asyncio.subprocess",
    "import asyncio\nlater = asyncio\nlater.subprocess.PIPE",
    "loop.subprocess_exec(proto, 'x')",
    "import os\nos.system('x')",
    "import os\nos.popen('x')",
    "import os as o\no.execvp('x', ['x'])",
    "from os import posix_spawn as p",
    "from os import *",
    "import os\nos.fork()",
    "import os\nother = os\nother.spawnlp(0, 'x')",
    "import os\ngetattr(os, 'sys' + 'tem')('x')",
    "import os\ngetattr(os, name)('x')",
    "import os\nos.__dict__['system']('x')",
    "import os\nvars(os)['popen']('x')",
    "import operator, os\noperator.attrgetter('system')(os)('x')",
    "import importlib\nimportlib.import_module('sub' 'process')",
    "import importlib\nimportlib.import_module(name)",
    "__import__('subprocess')",
    "import builtins\nbuiltins.__dict__['exec']",
    "import sys\nsys.modules['subprocess']",
    "exec('import ' + name)",
    "eval(text)",
    "import pty\npty.spawn('x')",
    "import multiprocessing",
    "from multiprocessing import Process",
    "from concurrent.futures import ProcessPoolExecutor",
    "import concurrent.futures\nconcurrent.futures.ProcessPoolExecutor()",
    "import ctypes",
    "import _posixsubprocess",
    "import webbrowser",
    "import click\nclick.edit('x')",
    "from click import launch",
    "import click\nclick.echo_via_pager('x')",
    "import uuid\nuuid.getnode()",
    "import runpy",
    "run(command, shell=True)",
    "start(command, preexec_fn=f)",
)
WAYS_TO_DESCRIBE = (
    "from coding_agents.proc.runner import Command\nrun(Command(('x',), env={}))",
    "from coding_agents.proc import runner\nrunner.run(runner.Command(argv, env={}))",
    "from coding_agents.proc.runner import Command as C",
    "from coding_agents.proc.runner import Command\nMine = Command",
    "from coding_agents.proc.runner import Command\npartial(Command, env={})",
    "from msgspec.structs import replace\nreplace(command, argv=('x',))",
    "import msgspec\nmsgspec.structs.replace(command, argv=('x',))",
)
WAYS_TO_NAME = (
    "run(['git', 'status'])",
    "run(('/usr/bin/git',))",
    "argv = ['git']",
    "ARGV: tuple[str, ...] = ('git', 'x')",
    "program = 'git'",
    "argv += ['git']",
    "def f(program='git'): ...",
    "def f():\n    return ['git', 'x']",
    "f = lambda: ('git', 'x')",
    "shutil.which('git')",
    "os.execvp('git', argv)",
    "run((b'git', b'x'))",
    "run(('gi' 't', 'x'))",
    "run(('g' + 'it', 'x'))",
    "run((f'{\"git\"}', 'x'))",
    "run((''.join(('g', 'it')), 'x'))",
    "run('git status'.split())",
    "run(shlex.split('git status'))",
    "run(f'git {word}'.split())",
    "run(('env', 'A=b', 'git', 'x'))",
    "run(('/usr/bin/env', name))",
    "run(('sh', '-c', 'git status'))",
    "run(('git-upload-pack', '.'))",
    "run(('/usr/lib/git-core/git-remote-https',))",
    "run(('git-lfs', 'fetch'))",
    "run(('gh', 'pr', 'create'))",
    "run(('hub', 'x'))",
    "run(('tig',))",
    "{'program': 'git'}",
    "match program:\n    case 'git': run((program,))",
)


def _named(found: Callable[[str], list[Found]], snippets: tuple[str, ...]) -> list[object]:
    return [pytest.param(found, snippet, id=snippet.replace("\n", "; ")) for snippet in snippets]


@pytest.mark.parametrize(
    ("search", "snippet"),
    [*_named(starts, WAYS_TO_START), *_named(describes, WAYS_TO_DESCRIBE), *_named(programs, WAYS_TO_NAME)],
)
def test_a_way_around_is_found(search: Callable[[str], list[Found]], snippet: str) -> None:
    """In a module of its own, and at the end of a real one, in a function or not."""
    assert search(snippet)
    host = (HOST / "gitsync/summary.py").read_text("utf-8")
    assert search(f"{host}\n{snippet}\n")
    indented = "".join(f"    {line}\n" for line in snippet.splitlines())
    if "import *" not in snippet:
        assert search(f"{host}\ndef hidden():\n{indented}")


@pytest.mark.parametrize(
    "source",
    [
        '"""git"""',
        "if word == 'git': pass",
        "if word in ('git', 'ssh'): pass",
        "raise Error(f'git {word} failed')",
        "from __future__ import annotations\ndef f(one: asyncio.subprocess.Process) -> subprocess.Popen[bytes]: ...",
        "import click\nclick.Command('x')",
        "import re\nre.compile('x')",
        "{'a': 1}['b']",
        "import os\nos.path.join('a', 'b')",
    ],
)
def test_what_is_harmless_is_not_found(source: str) -> None:
    assert [*starts(source), *describes(source), *programs(source)] == []
