"""What a session calls origin: fetched by the host as the user, and pushed to when a person has said so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from coding_agents.audit.log import AuditLog
from coding_agents.errors import ApprovalError, AuditError
from coding_agents.gitsync import origin_store
from coding_agents.gitsync.relay_repo import Identity
from coding_agents.model.approval import encode_approval
from coding_agents.model.turns import Turns
from coding_agents.store.approvals import ApprovalStore
from coding_agents.supervisor import look_apart
from coding_agents.supervisor.origin_access import OriginAccess
from support.forge_tricks import hang, redirect
from support.keys import ssh_key
from support.origin_scene import APP, MINE, origin_scene
from support.product import git
from support.sshd import ssh_forge


def test_the_host_fetches_what_the_agent_asks_for(tmp_path: Path) -> None:
    """With the user's own credential, of which the agent gets nothing, and nothing that policy does not name."""
    with origin_scene(tmp_path) as scene:
        git(scene.user, "branch", "topic")
        git(scene.user, "commit", "--quiet", "--allow-empty", "-m", "hidden")
        hidden = git(scene.user, "rev-parse", "HEAD")
        git(scene.user, "push", "--quiet", str(scene.forge.path(APP)), "topic", "HEAD:refs/pull/1/head")
        scene.git("fetch", "--quiet", "origin")
        tips = scene.git("for-each-ref", "--format=%(refname)", "refs/remotes/origin").stdout.split()
        assert tips == ["refs/remotes/origin/main", "refs/remotes/origin/topic"]
        assert "pull" not in scene.git("ls-remote", "origin").stdout
        for what in ("refs/pull/1/head", hidden):
            scene.refused("fetch", "origin", what)
        (copy,) = (scene.session.env.data_dir / "origins").glob("*.git")
        kept = git(copy, "for-each-ref", "--format=%(refname)").split()
        assert kept == ["refs/heads/main", "refs/heads/topic"]
        assert scene.forge.secrets_seen() == {scene.ada.token}
        assert [one["subject"] for one in scene.records("origin-fetch")][:1] == [scene.forge.url(APP)]
        assert scene.ada.token not in (scene.session.directory / "origin.json").read_text()


def test_a_push_waits_for_a_person(tmp_path: Path) -> None:
    with origin_scene(tmp_path, wait=60) as scene:
        scene.forge.hook(APP, "post-receive", r"printf 'seen \033]52;c;eA==\007 here\n'")
        tip = scene.commit()
        pushing = scene.start("push", "origin", MINE)
        approval = scene.waiting()
        assert scene.at_origin() == ""
        assert scene.decide(approval)["state"] == "pushed"
        _, said = pushing.communicate(timeout=30)
        assert pushing.returncode == 0, said
        assert f"approvals approve {approval.id}" in said
        assert "seen" in said
        assert "\x1b" not in said
        assert scene.at_origin() == tip


def test_a_push_that_nobody_has_decided_about_is_not_lost(tmp_path: Path) -> None:
    with origin_scene(tmp_path) as scene:
        tip = scene.commit()
        said = scene.refused("push", "origin", MINE)
        (approval,) = scene.approvals()
        assert f"waiting for approval {approval.id}; push again after" in said
        assert f"waiting for approval {approval.id}" in scene.refused("push", "origin", MINE)
        assert len(scene.approvals()) == len(scene.records("origin-push-asked")) == len(scene.notices) == 1
        assert scene.decide(approval)["state"] == "pushed"
        assert scene.at_origin() == tip
        assert "up-to-date" in scene.git("push", "origin", MINE).stderr
        assert [one["detail"]["id"] for one in scene.records("origin-push")] == [approval.id]
        assert not (scene.session.directory / "origin-push.git").exists()


def test_a_denied_push_says_why_and_stays_denied(tmp_path: Path) -> None:
    with origin_scene(tmp_path, wait=60) as scene:
        scene.commit()
        pushing = scene.start("push", "origin", MINE)
        denied = scene.decide(scene.waiting(), grant=False, reason="tests \x1b[31mfail")
        assert denied["state"] == "denied"
        _, said = pushing.communicate(timeout=30)
        assert "denied: tests" in said
        assert "\x1b" not in said
        assert "denied: tests" in scene.refused("push", "origin", MINE)
        assert scene.at_origin() == ""
        with pytest.raises(ApprovalError, match="denied"):
            scene.decide(scene.approvals()[0])


def test_what_no_person_is_asked_about(tmp_path: Path) -> None:
    """Each is refused with its reason in git's own output, and nobody's attention is taken."""
    with origin_scene(tmp_path, settings='protected = ["main", "release/*"]\n') as scene:
        git(scene.forge.path(APP), "branch", "old", "main")
        scene.commit()
        scene.git("tag", "v1")
        before = scene.forge.refs(APP)
        for args, why in (
            (("HEAD:main",), "protected"),
            (("HEAD:release/1",), "protected"),
            (("HEAD:Release/1",), "protected"),
            (("v1",), "make the tag on the host"),
            ((":old",), "delete it on the host"),
            ((MINE, "HEAD:refs/heads/other"), "one branch at a time"),
            (("HEAD:refs/for/main",), "only branches"),
            (("-o", "ci.skip", MINE), "'ci.skip' is refused"),
            (("-o", "merge_request.target=main", MINE), "means nothing without"),
        ):
            assert why in scene.refused("push", "origin", *args), args
        assert scene.forge.refs(APP) == before
        assert not scene.approvals()
        assert len(scene.records("origin-refused")) == 10


def test_replacing_commits_is_said_and_bound(tmp_path: Path) -> None:
    with origin_scene(tmp_path) as scene:
        first = scene.commit("one")
        scene.refused("push", "origin", MINE)
        scene.decide(scene.waiting())
        scene.git("commit", "--quiet", "--amend", "-m", "another")
        assert "rejected" in scene.refused("push", "origin", MINE)
        scene.refused("push", "--force", "origin", MINE)
        approval = scene.waiting()
        assert (approval.wanted.force, approval.wanted.old) == (True, first)
        scene.decide(approval)
        assert scene.at_origin() == approval.wanted.new != first


def test_a_person_is_asked_about_five_pushes_at_most(tmp_path: Path) -> None:
    with origin_scene(tmp_path) as scene:
        for number in range(5):
            scene.commit(f"f{number}")
            scene.refused("push", "origin", f"HEAD:topic-{number}")
        assert "5 pushes wait for a person already" in scene.refused("push", "origin", "HEAD:topic-5")
        scene.commit("newer")
        scene.refused("push", "origin", "HEAD:topic-4")
        states = sorted(one.state for one in scene.approvals())
        assert states == ["pending"] * 5 + ["superseded"]
        replaced = next(one for one in scene.approvals() if one.state == "superseded")
        with pytest.raises(ApprovalError, match="a later push took its place"):
            scene.decide(replaced)


def test_an_approval_is_for_what_was_shown(tmp_path: Path) -> None:
    with origin_scene(tmp_path) as scene:
        scene.commit()
        scene.refused("push", "origin", MINE)
        approval = scene.waiting()
        with pytest.raises(ApprovalError, match="not what you were shown"):
            scene.decide(approval.evolve(binding="0" * 64))
        changed = approval.wanted.__class__(
            **{**msgspec.structs.asdict(approval.wanted), "ref": "refs/heads/main"}
        )
        path = scene.session.directory / "approvals" / f"{approval.id}.json"
        path.write_bytes(encode_approval(approval.evolve(wanted=changed)))
        with pytest.raises(ApprovalError, match="no push"):  # its id is what it is for
            scene.decide(approval)
        path.write_bytes(encode_approval(approval.evolve(expires_ms=approval.expires_ms + 60_000)))
        with pytest.raises(ApprovalError, match="changed on the disk"):
            scene.decide(approval)
        path.write_bytes(encode_approval(approval.evolve(created_ms=0, expires_ms=1)))
        with pytest.raises(ApprovalError, match="nobody decided in time"):
            scene.decide(approval)
        assert scene.at_origin() == ""
        scene.refused("push", "origin", MINE)  # asks anew
        assert scene.decide(scene.waiting())["state"] == "pushed"


def test_a_branch_that_moved_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with origin_scene(tmp_path) as scene:
        scene.commit()
        scene.refused("push", "origin", MINE)
        git(scene.forge.path(APP), "branch", MINE, "main")
        other = scene.at_origin()
        done = scene.decide(scene.waiting())
        assert done["state"] == "failed"
        assert "stale info" in done["reason"]
        assert scene.at_origin() == other


def test_only_the_address_of_the_launch_is_reached(tmp_path: Path) -> None:
    """Neither one that the repository names by now, nor one that a server or the user's own rules would lead to."""
    with origin_scene(tmp_path) as scene:
        scene.commit()
        scene.refused("push", "origin", MINE)
        elsewhere = scene.forge.url("team/elsewhere")
        scene.forge.host("team/elsewhere", source=scene.user, public=True)
        git(scene.user, "config", "remote.origin.pushurl", elsewhere)
        assert "another address" in scene.decide(scene.waiting())["reason"]
        git(scene.user, "config", "--unset", "remote.origin.pushurl")
        git(scene.user, "config", "remote.origin.url", elsewhere)
        assert "another address" in scene.refused("fetch", "origin")
        git(scene.user, "config", "remote.origin.url", scene.forge.url(APP))
        scene.forge.tricks[APP] = redirect(f"https://evil.localhost:{scene.forge.port}")
        assert "another address, which is not followed" in scene.refused_anew("fetch", "origin")
        assert not scene.forge.secrets_seen("evil.localhost")


def test_nothing_of_the_users_runs_for_a_push(tmp_path: Path) -> None:
    """No hook of theirs, no signing and no tag that follows; their helper for credentials does."""
    with origin_scene(tmp_path) as scene:
        hooks = scene.home / "hooks"
        hooks.mkdir()
        (hooks / "pre-push").write_text(f"#!/bin/sh\ntouch {scene.home}/ran\n")
        (hooks / "pre-push").chmod(0o755)
        with (scene.home / ".gitconfig").open("a") as config:
            config.write(f"[core]\n\thooksPath = {hooks}\n[push]\n\tfollowTags = true\n\tgpgSign = true\n")
        scene.commit()
        scene.refused("push", "origin", MINE)
        assert scene.decide(scene.waiting())["state"] == "pushed"
        assert not (scene.home / "ran").exists()
        assert set(scene.forge.refs(APP)) == {"refs/heads/main", f"refs/heads/{MINE}"}


def test_origin_that_does_not_want_it(tmp_path: Path) -> None:
    with origin_scene(tmp_path, wait=60) as scene:
        scene.forge.hook(APP, "pre-receive", "echo 'no \033[1mbold\033[0m commits'; exit 1")
        scene.commit()
        pushing = scene.start("push", "origin", MINE)
        done = scene.decide(scene.waiting())
        assert done["state"] == "failed"
        _, said = pushing.communicate(timeout=30)
        assert "pre-receive hook declined" in said
        assert "commits" in said
        assert "\x1b" not in said
        assert scene.records("origin-push")[-1]["outcome"] == "failed"


def test_a_host_without_credentials_says_so(tmp_path: Path) -> None:
    with origin_scene(tmp_path) as scene:
        (scene.home / ".git-credentials").unlink()
        assert "no credential for it that works without a question" in scene.refused("fetch", "origin")
        (failed,) = scene.records("origin-fetch")[-1:]
        assert failed["outcome"] == "failed"
        assert scene.refused("fetch", "git://coding-agents/origin/7").count("no such origin") == 1


def test_further_addresses_are_fetched_only(tmp_path: Path) -> None:
    with origin_scene(tmp_path, settings='allow = ["{library}"]\n') as scene:
        scene.git("fetch", "--quiet", scene.forge.url("team/library"), "main:library")
        assert "only the session's own origin" in scene.refused(
            "push", scene.forge.url("team/library"), "HEAD:topic"
        )
        assert not scene.approvals()
        # A neighbour's address is left as it is.
        neighbour = scene.forge.url("team/library-2")
        assert scene.git("ls-remote", "--get-url", neighbour).stdout.strip() == neighbour


def test_the_sessions_branch_may_be_allowed_beforehand(tmp_path: Path) -> None:
    """And nothing else by it: no other branch, nothing replaced, and nothing that a blocking finding is in."""
    with origin_scene(tmp_path, allow_push=True) as scene:
        tip = scene.commit()
        scene.git("push", "origin", MINE)
        assert scene.at_origin() == tip
        assert scene.records("origin-push-decided")[-1]["rule"] == "origin-push-allowed"
        scene.refused("push", "origin", "HEAD:other")
        scene.git("commit", "--quiet", "--amend", "-m", "another")
        scene.refused("push", "--force", "origin", MINE)
        scene.git("reset", "--quiet", "--hard", tip)
        scene.commit(".env", "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzzzz\n")
        scene.refused("push", "origin", MINE)
        assert scene.at_origin() == tip
        assert scene.at_origin("other") == ""
        assert scene.waiting()


def test_a_merge_request_with_the_push(tmp_path: Path) -> None:
    with origin_scene(tmp_path) as scene:
        scene.commit()
        scene.refused("push", "-o", "merge_request.create", "origin", MINE)
        done = scene.decide(scene.waiting())
        assert "no merge request was opened" in done["said"]
        git(scene.forge.path(APP), "config", "receive.advertisePushOptions", "true")
        scene.forge.hook(
            APP, "post-receive", 'echo "$GIT_PUSH_OPTION_COUNT $GIT_PUSH_OPTION_0 $GIT_PUSH_OPTION_1"'
        )
        scene.commit("more")
        options = ("-o", "merge_request.create", "-o", "merge_request.target=develop")
        scene.refused("push", *options, "origin", MINE)
        approval = scene.waiting()
        assert (approval.wanted.merge_request, approval.wanted.target) == (True, "develop")
        assert scene.decide(approval)["said"] == "2 merge_request.create merge_request.target=develop"


def test_nothing_happens_that_cannot_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with origin_scene(tmp_path) as scene:
        scene.git("fetch", "--quiet", "origin")
        scene.commit()
        scene.refused("push", "origin", MINE)
        approval = scene.waiting()

        def full(*_: object, **__: object) -> None:
            raise AuditError("the log is full")

        monkeypatch.setattr(AuditLog, "record", full)
        asked = len(scene.forge.asked)
        assert "audit log" in scene.refused("fetch", "origin")
        assert len(scene.forge.asked) == asked
        with pytest.raises(AuditError):
            scene.decide(approval)
        assert scene.approvals()[0].state == "pending"
        assert scene.at_origin() == ""


def test_pushes_may_come_together(tmp_path: Path) -> None:
    with origin_scene(tmp_path, wait=60) as scene:
        scene.commit()
        pushing = [scene.start("push", "origin", f"HEAD:topic-{number}") for number in range(3)]
        for number in range(3):
            approval = scene.until(
                lambda branch=f"topic-{number}": next(
                    (one for one in scene.approvals() if one.branch == branch), None
                )
            )
            assert scene.decide(approval)["state"] == "pushed"
        said = [one.communicate(timeout=30) for one in pushing]
        assert [one.returncode for one in pushing] == [0, 0, 0], said
        assert not (scene.session.directory / "origin-push.git").exists()


def test_a_push_that_the_host_did_not_survive(tmp_path: Path) -> None:
    """It is not said to have arrived, and it can be made again."""
    with origin_scene(tmp_path) as scene:
        scene.commit()
        scene.refused("push", "origin", MINE)
        store = ApprovalStore(scene.session.directory)
        store.save(scene.waiting().evolve(state="approved"))
        OriginAccess(scene.session, scene.access._journal, scene.notices.append)._at_desk()
        assert scene.approvals()[0].state == "failed"
        scene.refused("push", "origin", MINE)
        shutil.rmtree(scene.session.directory / "origin-push.git")
        assert "not here any more" in scene.decide(scene.waiting())["reason"]
        scene.refused("push", "origin", MINE)
        assert scene.decide(scene.waiting())["state"] == "pushed"


def test_what_a_session_can_make_the_host_spend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with origin_scene(tmp_path) as scene:

        def refused(why: str) -> None:
            said = scene.refused_anew("fetch", "origin")
            assert why in said
            assert "On the host, see" in said

        scene.forge.tricks[APP] = hang
        monkeypatch.setattr(origin_store, "_LIST_S", 0.5)
        refused("did not end in time")
        scene.forge.tricks.pop(APP)
        monkeypatch.setattr(origin_store, "_LIST_S", 30.0)
        monkeypatch.setattr(origin_store, "_LIMITS", replace(origin_store._LIMITS, file_bytes=1 << 20))
        (scene.user / "large").write_bytes(os.urandom(3 << 20))
        git(scene.user, "add", "large")
        git(scene.user, "commit", "--quiet", "-m", "large")
        git(scene.user, "push", "--quiet", str(scene.forge.path(APP)), "main")
        refused("a pack of more than")
        service = scene.access._service
        assert service is not None
        service._active = 99  # one that has just ended may still be leaving
        assert "asked too often" in scene.refused("fetch", "origin")
        service._active, service._turns = 0, Turns(1, 3600.0)
        scene.refused("fetch", "origin")
        asked = len(scene.forge.asked)
        assert "asked too often" in scene.refused("fetch", "origin")
        scene.server.identity = Identity.SALVAGE  # who brings back a volume has nothing to do with origin
        assert "nothing but git://coding-agents/workspace" in scene.refused("fetch", "origin")
        assert len(scene.forge.asked) == asked


def test_origin_by_ssh(tmp_path: Path) -> None:
    """With the user's own key and configuration of ssh, of which the agent sees nothing."""
    with origin_scene(tmp_path) as scene, ssh_forge(tmp_path / "ssh", scene.forge.root) as sshd:
        key = ssh_key(tmp_path / "key")
        sshd.allow("ada", key, team__app="write")
        sshd.trust(scene.home, key)
        scene.move_origin(sshd.scp_like(APP))
        scene.git("fetch", "--quiet", "origin")
        tip = scene.commit()
        scene.refused("push", "origin", MINE)
        assert scene.decide(scene.waiting())["state"] == "pushed"
        assert scene.at_origin() == tip
        assert scene.records("origin-push")[-1]["subject"].startswith(sshd.scp_like(APP))
        (sshd.directory / "authorized").write_text("")
        assert "no credential" in scene.refused_anew("fetch", "origin")


def test_a_look_that_broke_off_allows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hostile content makes of the process that looks is a finding, and a person is asked."""
    with origin_scene(tmp_path, allow_push=True) as scene:
        monkeypatch.setattr(look_apart, "_MODULE", "coding_agents.nothing")
        scene.commit()
        assert "waiting for approval" in scene.refused("push", "origin", MINE)
        assert scene.waiting().shown.blocking == 1
        assert scene.at_origin() == ""
