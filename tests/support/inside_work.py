"""Scripts run side by side in a session, each in a directory of its own with a copy of the work tree in it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from support.product import Product

_DRIVER = """
import concurrent.futures, json, os, shutil, subprocess, sys
scripts, program, limit = json.loads(sys.argv[1]), sys.argv[2], float(sys.argv[3])
def run(item):
    name, script = item
    place = f"{os.environ['HOME']}/.local/share/work-{abs(hash(name))}"
    shutil.copytree("/workspace", place, ignore=shutil.ignore_patterns(".git"))
    try:
        done = subprocess.run(["bash", "-o", "pipefail", "-c", script], cwd=place, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=limit,
            env={**os.environ, "PROGRAM": program})
    except subprocess.TimeoutExpired as error:
        return name, [-1, f"not over in {limit} s: {(error.output or b'')[-300:]!r}"]
    return name, [done.returncode, done.stdout[-600:]]
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(json.dumps(dict(pool.map(run, scripts.items()))))
"""


def run_scripts(
    product: Product, name: str, scripts: Mapping[str, str], *, program: str = "", timeout_s: float = 60.0
) -> dict[str, tuple[int, str]]:
    """The exit status of each script of bash and the end of what it said. `program` is what `$PROGRAM` holds there."""
    argv = ("exec", name, "--", "python3", "-c", _DRIVER, json.dumps(scripts), program, str(timeout_s))
    told = product.run(*argv, timeout_s=timeout_s * len(scripts)).json
    return {one: (status, said) for one, (status, said) in told.items()}
