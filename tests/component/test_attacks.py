"""How attacks are sent and run, in a process of this machine: attempts that do no harm, that hang, and that break."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from coding_agents.verify.program import attack_argv


def run(*calls: list[Any], limit_s: float = 2.0, at_once: int = 4) -> dict[str, dict[str, Any]]:
    argv = attack_argv("suite", "run", (calls, limit_s, at_once))
    assert argv[0] == "/usr/bin/python3"
    done = subprocess.run((sys.executable, *argv[1:]), capture_output=True, timeout=60, check=True)
    answer: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_each_attempt_is_told_whatever_becomes_of_the_others() -> None:
    found = run(
        ["here", "files", "existing", [["/", "/nothing/here"]]],
        ["breaks", "files", "existing", [7]],
        ["unknown", "files", "no_such_attack", []],
        ["hangs", "standin", "serve", [60]],
        limit_s=0.3,
    )
    assert found["here"]["value"] == ["/"]
    assert found["breaks"]["error"].startswith("TypeError")
    assert found["unknown"]["error"].startswith("AttributeError")
    assert found["hangs"]["error"] == "time limit"
    assert all(isinstance(one["ms"], int) for one in found.values())


def test_attempts_run_side_by_side_and_what_hangs_is_ended() -> None:
    began = time.monotonic()
    found = run(*(["slow " + str(n), "resources", "bomb", [0, 1.0]] for n in range(4)))
    assert time.monotonic() - began < 3.5
    assert {one["value"]["children"] for one in found.values()} == {0}


def test_one_that_is_too_slow_among_others_has_another_try_alone() -> None:
    found = run(["slow", "resources", "bomb", [0, 0.6]], limit_s=0.3)
    assert found["slow"]["value"] == {"children": 0, "refused": ""}


def test_who_is_knocked_at_greets_and_echoes() -> None:
    argv = attack_argv("standin", "serve", (30,))
    with subprocess.Popen((sys.executable, *argv[1:]), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            port = json.loads(process.stdout.readline())["port"]
            targets = [
                [protocol, address, port]
                for protocol in ("tcp", "udp")
                for address in ("127.0.0.1", "127.0.0.2")
            ]
            found = run(["all", "network", "knock_side_by_side", [targets, 2.0]])["all"]["value"]
            assert {answer[0] for answer in found.values()} == {"open"}
            assert len(found) == 4
            nobody = run(["none", "network", "knock", [[["tcp", "127.0.0.1", 1]], 1.0]])["none"]["value"]
            assert nobody["tcp 127.0.0.1 1"][0] == "refused"
            assert "127.0.0.1" in run(["x", "standin", "places", []])["x"]["value"]["ipv4"]
        finally:
            process.terminate()
        assert process.wait(10) == 0
