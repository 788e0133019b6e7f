"""What a person sees of a launch: the plan or the banner, the attached terminal or output, the end."""

from __future__ import annotations

from datetime import date

from coding_agents.app.gather import Gathered
from coding_agents.app.inside import Follower, attach
from coding_agents.app.joining import unapplied
from coding_agents.app.launch import Launch, Launched
from coding_agents.app.launch_request import LaunchRequest
from coding_agents.app.narrate import Narrator
from coding_agents.app.start import start
from coding_agents.app.steps import Trace
from coding_agents.app.stop import Ended, stop, wait
from coding_agents.cli.banner import banner, given_line
from coding_agents.cli.context import AppContext
from coding_agents.errors import Terminated
from coding_agents.model.session import to_public
from coding_agents.sandbox.plan import describe, to_json
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credentials_kept import read_given as credentials_given
from coding_agents.supervisor.registry_kept import read_given

_STATUS_UNKNOWN = 125


def run_launch(
    app: AppContext,
    request: LaunchRequest,
    narrator: Narrator,
    facts: Gathered,
    *,
    trace: Trace,
    as_json: bool,
    show_trace: bool,
) -> int:
    """Launch, show, and stay until the end unless detached; returns the exit status."""
    with Follower() as follower:
        watch = None if request.options.detach else follower.begin
        launched = Launch(request, app.env, app.store, narrator, facts, trace, watch).run()
        return _show(app, request, launched, follower, as_json=as_json, show_trace=show_trace)


def _show(
    app: AppContext,
    request: LaunchRequest,
    launched: Launched,
    follower: Follower,
    *,
    as_json: bool,
    show_trace: bool,
) -> int:
    options = request.options
    if launched.session is None:
        return _show_plan(app, launched, as_json=as_json)
    if launched.joined:
        ignored = unapplied(request, launched.session.record)
        return _join(app, launched.session, follower, ignored, detach=options.detach, as_json=as_json)
    from coding_agents.app.model import model_told  # while the agent is at work already
    from coding_agents.app.pins import launch_notice

    copy = launched.source.copy if launched.source else None
    directory = launched.session.directory
    for line in banner(
        launched.session.record,
        copy,
        model=model_told(launched.session),
        registries=dict.fromkeys(one.kind for one in read_given(directory)),
        given=credentials_given(directory),
    ):
        app.output.say(line)
    if notice := launch_notice(app.env, launched.session.record.agent, date.today()):
        app.output.aside(notice)
    if show_trace:
        app.output.say(render_trace(launched.trace))
    return _stay(app, launched.session, follower, detach=options.detach, as_json=as_json)


def _show_plan(app: AppContext, launched: Launched, *, as_json: bool) -> int:
    if launched.plan is None:
        raise AssertionError("a launch gives a session or a plan")
    if as_json:
        app.output.result_json(to_json(launched.plan))
    else:
        app.output.result("\n".join(describe(launched.plan)))
    return 0


def _join(
    app: AppContext, session: SessionContext, follower: Follower, ignored: str, *, detach: bool, as_json: bool
) -> int:
    """A session that is there already: with -d it is only reported, else started if need be and joined.

    `ignored` tells which flags do not apply to it, "" when all do.
    """
    name = session.record.name
    if detach or ignored:
        app.output.say(f"session {name} is there already" + (f": {ignored}" if ignored else ""))
    if not detach:
        started = start(session, Trace())
        app.output.say(f"{'started' if started else 'joining'} session {name}")
        if started:
            say_given(app, session)
    return _stay(app, session, follower, detach=detach, as_json=as_json)


def say_given(app: AppContext, session: SessionContext) -> None:
    """Tell what of the user's own credentials a session has that begins without a banner."""
    if given := credentials_given(session.directory):
        app.output.say(given_line(given))


def _stay(
    app: AppContext, session: SessionContext, follower: Follower, *, detach: bool, as_json: bool
) -> int:
    if detach:
        return _report_detached(app, session, as_json=as_json)
    if session.record.mode == "command":
        return _follow(app, session, follower)
    if not (app.env.stdin_tty and app.env.stdout_tty):
        app.output.say(f"no terminal here: connect with `coding-agents connect {session.record.name}`")
        return 0
    from coding_agents.cli.ringing import notices_shown

    attach(session, control=True, notices=notices_shown(app))
    return after_leaving(app, session)


def _report_detached(app: AppContext, session: SessionContext, *, as_json: bool) -> int:
    if as_json:
        app.output.result_json(to_public(session.record, session.record.phase))
    else:
        app.output.result(session.record.name)
    return 0


def _show_end(app: AppContext, session: SessionContext, ended: Ended) -> None:
    from coding_agents.cli.ending_view import show_end  # loaded while nobody waits for the first byte

    show_end(app, session, ended)


def _tell_end(app: AppContext, session: SessionContext, ended: Ended) -> None:
    from coding_agents.cli.ringing import ring_end

    _show_end(app, session, ended)
    ring_end(app, session, ended)


def _follow(app: AppContext, session: SessionContext, follower: Follower) -> int:
    """Pass the command's output on and, at the end, its status. Ctrl-C saves and stops."""
    try:
        unwritten = follower.show(session)
        ended = wait(session)
    except (KeyboardInterrupt, Terminated):
        app.output.say(f"interrupted: saving and stopping {session.record.name}")
        _show_end(app, session, stop(session, timeout_s=app.settings().session_stop_timeout))
        raise
    _tell_end(app, session, ended)
    if unwritten is not None:
        raise unwritten
    return _STATUS_UNKNOWN if ended.exit_status is None else ended.exit_status


def after_leaving(app: AppContext, session: SessionContext) -> int:
    """The terminal was left: say whether the session goes on, or how it ended."""
    state = session.container_state()
    if state is not None and state.running and not _ending(session):
        name = session.record.name
        app.output.say(f"session {name} goes on; come back with `coding-agents connect {name}`")
        return 0
    ended = wait(session)
    _tell_end(app, session, ended)
    return 0 if ended.exit_status is None else ended.exit_status


def _ending(session: SessionContext) -> bool:
    """Whether the agent has ended, so that the container is about to: its tmux session is gone."""
    probe = session.engine.exec(
        session.record.container_id, ("tmux", "has-session", "-t", "agent"), user="1000:1000"
    )
    return not probe.ok


def render_trace(trace: Trace) -> str:
    """The steps in the order in which they began, with start and duration in milliseconds."""
    rows = sorted(trace.timings, key=lambda timing: timing.began_ms)
    return "\n".join(f"{row.began_ms:6d} ms  +{row.took_ms:5d} ms  {row.name}" for row in rows)
