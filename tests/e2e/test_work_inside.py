"""What developers and agents do all day works under our seccomp profile; debuggers do for who asked for them.

The five agents themselves, with their runtimes (native, node, bun), are in test_agents.py; what the base image does not
have (JVM, Rust, Go, a browser, gdb) is in test_toolchains.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from support.inside_work import run_scripts
from support.product import Product

pytestmark = pytest.mark.engine

_PYTHON = """
import asyncio, concurrent.futures, mmap, multiprocessing, os, select, signal, socket, sqlite3, subprocess, threading
assert multiprocessing.Pool(2).map(abs, [-1, -2]) == [1, 2]
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert sum(pool.map(int, range(100))) == 4950
async def child():
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    return (await process.communicate(b"x"))[0]
assert asyncio.run(child()) == b"x"
assert os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]) == 0
pid, terminal = os.forkpty()
if pid == 0: os.execvp("tty", ["tty"])
assert os.read(terminal, 100).startswith(b"/dev/pts/")
mmap.mmap(-1, 4096, prot=7).close(); os.close(os.memfd_create("x"))
sqlite3.connect("x.db").execute("create table t (a)")
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
server = socket.create_server(("127.0.0.1", 0)); socket.create_connection(server.getsockname()).close()
epoll = select.epoll(); epoll.register(a.fileno()); signal.setitimer(signal.ITIMER_REAL, 10)
os.mkfifo("pipe"); os.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(1)
"""
_LEAK = "#include <stdlib.h>\\nint main(void) { volatile char *p = malloc(7); p = 0; return 0; }\\n"
_SCRIPTS: Mapping[str, str] = {
    "git": "git init -q g && cd g && git commit -q --allow-empty -m a && git worktree add -q ../w && git gc -q",
    "python": 'python3 -c "$PROGRAM"',
    "a virtual environment": "python3 -m venv --without-pip v"
    " && v/bin/python -c 'import sys; assert sys.prefix != sys.base_prefix'",
    "gcc": "printf 'int main(void) { return 0; }' > a.c && gcc -O2 -fsanitize=undefined a.c -o a && ./a",
    "g++ with threads": "printf '#include <thread>\\nint main() { std::thread([]{}).join(); }' > b.cc"
    " && g++ -pthread b.cc -o b && ./b",
    "make": "printf 'all: a b c d\\na b c d:\\n\\ttouch $@\\n' > Makefile && make -s -j4",
    "perl": "perl -e 'my $p = fork; exit 3 unless $p; waitpid $p, 0; exit $? != 3 << 8'",
    "packing": "tar -cf - /etc/passwd 2>/dev/null | xz -T0 | xz -d | zstd -T2 -q | zstd -dq | tar -t > /dev/null",
    "rsync": "mkdir from && touch from/x && rsync -a from/ to && test -e to/x",
    "gpg": "GNUPGHOME=$PWD gpg --batch -q --passphrase '' --quick-gen-key a@b.c ed25519"
    " && gpgconf --homedir $PWD --kill all",
    "ssh-keygen": "ssh-keygen -q -t ed25519 -N '' -f key",
    "tmux": "tmux -L x new -d sleep 60 && tmux -L x kill-server",
    "looking around": "for one in 'ps aux' id 'df -h' mount 'ip address'; do $one > /dev/null || exit; done",
}
_TRACED = f"printf '{_LEAK}' > l.c && gcc -g -fsanitize=address l.c -o l && ./l"


def test_everyday_work_works_and_debuggers_do_when_asked_for(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "sleep 600")
    done = run_scripts(product, name, {**_SCRIPTS, "the leak checker": _TRACED}, program=_PYTHON)
    status, said = done.pop("the leak checker")
    assert status != 0, said
    assert "LeakSanitizer has encountered a fatal error" in said
    assert {one: found for one, found in done.items() if found[0] != 0} == {}
    product.run("remove", "--force", name)
    name = product.launch_detached(repo, "sleep 600", "-b", "traced", "--allow-ptrace")
    status, said = run_scripts(product, name, {"the leak checker": _TRACED})["the leak checker"]
    assert (status, "detected memory leaks" in said or "7 byte(s) leaked" in said) == (1, True), said
    product.run("remove", "--force", name)
