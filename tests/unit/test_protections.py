"""The verdict on measured facts: real ones of both engines, each one changed, and none at all."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coding_agents.model.limits import MIB, Limits
from coding_agents.model.protection import BEST_AVAILABLE, REQUIRED
from coding_agents.sandbox.apparmor import profile_name
from coding_agents.sandbox.protections import LAYER_NAMES, LAYERS, Enforced, Evidence, Need, judge
from coding_agents.sandbox.seccomp import profile
from coding_agents.sandbox.spec import Network
from support.specs import sandbox

_DATA = Path(__file__).parent / "data" / "guest"
_ENGINES = ("docker", "podman")
_ONLY_WHEN_PLANNED = {"disk-read", "disk-write"}
_REQUIRED = {layer.name for layer in LAYERS if layer.need is Need.REQUIRED}


def _facts(which: str, mode: str = "allow-all") -> dict[str, Any]:
    facts = json.loads((_DATA / f"facts-{which}-{mode}.json").read_text())
    assert isinstance(facts, dict)
    facts["seccomp"] = profile("agent").watermark  # which changes with each change of the profile
    return facts


@pytest.mark.parametrize("which", _ENGINES)
@pytest.mark.parametrize(
    ("mode", "guard", "shown"),
    [("allow-all", [], "guarded"), ("restricted", None, "none"), ("restricted", [], "proxy")],
)
def test_real_containers_hold(which: str, mode: str, guard: list[str] | None, shown: str) -> None:
    """The last: in mode `squid` the agent's container is as in `restricted`, and its proxy's network has a guard."""
    evidence = Evidence(_facts(which, mode), sandbox(mode=Network(mode)), guard=guard, userns=False)
    verdict = judge(evidence, asked=("memory", "swap", "cpus", "pids"))
    assert verdict.violations == ()
    assert verdict.layers == {
        "user": "on",
        "capabilities": "on",
        "no-new-privileges": "on",
        "seccomp": "on",
        "read-only-root": "on",
        "mounts": "on",
        "host-paths": "on",
        "network": shown,
        "memory": "8g",
        "swap": "on",
        "cpus": "2",
        "pids": "4096",
        "disk": "absent",
        "apparmor": "absent",
        "userns": "off",
    }


Edit = Callable[[dict[str, Any]], Any]


def _process(key: str, value: object) -> Edit:
    return lambda facts: facts["process"].__setitem__(key, value)


def _fact(key: str, value: object) -> Edit:
    return lambda facts: facts.__setitem__(key, value)


def _cgroup(key: str, value: object) -> Edit:
    return lambda facts: facts["cgroup"].__setitem__(key, value)


def _options(path: str, *options: str) -> Edit:
    return lambda facts: facts["mounts"][path].__setitem__("options", list(options))


_WEAKENED: dict[str, tuple[str, str, Edit]] = {
    "root": ("user", "off", _process("Uid", [0, 0, 0, 0])),
    "root saved id": ("user", "off", _process("Uid", [1000, 1000, 0, 1000])),
    "root group": ("user", "off", _process("Gid", [1000, 0, 1000, 1000])),
    "effective capability": ("capabilities", "off", _process("CapEff", "0000000000200000")),
    "bounding capability": ("capabilities", "off", _process("CapBnd", "00000000a80425fb")),
    "new privileges": ("no-new-privileges", "off", _process("NoNewPrivs", 0)),
    "no seccomp": ("seccomp", "off", _process("Seccomp", 0)),
    "strict seccomp": ("seccomp", "off", _process("Seccomp", 1)),
    "no profile of ours": ("seccomp", "off", _fact("seccomp", 97)),
    "another profile of ours": ("seccomp", "off", _fact("seccomp", profile("ptrace").watermark)),
    "profile not asked": ("seccomp", "unknown", _fact("seccomp", None)),
    "writable root": ("read-only-root", "off", _options("/", "rw", "relatime")),
    "unplanned configuration": (
        "host-paths",
        "off",
        lambda facts: facts["mounts"].__setitem__("/opt/coding-agents-config", {}),
    ),
    "writable guest": ("mounts", "off", _options("/opt/coding-agents", "rw")),
    "programs in /run": ("mounts", "off", _options("/run", "rw", "nosuid", "nodev")),
    "devices in /tmp": ("mounts", "off", _options("/tmp", "rw", "nosuid")),
    "larger tmpfs": (
        "mounts",
        "off",
        lambda facts: facts["mounts"]["/tmp"].__setitem__("size_bytes", 1 << 50),
    ),
    "disk at /tmp": ("mounts", "off", lambda facts: facts["mounts"]["/tmp"].__setitem__("type", "ext4")),
    "host path": ("host-paths", "off", lambda facts: facts["other_mounts"].append("/host")),
    "engine socket": (
        "host-paths",
        "off",
        lambda facts: facts["other_mounts"].append("/var/run/docker.sock"),
    ),
    "no memory limit": ("memory", "off", _cgroup("memory_max", None)),
    "more memory": ("memory", "16g", _cgroup("memory_max", 16 << 30)),
    "swap": ("swap", "off", _cgroup("memory_swap_max", None)),
    "no cpu limit": ("cpus", "off", _cgroup("cpu_quota_us", None)),
    "more cpus": ("cpus", "4", _cgroup("cpu_quota_us", 400000)),
    "no process limit": ("pids", "off", _cgroup("pids_max", None)),
    "unconfined": ("apparmor", "off", lambda facts: facts.__setitem__("label", "unconfined")),
    "complain mode": (
        "apparmor",
        "off",
        lambda facts: facts.__setitem__("label", "docker-default (complain)"),
    ),
}


@pytest.mark.parametrize("which", _ENGINES)
@pytest.mark.parametrize("name", _WEAKENED)
def test_each_weakening_is_seen(which: str, name: str) -> None:
    layer, shown, edit = _WEAKENED[name]
    facts = copy.deepcopy(_facts(which))
    edit(facts)
    evidence = Evidence(facts, sandbox(), guard=[])
    verdict = judge(evidence, asked=(layer,))
    assert verdict.layers[layer] == shown
    assert any(line.startswith(f"{layer} is {shown}") for line in verdict.violations)
    unasked = judge(evidence)
    assert (layer in _REQUIRED) == any(line.startswith(layer) for line in unasked.violations)
    assert (layer in _REQUIRED) == bool(judge(evidence, asked=(layer,), best_effort=(layer,)).violations)


_OURS = profile_name("agent")


@pytest.mark.parametrize(
    ("label", "planned", "shown"),
    [
        (f"{_OURS} (enforce)", _OURS, "on"),
        (f"{_OURS} (complain)", _OURS, "off"),
        (f"{_OURS}", _OURS, "off"),
        (f"{_OURS}//&unconfined (enforce)", _OURS, "off"),
        ("coding-agents-agent-0123456789ab (enforce)", _OURS, "off"),
        (f"{profile_name('holder')} (enforce)", _OURS, "off"),
        ("docker-default (enforce)", _OURS, "off"),
        ("unconfined", _OURS, "off"),
        ("", _OURS, "absent"),
        (None, _OURS, "absent"),
        ("docker-default (enforce)", "", "engine's docker-default"),
        ("containers-default-0.50.1 (enforce)", "", "engine's containers-default-0.50.1"),
        (f"{_OURS} (complain)", "", "off"),
        ("x\x1b[2J (enforce)", "", "off"),
    ],
)
def test_apparmor_is_on_where_our_very_profile_is_in_force(
    label: str | None, planned: str, shown: str
) -> None:
    """Missing although it was planned stops the launch; missing everywhere is shown, unless somebody asked."""
    evidence = Evidence({**_facts("docker"), "label": label}, sandbox(apparmor=planned), guard=[])
    verdict = judge(evidence)
    assert verdict.layers["apparmor"] == shown
    assert bool(verdict.violations) == (bool(planned) and shown != "on")
    assert bool(judge(evidence, asked=("apparmor",)).violations) == (shown != "on")
    assert judge(evidence, asked=("apparmor",), best_effort=("apparmor",)).violations == ()


def test_the_model_names_the_same_protections_in_the_same_classes() -> None:
    assert {layer.name for layer in LAYERS if layer.need is Need.REQUIRED} == set(REQUIRED)
    assert {layer.name for layer in LAYERS if layer.need is Need.BEST_AVAILABLE} == set(BEST_AVAILABLE)


def test_an_interface_in_restricted_mode() -> None:
    facts = _facts("docker", "restricted")
    facts["interfaces"].append("eth0")
    verdict = judge(Evidence(facts, sandbox(mode=Network.RESTRICTED)))
    assert verdict.layers["network"] == "off"
    assert "eth0" in verdict.violations[0]


@pytest.mark.parametrize(("guard", "shown"), [(None, "unknown"), (["udp is open"], "off"), ([], "guarded")])
def test_the_guard_must_have_been_read_back(guard: list[str] | None, shown: str) -> None:
    verdict = judge(Evidence(_facts("docker"), sandbox(), guard=guard))
    assert verdict.layers["network"] == shown
    assert bool(verdict.violations) == (shown != "guarded")


def test_without_facts_everything_is_unknown_and_nothing_is_on() -> None:
    verdict = judge(Evidence({}, sandbox()))
    assert set(verdict.layers) == set(LAYER_NAMES) - _ONLY_WHEN_PLANNED
    assert set(verdict.layers.values()) <= {"unknown", "absent"}
    assert len(verdict.violations) == len(_REQUIRED)


def test_a_named_protection_that_does_not_exist_here() -> None:
    verdict = judge(Evidence(_facts("docker"), sandbox(), guard=[]), asked=("disk-quota",))
    assert verdict.violations == ("disk-quota is absent (this version cannot enforce it)",)


@pytest.mark.parametrize(("watched", "value"), [(True, "monitored"), (False, "absent")])
def test_a_watched_disk_is_no_quota(watched: bool, value: str) -> None:
    evidence = Evidence(_facts("docker"), sandbox(), guard=[], disk_watched=watched)
    assert judge(evidence).layers["disk"] == value
    (violation,) = judge(evidence, asked=("disk",)).violations
    assert violation.startswith(f"disk is {value} (")


def _on_its_own_disk(**changes: Any) -> Evidence:
    """Both writable volumes on the device 7:3, which is the one that holds the image."""
    facts = _facts("docker")
    for path in ("/workspace", "/home/agentuser"):
        facts["mounts"][path] |= {"device": "7:3", "type": "ext4", "size_bytes": 60 * MIB}
    for path, entry in changes.items():
        facts["mounts"][path] |= entry
    return Evidence(facts, sandbox(limits=Limits(disk_bytes=64 * MIB)), guard=[], loops=("7:3",))


def test_a_disk_of_its_own_is_a_quota() -> None:
    verdict = judge(_on_its_own_disk(), asked=("disk",))
    assert verdict.layers["disk"] == "kernel quota (ext4 on a loop device, 64m)"
    assert verdict.violations == ()


@pytest.mark.parametrize(
    ("changes", "loops", "value"),
    [
        ({"/workspace": {"device": "254:0"}}, ("7:3",), "off"),
        ({"/home/agentuser": {"device": "7:4"}}, ("7:3",), "off"),
        ({"/workspace": {"type": "overlay"}}, ("7:3",), "off"),
        ({"/workspace": {"size_bytes": 65 * MIB}}, ("7:3",), "off"),
        ({"/workspace": {"size_bytes": None}}, ("7:3",), "off"),
        ({"/workspace": {"device": ["7:3"]}}, ("7:3",), "off"),
        ({}, (), "off"),
        ({}, ("7:3", "7:4"), "off"),
    ],
)
def test_what_is_not_on_the_image_is_not_bounded(
    changes: dict[str, dict[str, Any]], loops: tuple[str, ...], value: str
) -> None:
    verdict = judge(replace(_on_its_own_disk(**changes), loops=loops), asked=("disk",))
    assert verdict.layers["disk"] == value
    assert len(verdict.violations) == 1
    assert verdict.violations[0].startswith(f"disk is {value} (")


def test_a_guest_that_does_not_tell_its_devices_has_no_quota() -> None:
    evidence = _on_its_own_disk()
    del evidence.facts["mounts"]["/workspace"]["device"]  # type: ignore[index]
    verdict = judge(evidence, asked=("disk",))
    assert verdict.layers["disk"] == "unknown"
    assert len(verdict.violations) == 1


@pytest.mark.parametrize(("direct", "shown"), [(True, "50m"), (False, "off")])
def test_a_disk_of_its_own_is_throttled_past_the_hosts_cache_alone(direct: bool, shown: str) -> None:
    evidence = _throttled(2, read_bps={"254:0": 50 * MIB}, write_bps={"254:0": 50 * MIB})
    limits = replace(evidence.spec.limits, disk_bytes=64 * MIB)
    evidence = replace(evidence, spec=replace(evidence.spec, limits=limits), direct=direct)
    layers = judge(evidence).layers
    assert (layers["disk-read"], layers["disk-write"]) == (shown, shown)


def _throttled(version: int, **rates: dict[str, int]) -> Evidence:
    facts = _facts("docker")
    facts["cgroup"] |= {"version": version, **rates}
    limits = Limits(disk_read=50 * MIB, disk_write=50 * MIB, disk_device="/dev/vda")
    return Evidence(facts, sandbox(limits=limits), guard=[])


@pytest.mark.parametrize(
    ("version", "read", "write", "shown"),
    [
        (2, {"254:0": 50 * MIB}, {"254:0": 50 * MIB}, ("50m", "50m")),
        (1, {"254:0": 50 * MIB}, {"254:0": 50 * MIB}, ("50m", "direct-only")),
        (2, {"254:0": 51 * MIB}, {}, ("off", "unknown")),
        (2, {"254:0": 50 * MIB, "254:16": 50 * MIB}, {"254:0": 1}, ("unknown", "off")),
    ],
)
def test_a_throttled_disk(
    version: int, read: dict[str, int], write: dict[str, int], shown: tuple[str, str]
) -> None:
    evidence = _throttled(version, read_bps=read, write_bps=write)
    both = ("disk-read", "disk-write")
    verdict = judge(evidence, asked=both)
    assert tuple(verdict.layers[name] for name in both) == shown
    assert len(verdict.violations) == sum(value != "50m" for value in shown)
    assert judge(evidence, asked=both, best_effort=both).violations == ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4)
    ),
    max_leaves=20,
)


@given(st.data())
def test_a_lying_guest_never_breaks_the_judge(data: st.DataObject) -> None:
    facts = copy.deepcopy(_facts("docker"))
    for key in data.draw(st.lists(st.sampled_from(sorted(facts)), min_size=1, unique=True)):
        facts[key] = data.draw(_JSON)
    verdict = judge(Evidence(facts, sandbox(), guard=[]))
    assert set(verdict.layers) == set(LAYER_NAMES) - _ONLY_WHEN_PLANNED
    assert all(value.isprintable() for value in verdict.layers.values())


# --- gVisor --------------------------------------------------------------------------------------------------

_KERNEL = "6.18.44"


def _in_gvisor(edit: Edit = lambda _facts: None, *, kernel: str = _KERNEL) -> Enforced:
    """The verdict on facts of a container of runsc 2022, with the host's account of its control groups."""
    facts = json.loads((_DATA / "facts-gvisor-restricted.json").read_text())
    edit(facts)
    spec = sandbox(mode=Network.RESTRICTED, runtime="runsc")
    return judge(Evidence(facts, spec, userns=False, kernel=kernel), asked=("memory", "swap", "cpus", "pids"))


def _kernel(key: str, value: object) -> Edit:
    return lambda facts: facts["unfiltered"].__setitem__(key, value)


def test_a_real_container_in_gvisor_holds() -> None:
    verdict = _in_gvisor()
    assert verdict.violations == ()
    assert {name for name, value in verdict.layers.items() if value == "on"} == {
        "user", "capabilities", "no-new-privileges", "read-only-root", "mounts", "host-paths", "swap",
    }  # fmt: skip
    shown = {
        name: verdict.layers[name] for name in ("seccomp", "network", "memory", "cpus", "pids", "apparmor")
    }
    assert shown == {
        "seccomp": "old-gvisor", "network": "none", "memory": "8g", "cpus": "2", "pids": "4096", "apparmor": "absent",
    }  # fmt: skip
    assert _in_gvisor(_kernel("statx", True)).layers["seccomp"] == "gvisor"


@pytest.mark.parametrize(
    ("layer", "edit"),
    [
        ("seccomp", lambda facts: facts.pop("unfiltered")),
        ("seccomp", _kernel("log", "")),
        ("seccomp", _kernel("log", "<6>[    0.000000] Linux version 6.1\nStarting gVisor...\n")),
        ("seccomp", _kernel("log", 1)),
        ("seccomp", _kernel("release", _KERNEL)),
        ("seccomp", _kernel("release", None)),
        ("no-new-privileges", _kernel("no_new_privs", 0)),
        ("no-new-privileges", _kernel("no_new_privs", None)),
        ("capabilities", _process("CapEff", "0000000000200000")),
        ("capabilities", _process("CapAmb", "0000000000200000")),
        ("capabilities", lambda facts: facts["process"].pop("CapBnd")),
        ("mounts", _options("/run", "rw")),
        ("mounts", lambda facts: facts["mounts"]["/tmp"].__setitem__("size_bytes", 1 << 50)),
        ("read-only-root", _options("/", "rw")),
        ("host-paths", lambda facts: facts["other_mounts"].append("/host")),
        ("network", _fact("interfaces", ["lo", "eth0"])),
        ("memory", _fact("cgroup", {})),
        ("pids", _cgroup("pids_max", None)),
    ],
)
def test_what_is_missing_in_gvisor_is_found(layer: str, edit: Edit) -> None:
    assert layer in {line.split()[0] for line in _in_gvisor(edit).violations}


def test_a_container_without_a_filter_is_not_excused_by_a_kernel_that_nobody_asked_for() -> None:
    facts = json.loads((_DATA / "facts-gvisor-restricted.json").read_text())
    verdict = judge(Evidence(facts, sandbox(mode=Network.RESTRICTED), kernel=_KERNEL))
    assert {"seccomp", "no-new-privileges", "capabilities", "mounts"} <= {
        line.split()[0] for line in verdict.violations
    }
