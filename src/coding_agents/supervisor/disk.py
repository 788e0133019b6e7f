"""A session's own file system, where it has one: mounted while its engine takes it, and let go with the session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from coding_agents.errors import EngineError
from coding_agents.quota.image import Image, make_image
from coding_agents.quota.window import opened, release
from coding_agents.sandbox.plan import plan_session
from coding_agents.sandbox.spec import LABEL
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext, plan_input_of


def image_of(session: SessionContext) -> Image | None:
    """The image of the session's own file system; None when it has none."""
    return Image(session.directory) if session.record.quota else None


def make_disk(session: SessionContext) -> None:
    """Make the session's file system, where it is to have one. Raises DiskImageError."""
    image = image_of(session)
    if image is not None:
        make_image(image, int(session.record.limits["disk"]))


@contextmanager
def disk_opened(session: SessionContext) -> Iterator[None]:
    """For the block the engine can take the session's file system into a container, where it has one.

    Raises DiskImageError, and an EngineError that says what stands behind one that does not find the directories.
    """
    image = image_of(session)
    if image is None:
        yield
        return
    with opened(image):
        try:
            yield
        except EngineError as error:
            if str(image.mount_point) in error.details:
                error.hint = (
                    "The engine does not see what we mount: does it run in a mount namespace or container of its own? "
                    "Launch without --disk, or with --best-effort disk."
                )
            raise


@asynccontextmanager
async def disk_opened_beside(session: SessionContext) -> AsyncIterator[None]:
    """`disk_opened` in threads."""
    import asyncio  # the supervisor's alone: a launch loads none

    stack = ExitStack()
    try:
        await asyncio.to_thread(stack.enter_context, disk_opened(session))
        yield
    finally:
        await asyncio.to_thread(stack.close)


def renew_volumes(session: SessionContext) -> None:
    """Let the engine have the volumes again that are directories of the session's file system.

    Whoever removed them has removed names: what they held is in the image. Raises EngineError.
    """
    image = image_of(session)
    if image is None or not image.exists():
        return
    record = session.record
    plan = plan_session(plan_input_of(record, base_image=record.image_id, disk=str(image.mount_point)))
    found = session.engine.volume_labels([volume.name for volume in plan.own_volumes])
    for volume in plan.own_volumes:
        if volume.place and found.get(volume.name, {}).get(f"{LABEL}nonce") != record.nonce:
            session.require_its_engine()
            session.engine.create_volume(volume.name, labels=dict(volume.labels), place=volume.place)


def holds_work(session: SessionContext) -> bool:
    """Whether there may be work in the session's volume, or in the image that it is a name for. Raises EngineError."""
    image = image_of(session)
    return session.has_volume() if image is None else image.exists()


def remove_host_side(store: SessionStore, session_id: str, *, keep_log: bool = True) -> None:
    """`SessionStore.remove`, and before that the mount that somebody left who was killed. Raises DiskImageError too."""
    release(Image(store.directory(session_id)))
    store.remove(session_id, keep_log=keep_log)
