"""Building and updating images, for the verbs of `images` and for a launch that finds one missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.images.api import ImageRef
from coding_agents.images.build import BuildSettings, ensure_image, ensure_proxy_image
from coding_agents.model.settings import Settings

if TYPE_CHECKING:  # a launch, which builds, must not pay for these
    from coding_agents.app.narrate import Narrator
    from coding_agents.app.update import Updater

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
    """Build the image of each of `agents` ("base" and "proxy" are no agents) unless it is up to date."""
    builds = build_settings(env, settings, say)
    for agent in agents:
        if agent == "proxy":
            yield ensure_proxy_image(engine, builds)
        else:
            yield ensure_image(engine, None if agent == "base" else agent, builds)


def updater(env: HostEnvironment, engine: Engine, settings: Settings, narrator: Narrator) -> Updater:
    """What updates agents on `engine`: npm is that of our own images, the check a session on the same engine."""
    from coding_agents.app.npm_view import npm_of
    from coding_agents.app.trial import try_agent
    from coding_agents.app.update import Updater

    builds = build_settings(env, settings, narrator.say)
    return Updater(
        env=env,
        engine=engine,
        builds=builds,
        view=npm_of(engine, replace(builds, on_line=narrator.progress)),
        check=partial(try_agent, env, engine),
        today=date.today(),
    )
