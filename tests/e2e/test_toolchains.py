"""What other developers do all day works under our profile too: JVM, Rust, Go, native packages, a browser, debuggers.

The image is one of a user's own (tests/support/toolchains); only `./dev test --full` makes it, for Docker.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.engines import EngineUnderTest
from support.inside_work import run_scripts
from support.product import Product

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

_HERE = Path(__file__).parent.parent / "support/toolchains"
_PROJECTS = _HERE / "projects"

_SCRIPTS: Mapping[str, str] = {
    "JVM": "cd jvm && javac Work.java && jar -cfe work.jar Work *.class && java -jar work.jar"
    " && for gc in Serial Parallel Z Shenandoah; do java -XX:+Use${gc}GC -jar work.jar || exit; done",
    "JVM tools": "cd jvm && javac Sleeper.java && { java Sleeper & } && sleep 2"
    " && jcmd $! VM.version && jstack $! | grep -q Sleeper.main && kill $!",
    "cargo": "cd rust && cargo --offline -q test && cargo --offline -q build --release"
    " && target/release/work | grep -qx 45",
    "go": "cd go && go vet ./... && go test ./... && go build -o work . && ./work | grep -qx 45",
    "go's race detector": "cd go && go test -race ./...",
    "a wheel with C": "cd wheel && pip -q wheel --no-index --no-build-isolation --no-deps -w out ."
    " && pip -q install --no-index --break-system-packages --target lib out/*.whl"
    " && PYTHONPATH=lib python3 -c 'import answer; assert answer.answer() == 42'",
    "a package of npm with C": "cd npm && npm_config_nodedir=/usr npm install --offline --no-audit --no-fund"
    " && node -e 'if (require(\"addon\").answer() !== 42) process.exit(1)'",
    "make": 'for i in $(seq 60); do echo "int f$i(void) { return $i; }" > f$i.c; done'
    " && printf 'all: $(patsubst %%.c,%%.o,$(wildcard *.c))\\n' > Makefile && make -s -j",
    "python's processes": "python3 ipc/work.py",
    "Playwright": "NODE_PATH=/opt/node_modules /opt/node/bin/node browser/work.js && file *.png | grep -q '800 x 600'",
    "Chromium by itself": "chromium --headless --no-sandbox --disable-gpu --user-data-dir=$PWD/profile --dump-dom"
    " 'data:text/html,<p id=x></p><script>x.textContent=6*7</script>' | grep -q '>42<'",
}
# What has to be asked for: with the programs' own words where it was not.
_DEBUGGERS: Mapping[str, tuple[str, str]] = {
    "gdb": (
        "gcc -g -x c - -o a <<< 'int deep(int n) { return n ? deep(n - 1) + 1 : *(volatile int *)0; }"
        " int main(void) { return deep(3); }' && gdb -batch -ex run -ex bt ./a | tee out && grep -q 'deep (n=3)' out",
        "Operation not permitted",
    ),
    "gdb on a running one": (
        "sleep 60 & gdb -batch -p $! -ex bt 2>&1 | tee out; kill $!; grep -q nanosleep out",
        "Operation not permitted",
    ),
    "strace": ("strace -f -o log sh -c 'true; /bin/true' && grep -q execve log", "Operation not permitted"),
}


@pytest.fixture
def user(product: Product, engine: EngineUnderTest, repo: Path) -> Product:
    """A user with an agent of their own, and our projects in the repository."""
    if engine.api.image_id("coding-agents-toolchains:local") is None:
        pytest.skip("only ./dev test --full makes its image, for Docker")
    agents = product.home / ".config/coding-agents/agents"
    shutil.copytree(_HERE, agents, ignore=lambda _path, _names: ["projects"])
    shutil.copytree(_PROJECTS, repo, dirs_exist_ok=True)
    return product


def test_toolchains_work_and_debuggers_when_asked_for(user: Product, repo: Path) -> None:
    launch = ("launch", str(repo), "--agent", "toolchains", "--network-proxy", "restricted", "-d")
    name = user.run(*launch, "--", "sleep", "3000").out.strip()
    refused = {one: script for one, (script, _) in _DEBUGGERS.items()}
    done = run_scripts(user, name, {**_SCRIPTS, **refused}, timeout_s=300)
    for one, (_, words) in _DEBUGGERS.items():
        status, said = done.pop(one)
        assert (status != 0, words in said) == (True, True), (one, said)
    assert {one: found for one, found in done.items() if found[0] != 0} == {}
    user.run("remove", "--force", name)
    name = user.run(*launch, "-b", "traced", "--allow-ptrace", "--", "sleep", "3000").out.strip()
    done = run_scripts(user, name, refused, timeout_s=100)
    assert {one: found for one, found in done.items() if found[0] != 0} == {}
    user.run("remove", "--force", name)
