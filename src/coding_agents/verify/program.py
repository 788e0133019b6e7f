"""Attacks as text for a container: the modules of `coding_agents.attacks`, and what is to be run of them.

They are read, never imported: nothing of an attack runs on the host.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import coding_agents

PACKAGE: Final = "coding_agents.attacks"
_PYTHON: Final = ("/usr/bin/python3", "-IS", "-c")

# Makes modules of the texts, in an order in which each finds those that it imports, and calls one function.
_LOADER: Final = """\
import json, sys, types
texts, called, arguments = (json.loads(word) for word in sys.argv[1:4])
sys.argv[1:] = []
for name in ("coding_agents", "coding_agents.attacks"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for name, text in texts.items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
print(json.dumps(getattr(sys.modules[called[0]], called[1])(*arguments)))
"""


@cache
def sources() -> Mapping[str, str]:
    """The text of each module of attacks by its name, each after those that it imports."""
    directory = Path(coding_agents.__file__).parent / "attacks"
    found = {f"{PACKAGE}.{path.stem}": path.read_text("utf-8") for path in sorted(directory.glob("*.py"))}
    found.pop(f"{PACKAGE}.__init__")
    ordered: dict[str, str] = {}
    while found:
        ready = [name for name, text in found.items() if not any(f"from {other} " in text for other in found)]
        for name in ready:
            ordered[name] = found.pop(name)
        if not ready:
            raise AssertionError(f"modules of attacks import each other: {sorted(found)}")
    return ordered


def attack_argv(
    module: str, function: str, arguments: Sequence[object] = (), *, more: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The command that runs one function of an attack in a container; its last line of output is the result as JSON.

    `more` are texts of further modules by name, for one that is not ours.
    """
    texts = {**sources(), **(more or {})}
    called = (module if "." in module else f"{PACKAGE}.{module}", function)
    return (*_PYTHON, _LOADER, json.dumps(texts), json.dumps(called), json.dumps(arguments))
