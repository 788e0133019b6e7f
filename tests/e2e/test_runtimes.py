"""Sessions in other runtimes than the engine's own: crun as runc, and gVisor with a kernel of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from coding_agents.attacks import kernel
from model_stub.server import serving
from support.engines import EngineUnderTest
from support.escape import attack_argv
from support.product import Product, git, wait_for

pytestmark = pytest.mark.engine

LAUNCH_S = 60.0  # gVisor is known to hang where its platform does not suit the machine
LIMITS = ("--memory", "768m", "--pids", "2000", "--cpu", "1")
# What the agent's user can do to what the host believes inside: the sockets that it connects to, and the bridge.
TAMPER = """
import json, os
def tried(act, *words):
    try:
        act(*words)
        return "done"
    except OSError as error:
        return type(error).__name__
place = "/run/coding-agents"
found = {}
for name in sorted(os.listdir(place)):
    path = f"{place}/{name}"
    found[name] = [tried(os.unlink, path), tried(os.rename, path, f"{path}2"), tried(os.chmod, path, 0)]
of_bridge = [p for p in os.listdir("/proc") if p.isdigit() and os.stat(f"/proc/{p}").st_uid == 1002]
found["bridge"] = [tried(os.kill, int(p), 9) for p in of_bridge]
found["memory"] = [tried(open, f"/proc/{p}/mem", "rb") for p in [*of_bridge, "1"]]
found["interfaces"] = sorted(name for _, name in __import__("socket").if_nameindex())
print(json.dumps(found))
"""


def require_runtime(product: Product, name: str) -> None:
    """Skip where the runtime is not installed. The engines of the tests have it where it is (tools/test-engine)."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    if os.environ.get("CODING_AGENTS_TEST_DOCKER_HOST") and name not in product.engine_run("info"):
        pytest.skip(f"this Docker does not know {name}")


def limits_on_the_host(product: Product, name: str) -> dict[str, Any]:
    """What holds for the container's first process, by the kernel of this machine."""
    pid, container = product.engine_run("inspect", "-f", "{{.State.Pid}} {{.Id}}", name).split()
    groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    found = {}
    for controllers, path in ((one[1], one[2]) for one in groups if container in one[2]):
        for controller in controllers.split(",") if controllers else ("",):
            for file in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us"):
                place = Path("/sys/fs/cgroup", controller, path.lstrip("/"), file)
                if place.is_file():
                    found[file.split(".")[0]] = int(place.read_text())
    return found


def test_gvisor_runs_a_whole_session(product: Product, repo: Path) -> None:
    require_runtime(product, "runsc")
    args = ("-d", "--runtime", "runsc", *LIMITS, "--json")
    script = "echo c > c.txt; git add c.txt; git commit -qm mine; echo u > u.txt; sleep 600"
    launched = product.launch(repo, *args, "--", "sh", "-c", script, timeout_s=LAUNCH_S).json
    name, enforced = launched["name"], launched["enforced"]
    assert launched["runtime"] == "runsc"
    assert enforced["seccomp"] in ("gvisor", "old-gvisor")
    assert {key: enforced[key] for key in ("network", "memory", "pids", "cpus", "swap")} == {
        "network": "none", "memory": "768m", "pids": "2000", "cpus": "1", "swap": "on",
    }  # fmt: skip
    assert limits_on_the_host(product, name) == {"memory": 768 << 20, "pids": 2000, "cpu": 100_000}
    assert product.exec(name, "uname -r").out != os.uname().release + "\n"

    tampered = json.loads(product.run("exec", name, "--", "python3", "-c", TAMPER).out)
    assert tampered.pop("interfaces") == ["lo"]
    assert {"events.sock", "relay.sock", "bridge", "memory"} <= tampered.keys()
    assert {one for tries in tampered.values() for one in tries} == {"PermissionError"}

    # Its kernel lets anybody make a namespace of users, in which one is root of nothing that counts.
    attack = attack_argv(kernel.use_a_user_namespace)
    answers = json.loads(product.run("exec", name, "--", *attack).out)
    kept = ("make a file", "remove a socket", "end the bridge", "trace the first process", "the host's name")
    assert {answers[one] for one in kept} <= {"EPERM", "EROFS"}, answers

    # Killed from outside, after which Docker's clients in it do not end by themselves.
    wait_for(lambda: "u.txt" in product.exec(name, "ls").out, "the uncommitted file")
    os.kill(int(product.engine_run("inspect", "-f", "{{.State.Pid}}", name)), signal.SIGKILL)
    product.run("wait", name, status=None, timeout_s=LAUNCH_S)
    branch = product.session(name)["branch"]
    assert {"c.txt", "u.txt"} <= set(git(repo, "ls-tree", "--name-only", branch).split())


@pytest.mark.slow
def test_gvisor_stops_and_starts(product: Product, repo: Path) -> None:
    require_runtime(product, "runsc")
    name = product.launch_detached(repo, "sleep 600", "--runtime", "runsc")
    product.exec(name, "echo first > first.txt")
    product.run("stop", name, timeout_s=LAUNCH_S)
    product.run("start", name, timeout_s=LAUNCH_S)
    product.exec(name, "test -s first.txt && echo later > later.txt")
    # Restarted by others it waits at its gate.
    product.engine_run(*gvisors_flags(product), "restart", "--time", "5", name)
    assert "gate is closed" in product.exec(name, "true", status=125).err
    product.run("start", name, timeout_s=LAUNCH_S)
    product.run("stop", name, timeout_s=LAUNCH_S)
    assert {"first.txt", "later.txt"} <= set(
        git(repo, "ls-tree", "--name-only", product.session(name)["branch"]).split()
    )


def gvisors_flags(product: Product) -> tuple[str, ...]:
    """What somebody else must say, too, to start it by Podman's own command line."""
    return ("--runtime-flag=network=none",) if product.engine == "podman" else ()


@pytest.mark.slow
def test_gvisor_asks_its_model_by_the_broker(product: Product, repo: Path) -> None:
    require_runtime(product, "runsc")
    with serving("hello") as model:
        product.extra |= {
            "CODING_AGENTS_MODEL_UPSTREAM": model.url,
            "ANTHROPIC_API_KEY": "sk-real-key-0123456789",
        }
        command = (
            "launch",
            str(repo),
            "--agent",
            "claude",
            "--network-proxy",
            "restricted",
            "--runtime",
            "runsc",
        )
        said = product.run(*command, "--rm", "-p", "Say hello", timeout_s=2 * LAUNCH_S).out
    assert said


def test_what_gvisor_cannot_keep_is_refused(product: Product, repo: Path) -> None:
    require_runtime(product, "runsc")
    for flags, code, says in (
        (("--network-proxy", "allow-all"), 24, "gVisor's own network stack"),
        (("--pids", "500"), 2, "too few"),
    ):
        refused = product.launch(repo, "-d", "--runtime", "runsc", *flags, "--", "true", status=code)
        assert says in refused.err
    assert product.leftovers() == []


def test_crun_is_walled_as_runc_is(product: Product, repo: Path, engine: EngineUnderTest) -> None:
    require_runtime(product, "crun")
    args = ("-d", "--network-proxy", "allow-all", "--runtime", "crun", *LIMITS, "--json")
    launched = product.launch(repo, *args, "--", "sleep", "600").json
    enforced = launched["enforced"]
    assert (enforced["seccomp"], enforced["network"], enforced["memory"]) == ("on", "guarded", "768m")
    states = engine.api.find({"coding-agents.session": launched["session"]})
    assert {state.config.runtime for state in states} == {"crun"}
    assert len(states) == 2
    product.exec(launched["name"], "echo u > u.txt")
    product.run("stop", launched["name"])
    assert "u.txt" in git(repo, "ls-tree", "--name-only", product.session(launched["name"])["branch"])
