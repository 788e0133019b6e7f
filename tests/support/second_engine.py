"""An engine of one test's own, beside the one that all share, so that it can be killed or lose its power."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.engines import engine_environ
from support.product import ROOT, Product

_TOOL = ROOT / "tools/test-engine"
_IMAGES = ("coding-agents-base:local", "coding-agents-demo:local")


@dataclass(frozen=True)
class SecondEngine:
    """A Docker and a Podman in a network namespace of their own; `name` says which of them the test uses."""

    name: str
    directory: Path

    @property
    def env(self) -> dict[str, str]:
        """What makes a program use it."""
        host = (self.directory / "env").read_text().partition("DOCKER_HOST=")[2].partition("\n")[0]
        path = os.pathsep.join((str(self.directory / "bin"), *_other_programs()))
        return {"DOCKER_HOST": host, "PATH": path}

    def adopt(self, product: Product) -> None:
        """Make `product` use this engine from now on."""
        product.extra.update(self.env)

    def crash(self, what: str) -> None:
        """SIGKILL for the "engine" alone, or for everything that runs on the "host"; then it is started again."""
        subprocess.run((_TOOL, "crash", self.directory, what), check=True)
        subprocess.run((_TOOL, "start", self.directory), check=True, env={**os.environ, **self.env})


@contextmanager
def second_engine(
    name: str, images: Sequence[str] = _IMAGES, *, below: Path = Path("/var/tmp")
) -> Iterator[SecondEngine]:
    """An engine with `images` of the first one and its data `below` a directory, gone afterwards (needs root)."""
    directory = Path(tempfile.mkdtemp(prefix="coding-agents-engine.", dir=below))
    environ = {**os.environ, "PATH": os.pathsep.join(_other_programs())}  # its podman is the machine's, too
    subprocess.run((_TOOL, "up", directory, "--owner", str(os.getpid())), check=True, env=environ)
    try:
        engine = SecondEngine(name, directory)
        with subprocess.Popen(
            (name, "save", *images), stdout=subprocess.PIPE, env=engine_environ()
        ) as saving:
            load = (name, "load", "--quiet")
            subprocess.run(
                load,
                stdin=saving.stdout,
                stdout=subprocess.DEVNULL,
                check=True,
                env={**os.environ, **engine.env},
            )
        yield engine
    finally:
        subprocess.run((_TOOL, "down", directory), check=True)


def _other_programs() -> list[str]:
    """PATH without what stands for the first engine's podman."""
    return [part for part in os.environ["PATH"].split(os.pathsep) if "coding-agents-engine." not in part]
