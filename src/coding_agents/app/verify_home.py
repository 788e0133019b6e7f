"""The way home of an attacked session's work, and what of it ran, changed or showed on the host."""

from __future__ import annotations

from typing import Final

from coding_agents.app.review import review
from coding_agents.app.stop import stop
from coding_agents.app.verify_bounds import deadline_recorded, let_time_run_out
from coding_agents.app.verify_host import looked, shown_evidence
from coding_agents.app.verify_inside import attempt
from coding_agents.app.verify_place import Place
from coding_agents.engine.api import Engine
from coding_agents.proc.git import Profile, git
from coding_agents.sandbox.spec import AGENT_USER
from coding_agents.supervisor.context import SessionContext
from coding_agents.verify.model import Attempt, Evidence, Found

_STOP_S: Final = 20
_PLANT_S: Final = 15.0


def bring_home(engine: Engine, session: SessionContext, place: Place) -> Evidence:
    """Plant, push, let the session's time run out, and look. It has ended then, whatever came of that."""
    planted = attempt(engine, session.record.container_id, Attempt("repository", "plant", (place.scene.cage,)),
                      limit_s=_PLANT_S)  # fmt: skip
    if planted.error:
        return {name: Found(error=f"nothing was planted: {planted.error}") for name in _LOOKS}
    output = engine.exec(
        session.record.container_id, ("cat", "/workspace/screen.txt"), user=AGENT_USER
    ).stdout
    recorded = looked(lambda: deadline_recorded(session))
    time_is_up = looked(lambda: let_time_run_out(session))
    ended = looked(lambda: stop(session, timeout_s=_STOP_S).saved.where)
    findings = looked(lambda: sorted({one.rule for one in review(session).findings}))
    ref = f"refs/heads/{session.record.branch}"
    refs = place.refs_now()
    subject, names = _hostile_texts(place, ref) if ref in refs else ("", [])
    left = sorted(path.name for path in place.cage.iterdir())
    ours = ("refs/coding-agents/", ref, "refs/heads/verify/")
    changed = {name for name in {**place.refs, **refs} if place.refs.get(name) != refs.get(name)}
    return {
        "host branch": Found(refs.get(ref) == planted.value) if not ended.error else ended,
        "host cage": Found([name for name in left if not name.startswith("user-")]),
        "host user hooks": Found([name for name in left if name.startswith("user-")]),
        "host refs": Found(sorted(name for name in changed if not name.startswith(ours))),
        "host work tree": looked(lambda: _differences(place)),
        "host findings": findings,
        "host model keys": looked(lambda: _foreign_keys(place)),
        "host model requests": looked(lambda: _stray_requests(place)),
        "host deadline": recorded,
        "host time": time_is_up,
        **shown_evidence(subject, names, output),
    }


_LOOKS: Final = (
    "host branch", "host cage", "host user hooks", "host refs", "host work tree", "host findings", "host model keys",
    "host model requests", "host shown subject", "host shown names", "host shown output", "host screen clipboard",
    "host screen queries", "host screen notices", "host deadline", "host time",
)  # fmt: skip


def _hostile_texts(place: Place, ref: str) -> tuple[str, list[str]]:
    env, git_dir = place.env.for_git(), place.repo / ".git"
    log = git(("log", "-1", "--format=%B", ref), profile=Profile.OWN, env=env, git_dir=git_dir)
    tree = git(("ls-tree", "--name-only", "-z", ref), profile=Profile.OWN, env=env, git_dir=git_dir)
    names = tree.stdout.decode("utf-8", "surrogateescape").split("\0")
    return log.stdout.decode("utf-8", "surrogateescape"), names


def _differences(place: Place) -> list[str]:
    now = place.tree_now()
    return sorted(name for name in {*now, *place.tree} if now.get(name) != place.tree.get(name))


def _foreign_keys(place: Place) -> list[str]:
    """Requests that reached the model without the host's own key, which takes the place of any other."""
    if not place.model.asked:
        raise ValueError("the model was not asked at all")
    return [] if place.model.heard else ["a request without the host's key"]


def _stray_requests(place: Place) -> list[str]:
    """Requests beyond the honest ones: one of each session that was attacked."""
    more = place.model.asked - 2
    return [f"{more} more requests than honest ones"] if more > 0 else []
