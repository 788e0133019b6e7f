"""What the proxy of mode `squid` costs, against squid alone in the same container: connections, and bytes in a tunnel."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from bench.rows import Row
from bench.user import User
from coding_agents.channel.pyz import build_guest_pyz

PROXY_IMAGE = "coding-agents-proxy:local"
_ROUNDS, _CONNECTIONS, _BYTES = 5, 60, 256 << 20
# In one container without a network: a server, our proxy with a resolver that knows that server alone, and squid as
# Debian's configuration has it but for the port. Prints seconds for each: one connection, many bytes, many connections.
_MEASURE = """
import asyncio, base64, json, os, socket, statistics, subprocess, sys, threading, time
open("/tmp/guest.pyz", "wb").write(base64.b64decode(sys.stdin.read()))
sys.path.insert(0, "/tmp/guest.pyz")
from coding_agents_guest.egress.ledger import Limits
from coding_agents_guest.egress.orders import Orders
from coding_agents_guest.egress.outbox import Outbox
from coding_agents_guest.egress.proxy import Proxy
from coding_agents_guest.egress.rules import Rules, parse_rule
rounds, connections, size = map(int, sys.argv[1:])
HELLO = base64.b64decode(os.environ["HELLO"])

def server():
    listener = socket.create_server(("127.0.0.1", 9443), backlog=512)
    def serve(one):
        with one:
            one.recv(len(HELLO), socket.MSG_WAITALL)
            wanted = int(one.recv(16, socket.MSG_WAITALL))
            one.sendall(b"x")
            for _ in range(wanted >> 16):
                one.sendall(bytes(1 << 16))
    while True:
        threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

class Near:
    async def connect(self, request, orders):
        one = socket.socket()
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", 9443))
        return one, "127.0.0.1"

def ours():
    class Told(Outbox):
        full = False
    proxy = Proxy(Near(), Told())
    proxy.use(Orders(Rules([parse_rule("good.example:9443", "bench")]), Limits(at_once=512, per_second=10**6)))
    asyncio.run(proxy.serve_front(socket.create_server(("127.0.0.1", 3128), backlog=512)))

def squid():
    with open("/tmp/squid.conf", "w") as file:
        file.write("http_port 127.0.0.1:3140\\nhosts_file /tmp/hosts\\npid_filename none\\nhttp_access allow all\\n"
                   "access_log none\\ncache_log /dev/null\\npinger_enable off\\nshutdown_lifetime 0 seconds\\n")
    open("/tmp/hosts", "w").write("127.0.0.1 good.example\\n")
    subprocess.Popen(("squid", "-N", "-f", "/tmp/squid.conf"), stderr=subprocess.DEVNULL)
    while True:
        try:
            socket.create_connection(("127.0.0.1", 3140)).close()
            return
        except OSError:
            time.sleep(0.05)

def ask(port, wanted):
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(b"CONNECT good.example:9443 HTTP/1.1\\r\\nHost: good.example:9443\\r\\n\\r\\n")
        answer = b""
        while b"\\r\\n\\r\\n" not in answer:
            answer += one.recv(4096)
        assert b" 200 " in answer, answer
        one.sendall(HELLO + b"%16d" % wanted)
        one.recv(1)
        first = time.perf_counter() - began
        left = wanted >> 16 << 16
        while left:
            left -= len(one.recv(1 << 20))
    return first, time.perf_counter() - began

def many(port):
    began = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(port, 0)) for _ in range(connections)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return time.perf_counter() - began

if os.fork() == 0:
    server()
if os.fork() == 0:
    ours()
squid()
time.sleep(0.5)
ask(3128, 0), ask(3140, 0)
found = {port: ([], [], []) for port in (3128, 3140)}
for _ in range(rounds):
    for port, (first, bulk, burst) in found.items():
        first.append(statistics.median(ask(port, 0)[0] for _ in range(20)))
        bulk.append(ask(port, size)[1])
        burst.append(many(port))
print(json.dumps([[statistics.median(one) for one in three] for three in found.values()]))
"""


def measure(user: User) -> Iterator[Row]:
    """Our proxy against squid alone, in turn in one container."""
    from coding_agents.attacks.egress import client_hello

    hello = base64.b64encode(client_hello("good.example")).decode()
    argv = (
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        "--user",
        "1002:1002",
        "--tmpfs",
        "/run",
        "-e",
        f"HELLO={hello}",
    )
    command = (PROXY_IMAGE, "python3", "-IS", "-c", _MEASURE, *map(str, (_ROUNDS, _CONNECTIONS, _BYTES)))
    told = user.engine_run(*argv, *command, stdin=base64.b64encode(build_guest_pyz()))
    (first, bulk, burst), (squid_first, squid_bulk, squid_burst) = json.loads(told)
    against = "squid alone"
    yield Row(
        what="proxy: a new tunnel, to its first byte",
        value=first * 1000,
        unit="ms",
        against=against,
        baseline=squid_first * 1000,
        max_ratio=1.5,
    )
    yield Row(
        what=f"proxy: {_BYTES >> 20} MiB through a tunnel",
        value=bulk * 1000,
        unit="ms",
        against=against,
        baseline=squid_bulk * 1000,
        max_ratio=1.25,
    )
    yield Row(
        what=f"proxy: {_CONNECTIONS} tunnels at once",
        value=burst * 1000,
        unit="ms",
        against=against,
        baseline=squid_burst * 1000,
        max_ratio=1.5,
    )
