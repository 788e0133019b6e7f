"""`coding-agents remove`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from coding_agents.cli.context import AppContext
from coding_agents.cli.session_arg import find_session, session_argument

if TYPE_CHECKING:
    from coding_agents.quota.image import Image
    from coding_agents.store.sessions import BrokenSession


@click.command("remove")
@session_argument()
@click.option(
    "--force", is_flag=True, help="Stop the session first when it runs; set one aside that cannot be read."
)
@click.pass_obj
def command(app: AppContext, name: str, force: bool) -> None:
    """Remove a session: its container, volumes and record, after its work is known to be in the repository.

    The branch is deleted only when another branch contains it and nobody else has moved it.
    """
    from coding_agents.app.remove import remove
    from coding_agents.cli.ending_view import name_few

    if force and (broken := app.store.find_broken(name)):
        _set_aside(app, broken)
        return
    removed = remove(find_session(app, name), force=force)
    kept = f"; its work is {removed.kept_ref}" if removed.kept_ref else ""
    gone = "; its merged branch was deleted" if removed.branch_deleted else ""
    app.output.say(f"removed session {removed.name}{kept}{gone}")
    if removed.nested:
        app.output.say(f"inside   {name_few(removed.nested)}: kept, as the work of repositories inside")
    if removed.left_out:
        app.output.say(f"gone     {name_few(removed.left_out)}: left out of its work")


def _set_aside(app: AppContext, broken: BrokenSession) -> None:
    """Tell where everything is of a session without a readable record: nothing of it was removed."""
    from coding_agents.app.corrupt import set_aside
    from coding_agents.quota.image import Image

    aside = set_aside(app.env, app.store, broken)
    app.output.say(f"moved session {broken.id} to {aside.directory}: {broken.reason}")
    image = Image(aside.directory)
    if image.exists():  # its volumes were names for that
        app.output.say(f"as root, take the work out with: {_take_out_of(image)}")
    for left in aside.left:
        for kind, names in (
            ("container", left.containers),
            ("network", left.networks),
            ("volume", left.volumes),
        ):
            if names:
                app.output.say(f"kept {left.engine} {kind} {', '.join(names)}")
        for volume in left.volumes:
            if volume.endswith("-workspace") and not image.exists():
                app.output.say(f"take the work out with: {_take_out(left.engine, volume)}")
        app.output.say(f"afterwards remove all of it with: {_clear(left.engine, broken.id)}")
    for reason in aside.silent:
        app.output.say(
            f"not looked at: {reason}; what is there has the label coding-agents.session={broken.id}"
        )


def _take_out(engine: str, volume: str) -> str:
    """A command that reads the volume and runs nothing of it (docs/how-to/recover-work.md)."""
    return (
        f"{engine} run --rm --network none --read-only --cap-drop ALL --user 1000:1000"
        f" -v {volume}:/w:ro coding-agents-base:local tar -C /w -cf - . > work.tar"
    )


def _take_out_of(image: Image) -> str:
    """A line for a shell that does the same with the disk of a session's own."""
    path, place = shlex.quote(str(image.path)), shlex.quote(str(image.mount_point))
    mount = f"mount -o loop,ro,nosuid,nodev,noexec {path} {place}"
    return f"{mount} && tar -C {place}/workspace -cf work.tar . ; umount {place}"


def _clear(engine: str, session_id: str) -> str:
    """A line for a shell; the filters name the session, so that nothing else can be hit."""
    mine = f"--filter label=coding-agents.session={session_id}"
    return "; ".join(
        (
            f"{engine} rm -f $({engine} ps -aq {mine})",
            f"{engine} network rm $({engine} network ls -q {mine})",
            f"{engine} volume rm $({engine} volume ls -q {mine})",
        )
    )
