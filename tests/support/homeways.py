"""Every kind of work that comes home from a session, each by the product's own function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from coding_agents.gitsync.autosave import bring_save
from coding_agents.gitsync.integrate import Landing, integrate, keep_incoming
from coding_agents.gitsync.nested import bring_nested, list_nested
from coding_agents.model.repo import RepoFacts
from coding_agents_guest.nestedref import LATEST
from support.kinds import plain, submodule
from support.repos import SESSION
from support.roundtrip import Session, begin, tree_of
from support.workspaces import Host

INNER = "libs/inner"


@dataclass(frozen=True)
class Way:
    """One kind of work that comes home. `bring` returns its tip; `inside` is where the agent's repository is, `outside`
    the user's that has it, both below the work tree."""

    bring: Callable[[Session, RepoFacts], object]
    inside: str = "."
    outside: str = "."
    kind: Callable[[Path], Host] = plain

    def begin(self, root: Path) -> Session:
        """A session whose agent has worked there."""
        session = begin(self.kind(root))
        work = session.work / self.inside
        if not (work / ".git").exists():
            session.git("init", "--quiet", self.inside)
        (work / "work").write_text("of the agent\n")
        session.git("add", "work", cwd=work)
        session.git("commit", "--quiet", "-m", "mine", cwd=work)
        (work / "later").write_text("not committed\n")
        return session

    def user(self, session: Session) -> Host:
        return replace(session.host, work=session.host.work / self.outside)


def _bring_branch(session: Session, facts: RepoFacts) -> object:
    landed = integrate(facts, session.relay, session=SESSION, expected_old=None, env=session.host.env)
    assert landed.where is Landing.BRANCH, landed
    return landed.tip


def _bring_save(session: Session, facts: RepoFacts) -> object:
    """The last state is in an automatic save alone; the branch stands where it began."""
    store, branch, base = session.relay.store, session.relay.branch.ref, session.relay.base
    if (tip := store.resolve(branch)) != base:
        store.update_refs(f"update {LATEST} {tip}", f"update {branch} {base}")
    brought = bring_save(facts, session.relay, session=SESSION, env=session.host.env)
    assert brought is not None
    return brought[1]


def _keep(name: str) -> Callable[[Session, RepoFacts], object]:
    def bring(session: Session, facts: RepoFacts) -> object:
        tip = session.relay.store.resolve(session.relay.branch.ref)
        assert tip is not None
        keep_incoming(facts, session.relay, name=f"{SESSION}{name}", tip=tip, env=session.host.env)
        return tip

    return bring


def _bring_nested(session: Session, facts: RepoFacts) -> object:
    bring_nested(facts, session.relay, session=SESSION, env=session.host.env)
    (nested,) = list_nested(facts, session=SESSION, env=session.host.env)
    return nested.tip


WAYS = {
    "branch": Way(_bring_branch),
    "save": Way(_bring_save),
    "salvage": Way(_keep("-salvage")),
    "other-branch": Way(_keep("-branches/side")),
    "repository-inside": Way(_bring_nested, inside="new"),
    "submodule": Way(_bring_nested, inside=INNER, outside=INNER, kind=submodule),
}


def require_home(way: Way, session: Session, tip: object) -> None:
    """Everything of `tip` is in the user's repository, and it has the files that stand inside."""
    host = way.user(session)
    if not host.git("cat-file", "--batch-check", "--batch-all-objects").count(str(tip)):
        host = session.host  # of a submodule that is another one now
    host.git("-c", "core.commitGraph=false", "rev-list", "--objects", "--quiet", str(tip))
    work = session.work / way.inside
    names = session.git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=work).split("\0")
    stands = {name: (work / name).read_bytes() for name in filter(None, names)}
    assert {"work", "later"} <= stands.keys()
    assert {path: content for path, (_, content) in tree_of(host, str(tip)).items()} == stands
