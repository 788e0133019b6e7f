"""An internet of a test's own beside the engine's network namespace: nothing of it, or to it, leaves the machine.

Its server of names stands at the very address that the host's resolver has, since sessions are given that one; the
engine's namespace has routes to it and to every address of the zone.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coding_agents.network.dns import read_resolvers
from support.netlab import NoLabError, engine_netns, run

_LIFETIME_S = 1200

GOOD, ALSO = "11.79.0.10", "11.79.0.11"  # public by every registry
COMPANY_PROXY = "10.79.0.3"
ZONE: Mapping[str, Sequence[str]] = {
    "good.example": (GOOD,),
    "sub.good.example": (GOOD,),
    "other.example": (GOOD,),  # several names on one address
    "elsewhere.example": (ALSO,),
    "inside.example": (ALSO,),  # the proxy alone may tell where
    "private.example": ("10.79.0.2",),
    "metadata.example": ("169.254.169.254",),
    "cgnat.example": ("100.64.79.2",),
    "benchmark.example": ("198.18.79.2",),
    "loopback.example": ("127.0.0.1",),
    "zero.example": ("0.0.0.0",),
    "mapped.example": ("::ffff:10.79.0.2",),
    "ula.example": ("fd00:79::2",),
    "mixed.example": (GOOD, "10.79.0.2"),
    "rebind.example": ("next", GOOD, "10.79.0.2"),
}


@dataclass(frozen=True)
class Internet:
    """`log` has a line for whatever arrived: questions for names, TLS connections, requests.

    `static` is served below /static/, `certificate` is the servers' own, which nobody knows.
    """

    log: Path
    static: Path
    certificate: Path

    def arrived(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = [json.loads(line) for line in lines]
        return [one for one in found if one["kind"] == kind and fields.items() <= one.items()]


@contextmanager
def internet(netns: Path, directory: Path) -> Iterator[Internet]:
    """One beside the engine's namespace `netns`; its certificate and log are in `directory`. Raises NoLabError."""
    resolvers = read_resolvers()
    if not resolvers:
        raise NoLabError("this host has no resolver that a container could ask")
    name = f"cai{uuid.uuid4().hex[:8]}"
    here = Path("/run/netns") / name
    certificate, key = _certificate(directory)
    every = {address for found in ZONE.values() for address in found if address != "next"}
    routed = sorted(
        {one for one in every if ":" not in one and one not in ("127.0.0.1", "0.0.0.0")}
        | {resolvers[0], COMPANY_PROXY}
    )
    with ExitStack() as stack:
        stack.enter_context(alone(netns))
        run("ip", "netns", "add", name)
        stack.callback(run, "ip", "netns", "delete", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name, netns=netns)
        stack.callback(run, "ip", "link", "delete", name, netns=netns)
        number = int(name[-8:], 16)
        run(
            "ip",
            "address",
            "add",
            f"10.80.{number % 250 + 1}.{number // 250 % 250 + 1}/32",
            "dev",
            name,
            netns=netns,
        )
        run("ip", "link", "set", name, "up", netns=netns)
        for device in ("lo", "eth0"):
            run("ip", "link", "set", device, "up", netns=here)
        for address in routed:
            run("ip", "address", "add", f"{address}/32", "dev", "eth0", netns=here)
            run(
                "ip",
                "route",
                "add",
                f"{address}/32",
                "dev",
                name,
                "metric",
                str(number % 60000 + 1),
                netns=netns,
            )
        run("ip", "route", "add", "default", "dev", "eth0", netns=here)
        log, static = directory / "internet.log", directory / "static"
        static.mkdir()
        argv = (
            "nsenter", f"--net={here}", sys.executable, "-IS", str(Path(__file__).with_name("internet_server.py")),
            str(_LIFETIME_S), resolvers[0], json.dumps(ZONE), str(certificate), str(key), str(log), str(static),
        )  # fmt: skip
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"up\n", "the internet does not come up"
                yield Internet(log, static, certificate)
            finally:
                process.kill()


@contextmanager
def alone(netns: Path) -> Iterator[None]:
    """One internet at a time beside an engine: they have the same addresses, and tests look at what arrived."""
    with (Path(tempfile.gettempdir()) / f"coding-agents-internet-{netns.stat().st_ino}.lock").open(
        "w"
    ) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_internet(directory: Path) -> Iterator[Internet]:
    """A fixture's body: an internet, or a skip with the reason; in CI missing means failed."""
    try:
        netns = engine_netns(dict(os.environ))
        with internet(netns, directory) as made:
            yield made
    except NoLabError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the attacks on the proxy are required: {error}")
        pytest.skip(str(error))


def _certificate(directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "internet.pem", directory / "internet.key"
    names = ",".join(f"DNS:{name}" for name in ZONE)
    subprocess.run(
        ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=internet.example", "-addext", f"subjectAltName={names}", "-keyout", str(key),
         "-out", str(certificate)),
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return certificate, key
