"""Builds the images that the engine tests need: build_test_images.py [--full | --demo] ENGINE...

The first engine builds them; the others get them by save and load, which is faster than building again. With --full it
has also the one of tests/e2e/test_toolchains.py; with --demo there is nothing but the agent demo's.
"""

from __future__ import annotations

import subprocess  # noqa: TID251 - a pipe between two programs, in a tool that is not part of the product
import sys
import tempfile
from pathlib import Path

from msgspec.structs import replace

from coding_agents.config.environ import read_environment
from coding_agents.engine.find import find_engine
from coding_agents.images.build import (
    BuildSettings,
    current_image,
    ensure_image,
    ensure_proxy_image,
    plan_images,
    plan_proxy,
)

AGENTS = ("demo", "claude", "codex", "copilot", "gemini", "opencode")
TOOLCHAINS = Path(__file__).parent.parent / "tests/support/toolchains"  # an agent as a user adds one


def main() -> None:
    environ = read_environment().environ
    names = [word for word in sys.argv[1:] if not word.startswith("-")]
    agents = AGENTS[:1] if "--demo" in sys.argv else AGENTS
    with tempfile.TemporaryDirectory() as scratch:
        settings = BuildSettings(
            work_dir=Path(scratch), environment=environ, on_line=lambda line: print(line, file=sys.stderr)
        )
        first, *others = (find_engine(name, environ) for name in names)
        for agent in agents:
            ensure_image(first, agent, settings)
        ensure_proxy_image(first, settings)
        if "--full" in sys.argv:
            ensure_image(first, "toolchains", replace(settings, user_dir=TOOLCHAINS))
        plans = [*map(plan_images, agents), plan_proxy()]
        recipes = {recipe.ref: recipe for plan in plans for recipe in plan}
        for engine in others:
            missing = [ref for ref, recipe in recipes.items() if current_image(engine, recipe) is None]
            if missing:
                copy_images(names[0], engine.info.name, missing)


def copy_images(source: str, target: str, refs: list[str]) -> None:
    """Images by name from one engine's store into another's."""
    with subprocess.Popen((source, "save", *refs), stdout=subprocess.PIPE) as saving:
        subprocess.run(
            (target, "load", "--quiet"), stdin=saving.stdout, stdout=subprocess.DEVNULL, check=True
        )
    if saving.returncode != 0:
        raise SystemExit(f"{source} save failed with status {saving.returncode}")


if __name__ == "__main__":
    main()
