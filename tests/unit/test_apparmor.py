"""Our AppArmor profiles: what they let a container do, rule by rule, and whether the host's own parser takes them.

No kernel with AppArmor is needed. That a container really runs under them is measured at each start.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from coding_agents.app.apparmor import SYSTEM_PATH
from coding_agents.proc.runner import Command, run
from coding_agents.sandbox.apparmor import KINDS, TEMPLATE, content, installed_path, profile_name, text
from coding_agents.sandbox.rules import apparmor_name
from coding_agents.sandbox.spec import HolderSpec, Role
from support.specs import holder, sandbox

_ABI = Path("/etc/apparmor.d/abi/3.0")
_FILE_RULE = re.compile(r"(?P<deny>deny )?(?P<path>/\S+) (?P<modes>[a-z]+),")


def _rules(kind: str) -> list[str]:
    """The lines between the braces of a profile, without comments."""
    body = text().partition(f"profile {profile_name(kind)} ")[2].partition("\n}\n")[0]
    lines = [line.strip() for line in body.splitlines()[1:]]
    return [line for line in lines if line and not line.startswith("#")]


def _matcher(pattern: str) -> re.Pattern[str]:
    """A path pattern of apparmor.d(5) as a regular expression; `*` behind a slash is at least one character."""
    translated = {"**": ".*", "*": "[^/]*", "{": "(?:", "}": ")", ",": "|"}
    words = re.findall(r"\*\*|\[[^]]*\]|.", pattern)
    made = "".join(translated.get(word, word if word.startswith("[") else re.escape(word)) for word in words)
    return re.compile(made.replace("/[^/]*", "/[^/]+").replace("/.*", "/.+"))


def _may(kind: str, path: str) -> set[str]:
    """What a profile allows on `path`: a refusal stands above all that is allowed."""
    allowed: set[str] = set()
    refused: set[str] = set()
    for line in _rules(kind):
        rule = _FILE_RULE.fullmatch(line)
        if rule is not None and _matcher(rule["path"]).fullmatch(path):
            (refused if rule["deny"] else allowed).update(rule["modes"].replace("ix", "x"))
    return allowed - refused


@pytest.mark.parametrize(
    "path",
    [
        "/workspace/", "/workspace/a/b", "/home/agentuser/.cache/x", "/tmp/x", "/var/tmp/x", "/run/x",
        "/run/coding-agents/relay.sock", "/dev/shm/x", "/dev/null", "/dev/pts/0", "/dev/tty", "/proc/12/comm",
        "/proc/12/task/13/comm", "/proc/12/oom_score_adj", "/proc/12/mem",
    ],
)  # fmt: skip
def test_what_the_agent_writes(path: str) -> None:
    assert {"r", "w"} <= _may("agent", path)


def test_every_writable_place_of_a_session_is_written() -> None:
    for spec in (sandbox(), holder()):
        places = [volume.path for volume in spec.volumes if volume.writable]
        for place in [*places, *(tmpfs.path for tmpfs in spec.tmpfs)]:
            assert {"r", "w", "k", "l"} <= _may(spec.role.value, f"{place}/x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "path",
    [
        "/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/proc/kcore",
        "/proc/1/attr/current", "/proc/1/attr/apparmor/exec", "/proc/1/task/1/attr/exec", "/proc/1/uid_map",
        "/proc/1/environ", "/proc/1/make-it-fail", "/proc/mtrr", "/proc/dynamic_debug/control", "/proc/1/sched",
        "/proc/irq/1/smp_affinity", "/proc/bus/pci/x", "/proc/fs/x", "/sys/kernel/uevent_helper", "/sys/power/state",
        "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/release_agent", "/dev/sda", "/dev/kmsg", "/dev/mem",
        "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/vsock", "/etc/passwd", "/usr/bin/git",
        "/opt/coding-agents/guest.pyz", "/opt/coding-agents-config/x", "/x",
        "/workspaces/x", "/home/other/x", "/var/lib/x", "/dev/ptsx/0",
    ],
)  # fmt: skip
def test_what_nobody_writes(kind: str, path: str) -> None:
    assert not _may(kind, path) & {"w", "a", "l", "k"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "path",
    [
        "/proc/kcore", "/proc/kallsyms", "/proc/kmsg", "/proc/keys", "/proc/sysrq-trigger", "/proc/acpi/x",
        "/proc/timer_list", "/sys/firmware/x", "/sys/kernel/security/x", "/sys/kernel/debug/x", "/sys/fs/bpf/x",
        "/sys/devices/virtual/powercap/x", "/dev/mem", "/dev/kmem", "/dev/port", "/dev/kvm",
    ],
)  # fmt: skip
def test_what_nobody_reads(kind: str, path: str) -> None:
    assert _may(kind, path) == set()


@pytest.mark.parametrize(
    "path", ["/", "/usr/bin/git", "/workspace/a.out", "/tmp/x", "/opt/coding-agents/guest.pyz"]
)
def test_the_rest_is_read_and_run_under_the_same_profile(path: str) -> None:
    assert {"m", "r", "x"} <= _may("agent", path)


@pytest.mark.parametrize("path", ["/proc/1/exe", "/proc/self/mem", "/sys/x"])
def test_nothing_is_run_from_the_kernels_trees(path: str) -> None:
    assert not _may("agent", path) & {"m", "x"}


@pytest.mark.parametrize("kind", KINDS)
def test_all_other_rules_are_these(kind: str) -> None:
    """So there is none for mount, umount, pivot_root, change_profile, dbus, or all."""
    name = profile_name(kind)
    wanted = {
        *(f"network {family} dgram," for family in ("inet", "inet6", "netlink")),
        *(f"network {family} stream," for family in ("inet", "inet6")),
        "network netlink raw,",
        "unix (create, bind, listen, shutdown, getattr, setattr, getopt, setopt),",
        f"unix (accept, connect, receive, send) peer=(label={name}),",
        f"signal (receive, send) peer={name},",
        *(f"signal receive peer={engine}," for engine in ("unconfined", "crun", "podman", "runc")),
    }
    if kind == "agent":
        wanted |= {f"ptrace (read, readby, trace, tracedby) peer={name},"}
        wanted |= {
            f"unix (connect, receive, send) peer=(label={profile_name('holder')}),"
        }  # the proxy's door
    else:
        wanted |= {f"unix (accept, receive, send) peer=(label={profile_name('agent')}),"}
        wanted |= {f"capability {one.lower()}," for one in HolderSpec.capabilities}
    assert {line for line in _rules(kind) if not _FILE_RULE.fullmatch(line)} == wanted
    assert all(
        mode in "rwklmix"
        for line in _rules(kind)
        if (rule := _FILE_RULE.fullmatch(line))
        for mode in rule["modes"]
    )


def test_a_name_says_which_content() -> None:
    assert content() == hashlib.sha256(TEMPLATE.read_bytes()).hexdigest()[:12]
    assert installed_path() == f"/etc/apparmor.d/coding-agents-{content()}"
    for role, kind in ((Role.AGENT, "agent"), (Role.HOLDER, "holder"), (Role.HELPER, "agent")):
        assert apparmor_name(role) == profile_name(kind)
    assert "@" not in text()
    assert "include" not in text().replace("Nothing is included", "")


def _parse(document: str, *options: str) -> tuple[int, str]:
    parser = shutil.which("apparmor_parser", path=SYSTEM_PATH)
    assert parser is not None, "apparmor_parser is missing: ./dev installs it"
    command = Command((parser, "-Q", "-K", *options), env={"LC_ALL": "C.UTF-8"}, stdin=document.encode())
    outcome = run(command)
    return outcome.status, outcome.stderr.decode()


def test_the_parser_takes_them_and_enforces_each_rule() -> None:
    status, said = _parse(text(), "--warn=all", "-M", str(_ABI))
    assert (status, said.replace("Cache read/write disabled: interface file missing. "
                                 "(Kernel needs AppArmor 2.4 compatibility patch.)\n", "")) == (0, "")  # fmt: skip


def test_the_parser_would_say_what_is_wrong() -> None:
    assert _parse(text().replace("network inet stream,", "network inet steam,"))[0] != 0
    assert _parse(text().replace("deny /sys/{,**} wkl,", "deny /sys/{,** wkl,"))[0] != 0
