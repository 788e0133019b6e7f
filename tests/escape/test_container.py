"""A hostile agent attacks its container from inside: files, privileges, processes, secrets, limits.

What it tries is in `coding_agents.attacks`; here the host judges what the kernel answered, and looks for itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents.attacks import files, kernel, privileges, processes, resources
from coding_agents.attacks import secrets as secrets_inside
from coding_agents.channel.pyz import build_guest_pyz
from coding_agents.model.limits import GIB, MIB, parse_size
from coding_agents.sandbox.guest import guest_argv
from support.escape import DENIED, SOCKETS, Captive, capture, denied, fresh_repo, host_answers
from support.product import Product, git, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.escape]

SOCKET_DIRECTORY = "/run/coding-agents"
# Files can be made below these mount points and nowhere else.
WRITABLE = {"/workspace", "/home/agentuser", "/tmp", "/var/tmp", SOCKET_DIRECTORY, "/dev/shm", "/dev/mqueue"}
# Their numbers are the kernel's (Documentation/admin-guide/devices.txt): none leads to hardware or a disk.
DEVICES = {
    "/dev/full": "1:7",
    "/dev/null": "1:3",
    "/dev/random": "1:8",
    "/dev/urandom": "1:9",
    "/dev/zero": "1:5",
    "/dev/tty": "5:0",
    "/dev/pts/ptmx": "5:2",
}
# Anybody may watch the load, and what is written there is a threshold of one's own (PSI, psi.rst).
HARMLESS = {"/proc/pressure/cpu", "/proc/pressure/io", "/proc/pressure/memory", "/proc/pressure/irq"}
KERNEL_FILE_SYSTEMS = {"proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"}
ENGINE_FILES = {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/run/.containerenv"}
SECRET = f"canary-{secrets.token_hex(12)}"


@pytest.fixture(scope="module")
def captive(owner: Product) -> Iterator[Captive]:
    """A session of a user with secrets everywhere, for attacks after which it must be as before."""
    plant_secrets(owner)
    repo = fresh_repo(owner, files={"decoy.txt": f"decoy-{SECRET[::-1]}\n", "README.md": "hello\n"})
    git(repo, "remote", "add", "origin", f"https://ann:{SECRET}@git.example.invalid/shop.git")
    git(repo, "config", "http.https://git.example.invalid/.extraHeader", f"Authorization: Bearer {SECRET}")
    session = capture(owner, repo)
    yield session
    owner.run("remove", "--force", session.name, status=None)


@pytest.fixture
def victim(owner: Product) -> Iterator[Captive]:
    """A small session of one test, which may be broken."""
    session = capture(owner, fresh_repo(owner), "--pids", "100", "--memory", "256m", "--cpu", "1")
    yield session
    owner.run("remove", "--force", session.name, status=None)


def plant_secrets(owner: Product) -> None:
    """The canary at every place where users keep what must not get into a container."""
    files = {
        ".gitconfig": (
            "[user]\n\tname = Ann\n\temail = ann@example.invalid\n"
            f'[url "https://x:{SECRET}@h.example.invalid/"]\n\tinsteadOf = h:\n'
        ),
        ".netrc": f"machine git.example.invalid login ann password {SECRET}\n",
        ".git-credentials": f"https://ann:{SECRET}@git.example.invalid\n",
        ".ssh/id_ed25519": SECRET,
        ".aws/credentials": f"[default]\naws_secret_access_key = {SECRET}\n",
        ".docker/config.json": f'{{"proxies": {{"default": {{"httpProxy": "http://u:{SECRET}@proxy:1"}}}}}}',
        ".config/gh/hosts.yml": f"oauth_token: {SECRET}\n",
    }
    for name, content in files.items():
        (owner.home / name).parent.mkdir(parents=True, exist_ok=True)
        (owner.home / name).write_text(content)
    owner.extra.update(
        {
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "ANTHROPIC_API_KEY": SECRET,
            "GITHUB_TOKEN": SECRET,
            "HTTPS_PROXY": f"http://u:{SECRET}@127.0.0.1:9",
            "SOME_VARIABLE": SECRET,
        }
    )


# --- files ---------------------------------------------------------------------------------------------------


def test_nothing_can_be_made_outside_the_writable_mounts(captive: Captive) -> None:
    assert set(captive.attack(files.writable_mounts)) == WRITABLE


def test_every_directory_of_the_root_is_on_a_read_only_file_system(captive: Captive) -> None:
    refusals = captive.attack(files.refusals_in_the_root)
    assert set(refusals) == {"EROFS"}  # for EACCES would leave it to the owner of each directory
    assert refusals["EROFS"] > 100


def test_no_program_gives_privileges(captive: Captive) -> None:
    assert captive.attack(files.privileged_files) == []


def test_only_harmless_devices_and_our_sockets_exist(captive: Captive) -> None:
    found = captive.attack(files.sockets_and_devices)
    assert found["socket"] == [f"{SOCKET_DIRECTORY}/{name}" for name in SOCKETS]  # no engine's, above all
    assert found["block"] == []
    devices = dict(entry.rsplit(" ", 1) for entry in found["character"])
    masks = {path for path, number in devices.items() if path.startswith("/proc/") and number == "1:3"}
    assert {path: number for path, number in devices.items() if path not in masks} == DEVICES


def test_no_device_can_be_made(captive: Captive) -> None:
    answers = captive.attack(
        files.make_devices, ["/tmp", "/workspace", "/home/agentuser", "/dev/shm", "/dev"]
    )
    assert denied(answers) == {}


def test_the_kernels_files_are_closed(captive: Captive) -> None:
    assert set(captive.attack(files.open_for_writing, ["/proc", "/sys"])) <= HARMLESS
    options = {one["point"]: set(one["options"].split(",")) for one in captive.attack(files.mounts)}
    for path in ("/sys", "/proc/sys"):
        assert "ro" in options[path], path
    masked = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
    ]
    assert set(captive.attack(files.masked_bytes, masked).values()) == {0}


def test_no_host_path_is_mounted(captive: Captive) -> None:
    record, inspected = captive.product.session(captive.name), captive.inspect()
    volumes = {
        "/workspace": record["volumes"]["workspace"],
        "/home/agentuser": record["volumes"]["home"],
        "/opt/coding-agents": record["guest_volume"],
    }
    for mount in captive.attack(files.mounts):
        root, point = mount["root"], mount["point"]
        if point in volumes:
            assert root.endswith(f"/volumes/{volumes[point]}/_data"), mount
            assert point != "/opt/coding-agents" or "ro" in mount["options"].split(","), mount
        elif point in ENGINE_FILES:
            assert inspected["Id"] in root, mount
        elif point.startswith("/proc/") and mount["type"] in ("tmpfs", "devtmpfs"):
            assert root in ("/", "/null"), mount  # a mask: an empty directory, or /dev/null
        else:
            assert root == "/" or mount["type"] in KERNEL_FILE_SYSTEMS, mount
            assert mount["type"] in {*KERNEL_FILE_SYSTEMS, "tmpfs", "overlay"}, mount


def test_scratch_space_has_its_sizes_and_no_more(captive: Captive) -> None:
    wanted = {
        "/tmp": 2 * GIB,
        "/var/tmp": GIB,
        "/run": 16 * MIB,
        SOCKET_DIRECTORY: MIB,
        "/dev/shm": GIB,
    }
    assert captive.attack(files.sizes, sorted(wanted)) == wanted
    assert captive.attack(files.fill, SOCKET_DIRECTORY) <= MIB
    captive.assert_saves()


# --- privileges ----------------------------------------------------------------------------------------------


def test_no_process_has_a_capability(captive: Captive) -> None:
    """PID 1, the agent, the bridge, and what `exec` starts; also by the engine's own exec without the gate."""
    for found in (captive.attack(privileges.statuses), captive.attack_behind_the_gate(privileges.statuses)):
        assert {status["Uid"].split()[0] for status in found} == {"1000", "1002"}
        for status in found:
            sets = {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
            assert sets == {"0000000000000000"}, status
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), status
            assert len(set(status["Uid"].split() + status["Gid"].split())) == 1, status


def test_nobody_becomes_root(captive: Captive) -> None:
    answers = captive.attack(privileges.become_root)
    assert all(answers.values()), answers
    assert {status["Uid"].split()[1] for status in captive.attack(privileges.statuses)} == {"1000", "1002"}


def test_no_way_out_by_namespaces_mounts_or_the_kernel(captive: Captive) -> None:
    assert denied(captive.attack(kernel.leave_the_container)) == {}


def test_the_kernels_young_and_large_parts_are_closed(captive: Captive) -> None:
    answers = captive.attack(kernel.reach_the_kernel)
    assert {name: answer for name, answer in answers.items() if answer not in (*DENIED, "EAFNOSUPPORT")} == {}
    assert len(answers) >= 20


def test_other_abis_end_the_program(captive: Captive) -> None:
    assert captive.attack(kernel.call_by_another_abi) == ["SIGSYS", "SIGSYS"]


def test_no_user_namespace_can_be_made(captive: Captive) -> None:
    answers = captive.attack(kernel.use_a_user_namespace)
    assert set(answers.values()) == {"EPERM"}
    assert captive.is_alive()
    assert len(captive.attack(processes.pids_of, 1002)) == 1


# --- processes -----------------------------------------------------------------------------------------------


def test_the_first_process_and_the_bridge_cannot_be_read_or_traced(captive: Captive) -> None:
    (bridge,) = captive.attack(processes.pids_of, 1002)
    for pid in (1, bridge):
        answers = captive.attack(processes.attack_process, pid)
        assert denied(answers) == {}, (pid, answers)


def test_the_first_process_and_the_bridge_cannot_be_killed(captive: Captive) -> None:
    (bridge,) = captive.attack(processes.pids_of, 1002)
    killing = [int(number) for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGABRT)]
    captive.attack(processes.signal_process, 1, killing)  # the kernel takes them, and they do nothing
    assert captive.attack(processes.signal_process, bridge, killing) == ["EPERM"] * len(killing)
    assert captive.attack(processes.pids_of, 1002) == [bridge]
    assert captive.is_alive()
    captive.assert_saves()


def test_the_sockets_cannot_be_replaced(captive: Captive) -> None:
    def look() -> str:
        return captive.as_root("stat", "-c", "%n %i %u %a %F", SOCKET_DIRECTORY, *paths)

    paths = [f"{SOCKET_DIRECTORY}/{name}" for name in SOCKETS]
    before = look()
    for name in SOCKETS:
        answers = captive.attack(files.replace_in, SOCKET_DIRECTORY, name)
        assert all(answers.values()), answers
    assert look() == before
    captive.assert_saves()


def test_the_guests_program_cannot_be_changed(captive: Captive) -> None:
    answers = captive.attack(files.replace_in, "/opt/coding-agents", "guest.pyz")
    assert all(answers.values()), answers
    wanted = hashlib.sha256(build_guest_pyz()).hexdigest()
    assert captive.guest_digest() == wanted
    assert captive.product.session(captive.name)["guest_volume"].startswith(
        f"coding-agents-guest-{wanted[:12]}"
    )


# --- secrets -------------------------------------------------------------------------------------------------


def test_no_secret_of_the_host_gets_in(captive: Captive) -> None:
    decoys = captive.attack(secrets_inside.find_text, f"decoy-{SECRET[::-1]}"[::-1])
    assert "/workspace/decoy.txt" in decoys  # the search finds what is there
    assert captive.attack(secrets_inside.find_text, SECRET[::-1]) == []


def test_the_engines_account_of_the_session_holds_no_secret(captive: Captive) -> None:
    record = captive.product.session(captive.name)
    shown = captive.product.engine_run("inspect", captive.name)
    for volume in (record["volumes"]["workspace"], record["volumes"]["home"], record["guest_volume"]):
        shown += captive.product.engine_run("volume", "inspect", volume)
    assert SECRET not in shown
    assert record["id"] in shown


def test_the_environment_is_ours_alone(captive: Captive) -> None:
    inside = captive.product.exec(captive.name, "env | cut -d= -f1").out.split()
    proxies = {
        one
        for name in ("http", "https", "ftp", "no", "all")
        for one in (f"{name}_proxy", f"{name}_PROXY".upper())
    }
    known = {"HOME", "LANG", "PATH", "PWD", "HOSTNAME", "TERM", "container", "SHLVL", "_", "OLDPWD"}
    assert set(inside) <= known | proxies | {name.upper() for name in proxies}
    values = captive.product.exec(captive.name, "env | grep -i _proxy= | cut -d= -f2-").out.split()
    assert values == []


# --- metadata ------------------------------------------------------------------------------------------------


def test_the_engine_was_asked_for_every_wall(captive: Captive) -> None:
    inspected = captive.inspect()
    host, config = inspected["HostConfig"], inspected["Config"]
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["NetworkMode"] == "none"
    assert not host["Binds"] or all(
        bind.split(":")[0].startswith(("demo-", "coding-agents-guest-")) for bind in host["Binds"]
    )
    assert not host["Devices"]
    assert not host["PortBindings"]
    assert host["RestartPolicy"]["Name"] in ("no", "")
    assert any("no-new-privileges" in option for option in host["SecurityOpt"])
    assert config["User"] == "1000:1000"
    assert {mount["Type"] for mount in inspected["Mounts"]} <= {"volume", "tmpfs"}
    assert (inspected["Path"], *inspected["Args"]) == guest_argv(captive.guest_digest(), "entrypoint")


def test_labels_and_names_are_the_documented_ones(captive: Captive) -> None:
    record = captive.product.session(captive.name)
    wanted = {
        "session": record["id"],
        "nonce": record["nonce"],
        "agent": "demo",
        "repo": captive.repo.name,
        "repo-path": str(captive.repo),
        "branch": "demo/session-1",
        "network-policy": "restricted",
    }
    assert captive.name == f"demo-{captive.repo.name}-session-1"
    volumes = {use: volume for use, volume in record["volumes"].items() if volume}
    assert volumes == {"workspace": f"{captive.name}-workspace", "home": f"{captive.name}-home"}
    made = [("agent", captive.inspect()["Config"]["Labels"])]
    for volume in volumes.values():
        shown = captive.product.engine_run("volume", "inspect", volume, "--format", "{{json .Labels}}")
        made.append(("volume", json.loads(shown)))
    for kind, labels in made:
        ours = {
            key.removeprefix("coding-agents."): value
            for key, value in labels.items()
            if key.startswith("coding-agents.")
        }
        assert ours.pop("version")
        ours.pop("inputs", None)  # the image's own
        assert ours == {**wanted, "type": kind}


# --- limits --------------------------------------------------------------------------------------------------


def test_limits_are_what_the_banner_says(captive: Captive) -> None:
    line = re.search(
        r"^limits +cpus (\S+), memory (\S+), swap on, pids (\S+), disk monitored$",
        captive.launched.err,
        re.MULTILINE,
    )
    assert line is not None, captive.launched.err
    measured = captive.attack(resources.limits)
    assert measured["memory"] == parse_size(line[2])
    assert measured.get("swap", 0) == 0
    assert measured.get("memory and swap", measured["memory"]) == measured["memory"]
    assert measured["pids"] == int(line[3])
    assert measured["cpu quota"] == float(line[1]) * measured["cpu period"]


def test_floods_of_processes_and_of_descriptors_stay_inside(victim: Captive) -> None:
    """Of descriptors as many as the hard limit allows, in many processes; they are charged to the session's memory."""
    with host_answers(victim.product.home):
        bomb = victim.attack(resources.bomb, 1000, 3.0)
        hard = victim.attack(resources.rlimits)["files"][1]
        flood = victim.attack(resources.flood_descriptors, 40, 3.0)
    assert bomb["refused"] == "EAGAIN"
    assert 20 < int(str(bomb["children"])) < 100
    assert "EMFILE" in flood["refused"]
    assert set(flood["refused"]) <= {"EMFILE", "ENOMEM", "killed"}
    assert 1000 < max(int(str(count)) for count in flood["opened"]) < hard <= 16384
    victim.assert_saves()


def test_an_agent_that_is_a_fork_bomb_still_gives_its_work_back(owner: Product) -> None:
    bomb = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n"
    session = capture(
        owner, fresh_repo(owner), *("--pids", "64", "--memory", "256m", "--cpu", "0.5"),
        script=f"echo work > work.txt; exec timeout 60 python3 -c '{bomb}'",
    )  # fmt: skip
    session.stop()
    assert session.returned("work.txt") == "work"


def test_memory_beyond_the_limit_is_refused_and_the_work_comes_back(victim: Captive) -> None:
    victim.product.exec(victim.name, "echo work > work.txt")
    code = "held = [b'x' * (1 << 24) for _ in range(64)]; print('has it all')"
    with host_answers(victim.product.home):
        greedy = victim.product.exec(victim.name, f'python3 -c "{code}"', status=None)
    assert "has it all" not in greedy.out
    assert greedy.status in (137, 1)  # killed, or told that there is no more
    victim.product.run("stop", victim.name, status=None)
    assert victim.returned("work.txt") == "work"


@pytest.mark.alike
def test_a_flood_of_output_is_bounded(owner: Product) -> None:
    session = capture(
        owner, fresh_repo(owner),
        script="echo work > work.txt; head -c 60000000 /dev/zero | tr '\\0' x | fold -w 199; touch flooded; sleep 3000",
    )  # fmt: skip
    with host_answers(owner.home):
        wait_for(lambda: owner.exec(session.name, "test -e flooded", status=None).status == 0, "the flood")
    inspected = session.inspect()
    path = Path(inspected.get("LogPath") or inspected["HostConfig"]["LogConfig"]["Path"])
    kept = sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))
    assert 0 < kept <= 3 * 10 * MIB + MIB
    owner.run("remove", "--force", session.name)
    assert git(session.repo, "show", "demo/session-1:work.txt") == "work"


# --- when things break ---------------------------------------------------------------------------------------


@pytest.mark.alike
def test_an_agent_that_kills_everything_only_ends_its_session(victim: Captive) -> None:
    victim.product.exec(victim.name, "echo work > work.txt")
    victim.product.exec(victim.name, "kill -9 -1", status=None)
    wait_for(lambda: victim.product.state(victim.name) == "stopped", "the end of the session")
    assert victim.returned("work.txt") == "work"


@pytest.mark.alike
def test_a_starved_first_process_costs_no_work(victim: Captive) -> None:
    """The kernel lets a process take resources from another of its uid; the host then salvages."""
    victim.product.exec(victim.name, "echo work > work.txt")
    assert victim.attack(processes.starve_process, 1) == ""
    victim.stop()
    assert victim.returned("work.txt") == "work"


@pytest.mark.alike
def test_a_dead_supervisor_leaves_no_name_to_squat_and_no_work_behind(victim: Captive) -> None:
    """Its bridge ends with it, the sockets stay the bridge's; the next verb brings a new supervisor."""
    victim.product.exec(victim.name, "echo work > work.txt")
    os.kill(victim.supervisor_pid(), signal.SIGKILL)
    wait_for(lambda: not victim.attack_behind_the_gate(processes.pids_of, 1002), "the end of the bridge")
    answers = victim.attack_behind_the_gate(processes.squat, SOCKET_DIRECTORY, list(SOCKETS), 0.5)
    assert answers == ["EADDRINUSE"] * len(SOCKETS)
    victim.stop()
    assert victim.returned("work.txt") == "work"


@pytest.mark.alike
def test_a_dead_supervisor_and_no_process_id_left_cost_no_work(owner: Product) -> None:
    hold = (
        "import os, time\nwhile True:\n    try:\n        os.fork() or time.sleep(300)\n"
        "    except OSError:\n        time.sleep(0.05)\n"
    )
    session = capture(
        owner, fresh_repo(owner), "--pids", "64", script=f"echo work > work.txt; exec python3 -c '{hold}'"
    )
    forking = "/bin/true; echo forked"
    wait_for(
        lambda: "forked" not in owner.exec(session.name, forking, status=None).out, "the last process id"
    )
    os.kill(session.supervisor_pid(), signal.SIGKILL)
    session.stop()
    assert session.returned("work.txt") == "work"


def test_a_restarted_container_is_shut_until_it_was_measured_again(victim: Captive) -> None:
    product, name = victim.product, victim.name
    product.engine_run("restart", name)
    refused = product.exec(name, "echo inside", status=125)
    assert refused.out == ""
    assert "its gate is closed" in refused.err
    product.run("start", name)
    assert product.exec(name, "echo inside").out == "inside\n"
    victim.assert_saves()
