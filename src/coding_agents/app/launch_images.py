"""The images of a launch: made where they are missing, or for a dry run only looked up."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from coding_agents.app.gather import Gathered
from coding_agents.app.images import build_settings
from coding_agents.app.launch_request import LaunchRequest
from coding_agents.app.mcp_session import SessionServers
from coding_agents.app.narrate import Narrator
from coding_agents.config.environ import HostEnvironment
from coding_agents.images.api import ImageRef
from coding_agents.images.build import ensure_image, ensure_proxy_image, plan_images
from coding_agents.images.recipes import PROXY_REF
from coding_agents.sandbox.spec import Network

_NO_IMAGE = "sha256:" + 64 * "0"  # stands in a dry run for an image that is still to be built


class LaunchImages(msgspec.Struct, frozen=True):
    """`image` is the agent's, with the packages of the session's MCP servers; `proxy` an id, "" without a proxy."""

    image: ImageRef
    base: ImageRef
    proxy: str = ""


def ensure_images(
    request: LaunchRequest, facts: Gathered, servers: SessionServers, env: HostEnvironment, narrator: Narrator
) -> LaunchImages:
    """The images, built now where they are missing. Raises BuildError."""
    base, image = facts.images
    announced = build_settings(env, request.settings, _announcing(narrator))
    if image is None or base is None:
        image = ensure_image(facts.engine, facts.manifest.name, announced)
        base = ensure_image(facts.engine, None, announced)
    if servers.locks:
        from coding_agents.app.mcp_packages import session_image

        image = session_image(facts.engine, announced, facts.manifest.name, servers.locks)
    proxied = request.network is Network.SQUID
    return LaunchImages(image, base, ensure_proxy_image(facts.engine, announced).id if proxied else "")


def known_images(
    request: LaunchRequest, facts: Gathered, servers: SessionServers, env: HostEnvironment, narrator: Narrator
) -> LaunchImages:
    """The images that a launch would use, with a stand-in for the id of each that is not there yet."""
    recipes = plan_images(facts.manifest.name, env.agents_dir, env.pins_dir)
    base, image = (
        ImageRef(facts.engine.image_id(recipe.ref) or _NO_IMAGE, recipe.ref)
        for recipe in (recipes[0], recipes[-1])
    )
    if servers.locks:
        from coding_agents.app.mcp_packages import session_image_id

        builds = build_settings(env, request.settings, _announcing(narrator))
        found = session_image_id(facts.engine, builds, facts.manifest.name, servers.locks)
        image = ImageRef(found or _NO_IMAGE, image.ref)
    return LaunchImages(image, base, facts.engine.image_id(PROXY_REF) or _NO_IMAGE)


def _announcing(narrator: Narrator) -> Callable[[str], None]:
    """Lines that begin a build are said; the engine's own output is progress only."""

    def on_line(line: str) -> None:
        (narrator.say if line.startswith("building ") else narrator.progress)(line)

    return on_line
