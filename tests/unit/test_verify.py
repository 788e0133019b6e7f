"""Verification: what answers mean, how results are counted and told, and which threats have a check."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from msgspec.structs import replace

from coding_agents.app.verify_bounds import bounds_for
from coding_agents.app.verify_sessions import Bounds
from coding_agents.app.verify_targets import free_link_local
from coding_agents.cli.context import AppContext
from coding_agents.cli.verify import command
from coding_agents.engine.features import PODMAN
from coding_agents.engine.unguarded import Plain, plain_argv
from coding_agents.errors import BreachError
from coding_agents.verify.catalogue import all_checks
from coding_agents.verify.describe import SCENE, reference_page
from coding_agents.verify.html import to_html
from coding_agents.verify.judges import equal, holds, not_done, nothing, only, refused, unreachable, worked
from coding_agents.verify.model import Check, Found, Judge, Report, Result, judge, score
from coding_agents.verify.program import attack_argv, sources
from coding_agents.verify.report import GROUPS, to_json, to_lines
from coding_agents.verify.scene import attempts, bare_attempts, ways_home
from support.host import host_environment

ROOT = Path(__file__).parents[2]
CHECKS = {one.id: one for one in all_checks(SCENE)}

# --- judges --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judge_of", "value", "status"),
    [
        (refused(), {"a": "EPERM", "b": "EROFS"}, "passed"),
        (refused(), {"a": "EPERM", "b": ""}, "failed"),
        (refused(), {"a": "EINVAL"}, "failed"),  # it was allowed, and only badly worded
        (refused("a"), {"a": "ENOSYS", "b": ""}, "passed"),
        (refused("a"), {"a one": "ENOSYS", "a two": ""}, "failed"),
        (not_done(), {"a": "status 1"}, "passed"),
        (not_done("b"), {"a": "", "b": "EINVAL"}, "passed"),
        (not_done(), {"a": ""}, "failed"),
        (worked, {"a": ""}, "passed"),
        (worked, {"a": "EROFS"}, "failed"),
        (worked, {}, "failed"),
        (nothing("x"), [], "passed"),
        (nothing("x"), ["one"], "failed"),
        (only({"a"}, "x"), ["a"], "passed"),
        (only({"a"}, "x"), ["a", "b"], "failed"),
        (equal("x"), "x", "passed"),
        (equal("x"), "y", "failed"),
        (holds(bool, "x"), 0, "failed"),
        (unreachable(), {"t": ["refused", 0.1, "ECONNREFUSED"]}, "passed"),
        (unreachable(), {"t": ["open", 0.1, ""]}, "failed"),
        (unreachable(), {"t": ["silent", 1.3, ""]}, "failed"),  # a guard refuses, it does not drop
        (unreachable(), {"t": ["refused", 1.3, "ECONNREFUSED"]}, "failed"),
        (unreachable(silent=True), {"t": ["silent", 1.3, ""]}, "passed"),
        (unreachable(silent=True), {"t": ["open", 0.0, ""]}, "failed"),
        (unreachable(), {}, "unknown"),  # nobody reaches it, so it proves nothing
    ],
)
def test_what_an_answer_means(judge_of: Judge, value: Any, status: str) -> None:
    assert judge_of(value).status == status


@pytest.mark.parametrize(
    ("check", "value", "status"),
    [
        ("limits.time-recorded", {"left_s": 3500.0, "same_boot": True}, "passed"),
        ("limits.time-recorded", {"left_s": 3500.0, "same_boot": False}, "failed"),  # the wall clock would count
        ("limits.time-recorded", {"left_s": -1.0}, "failed"),
        ("limits.time-recorded", {"left_s": 7200.0, "same_boot": True}, "failed"),
        ("limits.time", {"phase": "stopped", "reasons": ["its time of 1h is up"]}, "passed"),
        ("limits.time", {"phase": "running", "reasons": []}, "failed"),
        ("limits.time", {"phase": "stopped", "reasons": ["the engine's disk has only 1g left"]}, "failed"),
        ("network.bandwidth", {"rate": 250_000, "seconds": 0.1, "bytes": 5 << 20, "passed": 390_000, "dropped": 1},
         "passed"),
        ("network.bandwidth", {"rate": 250_000, "seconds": 0.1, "bytes": 5 << 20, "passed": 5 << 20, "dropped": 0},
         "failed"),
        ("network.bandwidth", {"rate": 250_000, "seconds": 0.1, "bytes": 5 << 20, "passed": 0, "dropped": 0}, "failed"),
        ("network.bandwidth", {"rate": 0, "seconds": 0.1, "bytes": 5 << 20, "passed": 0, "dropped": 0}, "failed"),
        ("network.bandwidth", {"rate": 250_000, "seconds": 1.0, "bytes": 900_000, "passed": 9, "dropped": 9},
         "unknown"),
        ("limits.disk-read", {"limited": 1.2, "free": 0.05}, "passed"),
        ("limits.disk-read", {"limited": 0.1, "free": 0.05}, "failed"),
        ("limits.disk-write", {"limited": 1.2, "free": 1.1}, "unknown"),  # a slow disk proves nothing
    ],
)  # fmt: skip
def test_what_a_bound_has_let_through(check: str, value: Any, status: str) -> None:
    assert CHECKS[check].judge(value).status == status


@pytest.mark.parametrize(
    ("check", "value", "status"),
    [
        ("credentials.stored", {"the place itself": ""}, "passed"),
        ("credentials.stored", {"the place itself": "username=a\npassword=b\n"}, "failed"),
        ("credentials.by-git", "", "passed"),
        ("credentials.by-git", "username=a\npassword=b\n", "failed"),
        ("signing.tag", {"a tag": ""}, "passed"),
        ("signing.tag", {"a tag": "-----BEGIN SSH SIGNATURE-----"}, "failed"),
        ("signing.tag", {"honest": ""}, "unknown"),  # what was asked for was not tried
        ("signing.works", {"honest": "-----BEGIN SSH SIGNATURE-----"}, "passed"),
        ("signing.works", {"honest": ""}, "failed"),
        ("origin.push-force", " ! [remote rejected] x (why)\nerror: y\n", "passed"),
        ("origin.push-force", "", "failed"),
        ("origin.fetch-works", "", "passed"),
        ("origin.fetch-works", "fatal: x", "failed"),
        ("origin.nothing-passed", ["refs/heads/x"], "failed"),
    ],
)
def test_what_the_host_has_given_to_a_sessions_git(check: str, value: Any, status: str) -> None:
    assert judge(CHECKS[check], "restricted", {CHECKS[check].evidence: Found(value)}).status == status


NONSENSE = (None, 7, "", [], [1], {"a": None}, {"a": 1}, [{}], {"refused": 1}, [["x"]], "open", {"t": []})


@pytest.mark.parametrize("value", NONSENSE)
def test_nonsense_from_inside_never_raises(value: Any) -> None:
    for one in CHECKS.values():
        result = judge(one, one.modes[0], {one.evidence: Found(value)})
        assert result.status in ("passed", "failed", "unknown")


def test_what_was_not_tried_is_unknown() -> None:
    for one in CHECKS.values():
        assert judge(one, "restricted", {}).status == "unknown"
        failed = judge(one, "restricted", {one.evidence: Found(error="time limit", ms=7)})
        assert (failed.status, failed.detail, failed.duration_ms) == ("unknown", "time limit", 7)


@pytest.mark.parametrize("value", [{}, []])
def test_no_answers_at_all_do_not_pass_for_refusals(value: Any) -> None:
    """A check that only counts refusals has something to count."""
    prefixes = (
        "kernel.",
        "privileges.",
        "sockets.",
        "return.push",
        "signing.",
        "origin.push",
        "credentials.s",
    )
    counting = [one for one in CHECKS.values() if one.id.startswith(prefixes)]
    assert len(counting) > 30
    for one in counting:
        # Other machines have none of these calls; and nothing found is what a search is to say.
        if one.id not in ("kernel.raw-io", "signing.key"):
            assert judge(one, "restricted", {one.evidence: Found(value)}).status != "passed", one.id


# --- the checks ----------------------------------------------------------------------------------------------


def test_checks_have_ids_of_their_own_and_known_classes() -> None:
    every = all_checks(SCENE)
    assert len(CHECKS) == len(every) >= 80
    assert {one.group for one in every} == set(GROUPS)
    assert all(re.fullmatch(r"[a-z]+\.[a-z0-9-]+", one.id) for one in every)
    assert len({(one.evidence, one.tried) for one in every}) == len(every)


def test_what_is_tried_inside_exists_and_is_json() -> None:
    texts = sources()
    for name, one in {**attempts(SCENE), **ways_home(SCENE)}.items():
        assert f"\ndef {one.function}(" in texts[f"coding_agents.attacks.{one.module}"], name
        assert json.loads(json.dumps(one.arguments)) is not None
    argv = attack_argv("suite", "run", ([["x", "files", "mounts", []]], 1.0, 1))
    assert max(map(len, argv)) < 128 * 1024  # of one argument: MAX_ARG_STRLEN


def test_contrast_is_made_of_attempts_that_need_nothing_of_ours() -> None:
    inside = set(bare_attempts(SCENE))
    for one in CHECKS.values():
        if one.baseline and "allow-all" in one.modes:
            assert one.evidence in inside or one.evidence.startswith("knock "), one.id
    assert not {one.module for one in bare_attempts(SCENE).values()} & {"brokers", "repository"}
    assert not {one.function for one in bare_attempts(SCENE).values()} & {
        "bomb",
        "hoard",
        "end_by_memory",
        "fill",
    }


def test_the_reference_page_is_made_of_the_checks() -> None:
    assert (ROOT / "docs/reference/verify.md").read_text("utf-8") == reference_page()


def test_sessions_are_given_bounds_that_widen_nothing_that_is_set(tmp_path: Path) -> None:
    plain = host_environment(tmp_path)
    assert bounds_for(plain, "restricted") == Bounds(time_limit="3600")
    assert bounds_for(plain, "allow-all") == Bounds(bandwidth="2000kbit")
    small = bounds_for(plain, "small")
    assert (small.disk_read, small.best_effort) == ("8388608", ("disk-read", "disk-write"))
    tight = host_environment(
        tmp_path,
        CODING_AGENTS_LIMITS_TIME="30m",
        CODING_AGENTS_LIMITS_BANDWIDTH="100kbit",
        CODING_AGENTS_LIMITS_DISK_READ="1m",
        CODING_AGENTS_LIMITS_DISK_WRITE="1m",
    )
    for mode in ("restricted", "allow-all", "small"):
        given = bounds_for(tight, mode)
        assert {given.time_limit, given.bandwidth, given.disk_read, given.disk_write} == {None}


# --- whom they are aimed at ----------------------------------------------------------------------------------


def test_a_link_local_range_overlaps_no_route_and_no_metadata_service() -> None:
    assert free_link_local(["0.0.0.0/0 eth0", "10.0.0.0/8 eth0"]) == "169.254.17.0/24"
    assert free_link_local(["169.254.17.0/24 a", "169.254.18.0/23 b"]) == "169.254.20.0/24"
    assert free_link_local(["169.254.0.0/16 eth0"]) is None
    taken = [f"169.254.{third}.0/24 x" for third in range(256) if third not in (169, 170)]
    assert free_link_local(taken) is None


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "passed"),
        ({"root": "/etc"}, "failed"),
        ({"root": "/home"}, "failed"),
        ({"source": "/dev/vda"}, "failed"),
        ({"point": "/mnt"}, "failed"),
    ],
)
def test_a_disk_of_a_sessions_own_is_no_path_of_the_host(changes: dict[str, str], status: str) -> None:
    mount = {
        "root": "/workspace",
        "point": "/workspace",
        "type": "ext4",
        "source": "/dev/loop3",
        "options": "rw",
    }
    assert CHECKS["files.host-paths"].judge([{**mount, **changes}]).status == status


def test_a_container_without_our_walls_mounts_nothing_but_one_directory() -> None:
    plain = Plain(
        image="sha256:1", argv=("sleep", "9"), labels={"a": "b"}, network="n", user="0:0", shared=Path("/t/x")
    )
    argv = plain_argv(plain, PODMAN.create_flags)
    assert argv[:3] == ("run", "--detach", "--pull=never")
    assert [word for word in argv if "/t/x" in word] == ["--volume=/t/x:/workspace"]
    assert argv[-3:] == ("--entrypoint=sleep", "sha256:1", "9")
    assert not any(
        word.startswith(("--privileged", "--device", "--publish", "--cap-add", "--pid")) for word in argv
    )
    walled = plain_argv(replace(plain, walled=True, shared=None))
    assert {"--cap-drop=ALL", "--read-only", "--security-opt=no-new-privileges"} <= set(walled)


# --- how it is told ------------------------------------------------------------------------------------------

HOSTILE = '<script>alert("x")</script>\x1b]0;x\x07\u202e'


def result(status: Any, id: str = "files.work", mode: str = "allow-all", detail: str = HOSTILE) -> Result:
    return Result(
        id=id,
        group="egress",
        mode=mode,
        status=status,
        tried=HOSTILE,
        stopped_by="x",
        detail=detail,
        duration_ms=3,
    )


def report(*statuses: Any) -> Report:
    found = tuple(result(status, f"files.x{n}") for n, status in enumerate(statuses))
    return Report("Docker", "1", found, {HOSTILE: found})


def test_the_score_is_100_only_when_everything_passed() -> None:
    assert report("passed", "passed").score == 100
    assert report(*["passed"] * 999, "failed").score == 99
    assert report(*["passed"] * 999, "unknown").score == 99
    assert score([]) == 0


def test_the_object_of_json_is_the_documented_one() -> None:
    told = json.loads(json.dumps(to_json(report("passed", "failed"))))
    assert set(told) == {"score", "checks", "baseline"}
    keys = {"id", "class", "mode", "status", "tried", "stopped_by", "detail", "duration_ms"}
    assert all(set(one) == keys for one in told["checks"])
    assert set(told["baseline"][HOSTILE]) == {"score", "checks"}
    assert json.loads(json.dumps(to_json(Report("D", "1", ()))))["baseline"] is None


def test_failures_are_told_first() -> None:
    lines = list(to_lines(report("passed", "unknown", "failed")))
    assert lines[0].startswith("FAILED")
    assert lines[2].startswith("unknown")
    assert "1 of 3 stopped, 1 not stopped, 1 unknown, score 33" in "\n".join(lines)


def test_the_page_holds_no_markup_and_no_invisible_character_of_a_container() -> None:
    page = to_html(report("failed", "passed"), made=HOSTILE)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert all(char.isprintable() or char == "\n" for char in page)
    assert 'src="' not in page
    assert "href" not in page
    assert "NOT STOPPED" in page


def run_verb(monkeypatch: pytest.MonkeyPatch, app: AppContext, found: Report, *args: str) -> object:
    monkeypatch.setattr("coding_agents.app.verify.verify", lambda *_args, **_options: found)
    with command.make_context("verify", list(args), obj=app) as context:
        return command.invoke(context)


def test_a_breach_ends_the_verb_with_its_own_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from support.host import host_environment

    app = AppContext(replace(host_environment(tmp_path), cwd=tmp_path))
    with pytest.raises(BreachError, match=r"1 attack\(s\) were not stopped: files.x1") as caught:
        run_verb(monkeypatch, app, report("passed", "failed"), "--json", "--html", "page.html")
    assert caught.value.exit_status == 39
    assert json.loads(capsys.readouterr().out)["score"] == 50
    assert "NOT STOPPED" in (tmp_path / "page.html").read_text("utf-8")
    assert (
        run_verb(monkeypatch, app, report("passed", "unknown")) == 0
    )  # unknown is no breach, and no 100 either
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "score 50" in out


# --- which threats have a check ------------------------------------------------------------------------------

REASONS = {"shown by tests alone", "not built yet"}
"""Why a threat has no check here; each such one is tested, or will be, where it is built."""

DATA = Path(__file__).parent / "data"
CLASSES = {
    "Egress": "egress", "Return path": "return-path", "Terminal and logs": "terminal-and-logs",
    "Configuration as code": "configuration-as-code", "Container and kernel": "container-and-kernel",
    "Model as a network": "model-as-a-network", "Same uid": "same-uid", "Custom images": "custom-images",
    "Brokers": "brokers", "Audit": "audit", "Silent weakening": "silent-weakening",
}  # fmt: skip


def test_each_line_of_the_matrix_has_a_check_or_says_why_not() -> None:
    """`threats.md` is a copy of the list that this project is held against."""
    text = (DATA / "threats.md").read_text("utf-8")
    table = text.split("## Operation matrix")[1].split("## Attack classes")[0]
    operations = [
        line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")
    ]
    mapped = tomllib.loads((DATA / "threat-checks.toml").read_text("utf-8"))["line"]
    assert operations[2:] == [one["operation"] for one in mapped]
    for one in mapped:
        if "without" in one:
            assert one["without"] in REASONS, one
        else:
            assert one["checks"], one
            assert set(one["checks"]) <= set(CHECKS), one


def test_each_attack_class_has_checks_in_the_quick_run_or_the_full_one() -> None:
    text = (DATA / "threats.md").read_text("utf-8")
    named = re.findall(r"^\*\*([A-Za-z ]+)\*\* — ", text, re.MULTILINE)
    assert named == list(CLASSES)
    made: dict[str, list[Check]] = {
        group: [one for one in CHECKS.values() if one.group == group] for group in GROUPS
    }
    assert {CLASSES[name] for name in named} == set(GROUPS)
    assert [name for name in named if not made[CLASSES[name]]] == []
    assert [group for group, checks in made.items() if all(one.full for one in checks)] == ["custom-images"]


def test_the_verb_takes_the_documented_flags() -> None:
    flags = {flag for one in command.params if isinstance(one, click.Option) for flag in one.opts}
    assert {"--quick", "--baseline", "--json", "--html", "--engine", "--all"} <= flags
