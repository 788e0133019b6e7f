"""Building images, for `images build` and for a launch that finds one missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.images.api import ImageRef
from coding_agents.images.build import BuildSettings, ensure_image
from coding_agents.model.settings import Settings

OnLine = Callable[[str], None]


def build_settings(env: HostEnvironment, settings: Settings, on_line: OnLine) -> BuildSettings:
    """How images are built for this user; `on_line` gets every line of the builds."""
    return BuildSettings(
        work_dir=env.data_dir / "images",
        environment=env.environ,
        on_line=on_line,
        user_dir=env.agents_dir,
        pins_dir=env.pins_dir,
        host_ca=settings.network_ca == "host",
    )


def build_images(
    env: HostEnvironment, engine: Engine, settings: Settings, agents: Sequence[str], *, say: OnLine
) -> Iterator[ImageRef]:
    """Build the image of each of `agents` ('base' for the base alone) unless it is up to date."""
    for agent in agents:
        yield ensure_image(engine, None if agent == "base" else agent, build_settings(env, settings, say))
