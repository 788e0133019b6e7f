"""AppArmor and cgroup v2 for real: the profiles are loaded, in force, and stop what nothing else does; limits bite.

In this order: sessions can have the profiles only after `doctor --fix`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from coding_agents.sandbox.apparmor import installed_path, profile_name
from support.cgroup2 import Group, group_of, label_of
from support.product import Product

pytestmark = pytest.mark.engine

LIMITS = ("--memory", "256m", "--pids", "120", "--cpu", "1", "--disk-read", "4m", "--disk-write", "4m")
_LAYERS = {"apparmor": "on", "memory": "256m", "swap": "on", "pids": "120", "cpus": "1", "disk-read": "4m",
           "disk-write": "4m"}  # fmt: skip
# Root with every capability and no filter of system calls: whatever is refused, the profile refuses.
_BARE = ("--rm", "--network=none", "--user=0:0", "--cap-add=ALL", "--security-opt=seccomp=unconfined")
_ATTACKS = """
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *given):
    if getattr(libc, name)(*given) == -1: raise OSError(ctypes.get_errno(), name)
def write(path, text):
    with open(path, "w") as file: file.write(text)
tries = {
    "work": lambda: write("/tmp/x", "x"),
    "mount": lambda: call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "remount": lambda: call("mount", b"none", b"/proc/sys", None, 32 | 4096, None),
    "umount": lambda: call("umount2", b"/dev/mqueue", 2),
    "write the root": lambda: write("/etc/x", "x"),
    "write /proc/sys": lambda: write("/proc/sys/net/ipv4/ip_forward", "1"),
    "core pattern": lambda: write("/proc/sys/kernel/core_pattern", "core"),
    "write /sys": lambda: write("/sys/kernel/mm/ksm/pages_to_scan", "100"),
    "kernel symbols": lambda: open("/proc/kallsyms").read(1),
    "sysrq": lambda: write("/proc/sysrq-trigger", "h"),
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "host name": lambda: socket.sethostname("hostile"),
    "device": lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)),
    "owner": lambda: os.chown("/tmp/x", 1, 1),
}
answers = {}
for name, attempt in tries.items():
    try: attempt()
    except OSError as error: answers[name] = errno.errorcode[error.errno]
    else: answers[name] = ""
print(json.dumps(answers))
"""
# As the agent, in a session: what all our other walls let through, and the profile does not.
_ONLY_APPARMOR = """
import errno, json
answers = {}
for path, mode in (("/proc/kallsyms", "r"), ("/proc/key-users", "r"), ("/proc/self/loginuid", "r+")):
    try:
        with open(path, mode) as file:
            if mode == "r+": file.write("1000")
    except OSError as error: answers[path] = errno.errorcode[error.errno]
    else: answers[path] = ""
print(json.dumps(answers))
"""
_FORKS = """
import os, signal
made = []
try:
    while len(made) < 200:
        made.append(os.fork())
        if made[-1] == 0: signal.pause()
except OSError as error:
    print(len(made), error.errno)
for one in made: os.kill(one, 9)
"""
_BUSY = """
import os, time
children, end = [os.fork() for _ in range(2)], time.monotonic() + 6
while time.monotonic() < end: pass
if all(children):
    for one in children: os.waitpid(one, 0)
    print(sum(os.times()[:4]))
"""
# 24 MiB written through the page cache, and read past it: the seconds of each.
_DISK = """
import mmap, os, time
start = time.monotonic()
with open("f", "wb") as file:
    for _ in range(24): file.write(b"x" * (1 << 20))
    file.flush(); os.fsync(file.fileno())
print(time.monotonic() - start)
page, start = mmap.mmap(-1, 1 << 20), time.monotonic()
direct = os.open("f", os.O_RDONLY | os.O_DIRECT)
while os.readv(direct, [page]): pass
print(time.monotonic() - start)
"""


def test_the_machine_is_what_this_is_for() -> None:
    assert Path("/sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"
    assert Path("/sys/fs/cgroup/cgroup.controllers").is_file()


def test_doctor_loads_the_profiles(product: Product, repo: Path) -> None:
    if product.engine == "docker":  # the first of the engines: for both it is one kernel
        refused = product.launch(repo, "--", "true", status=125, env=_requiring(product))
        assert "coding-agents doctor --fix" in refused.err
        done = product.run("doctor", "--fix", "-y", "--json", status=None)
        assert f"apparmor_parser -r -W {installed_path()}" in done.err
        assert {one["id"]: one for one in done.json["checks"]}["apparmor"] == {
            "id": "apparmor", "status": "ok", "detail": f"our profile {profile_name('agent')} is loaded", "fix": "",
        }  # fmt: skip
    enforced = Path("/sys/kernel/security/apparmor/profiles").read_text().splitlines()
    assert {f"{profile_name(kind)} (enforce)" for kind in ("agent", "holder")} <= set(enforced)


def test_the_profile_alone_stops_what_root_would_do(product: Product) -> None:
    free = _bare(product, "unconfined")
    assert {name for name, answer in free.items() if answer} <= {"write /proc/sys", "sysrq", "core pattern",
            "write /sys", "remount"}, free  # fmt: skip
    held = _bare(product, profile_name("agent"))
    assert held.pop("work") == ""
    assert {name for name, answer in held.items() if answer not in ("EACCES", "EPERM", "EROFS")} == set(), (
        held
    )


@pytest.fixture(scope="module", params=["restricted", "allow-all"])
def session(request: pytest.FixtureRequest, product: Product, repo: Path) -> Iterator[dict[str, object]]:
    """A session with limits, which is refused where our profile is not in force."""
    argv = ("launch", str(repo), "--agent", "demo", "-d", "--json", "--network-proxy", request.param)
    launched = product.run(*argv, *LIMITS, "--", "sleep", "3000", env=_requiring(product))
    yield launched.json
    product.run("remove", "--force", launched.json["name"])


def test_a_session_has_all_that_was_asked_for(product: Product, session: dict[str, object]) -> None:
    enforced = session["enforced"]
    assert isinstance(enforced, dict)
    assert {name: enforced.get(name) for name in _LAYERS} == _LAYERS


def test_each_process_is_under_our_profile(product: Product, session: dict[str, object]) -> None:
    record = product.session(str(session["name"]))
    for kind, container in (("agent", record["container_id"]), ("holder", record["holder_id"])):
        if container:
            labels = {label_of(pid) for pid in _group(product, container).processes()}
            assert labels == {f"{profile_name(kind)} (enforce)"}
    assert bool(record["holder_id"]) == (session["network"] == "allow-all")


def test_a_session_is_refused_what_only_the_profile_refuses(
    product: Product, session: dict[str, object]
) -> None:
    name = str(session["name"])
    done = product.run("exec", name, "--", "python3", "-c", _ONLY_APPARMOR).json
    assert set(done.values()) == {"EACCES"}, done


@pytest.mark.parametrize("session", ["restricted"], indirect=True)
def test_memory_and_swap_end_who_takes_more(product: Product, session: dict[str, object]) -> None:
    group = _group_of(product, session)
    assert (group.text("memory.max"), group.text("memory.swap.max")) == (str(256 << 20), "0")
    before = group.table("memory.events")["oom_kill"]
    name = str(session["name"])
    ended = product.run("exec", name, "--", "python3", "-c", "b'x' * (400 << 20)", status=None)
    assert ended.status != 0
    assert group.table("memory.events")["oom_kill"] > before
    assert int(group.text("memory.swap.current")) == 0
    assert len(Path("/proc/swaps").read_text().splitlines()) > 1  # there was where to go


@pytest.mark.parametrize("session", ["restricted"], indirect=True)
def test_processes_are_counted(product: Product, session: dict[str, object]) -> None:
    group = _group_of(product, session)
    assert group.text("pids.max") == "120"
    said = product.run("exec", str(session["name"]), "--", "python3", "-c", _FORKS).out.split()
    assert said[1] == "11"  # EAGAIN
    assert int(said[0]) <= 120
    assert group.table("pids.events")["max"] > 0


@pytest.mark.parametrize("session", ["restricted"], indirect=True)
def test_time_is_shared_out(product: Product, session: dict[str, object]) -> None:
    group = _group_of(product, session)
    assert group.text("cpu.max") == "100000 100000"
    used = float(product.run("exec", str(session["name"]), "--", "python3", "-c", _BUSY).out)
    assert used < 6 * 1.3  # three of four busy processes: of two whole processors they would have 9 s
    assert group.table("cpu.stat")["nr_throttled"] > 10


@pytest.mark.parametrize("session", ["restricted"], indirect=True)
def test_the_disk_is_slowed_down_with_and_without_the_page_cache(
    product: Product, session: dict[str, object]
) -> None:
    """Version 2 knows who wrote what is flushed later, so buffered writes are throttled, too."""
    group = _group_of(product, session)
    (line,) = group.text("io.max").splitlines()
    assert line.split()[1:3] == ["rbps=4194304", "wbps=4194304"]
    wrote, read = product.run("exec", str(session["name"]), "--", "python3", "-c", _DISK).out.split()
    assert float(wrote) > 4
    assert float(read) > 4


def _requiring(product: Product) -> dict[str, str]:
    """The user's settings ask for our profile."""
    place = product.home / ".config/coding-agents"
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.toml").write_text("[require]\napparmor = true\n")
    return {}


def _bare(product: Product, profile: str) -> Mapping[str, str]:
    said = product.engine_run(
        *("run", *_BARE, f"--security-opt=apparmor={profile}", "coding-agents-base:local"),
        *("python3", "-c", _ATTACKS),
    )
    answers: Mapping[str, str] = json.loads(said)
    return answers


def _group(product: Product, container: object) -> Group:
    return group_of(int(product.engine_run("inspect", "--format", "{{.State.Pid}}", str(container))))


def _group_of(product: Product, session: Mapping[str, object]) -> Group:
    return _group(product, product.session(str(session["name"]))["container_id"])
