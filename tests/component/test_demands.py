"""What an organisation decides, and what a user asks for: no flag of a launch and no later start gets around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coding_agents.app.demands import Demands, _as_flags, _private, demands_at_start, require_enforceable
from coding_agents.app.doctor import _settings, limits_check
from coding_agents.app.egress import renewed_egress
from coding_agents.app.launch_plan import launch_runtime
from coding_agents.app.launch_request import LaunchOptions, LaunchRequest, parse_request
from coding_agents.cli.launch import command
from coding_agents.config.load import load_settings
from coding_agents.errors import EnforcementError, NotBuiltError, SessionStateError, UsageError
from coding_agents.gitsync.relay_limits import DEFAULT_LIMITS
from coding_agents.model.limits import NO_DISK, NO_IO, NO_RATE, NO_TIME
from coding_agents.model.settings import SETTINGS, Tighten
from coding_agents.model.spending import NO_COST, NO_TOKENS
from coding_agents.network.allowlist import Egress, effective
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.egress_kept import write_egress
from coding_agents.supervisor.relay_budgets import relay_limits
from coding_agents_guest.egress.rules import Request, parse_rule
from support.fake_engine import FakeEngine
from support.host import host_environment
from support.sessions import REPO, session_record

LIMITS = {
    "cpus": "4", "memory_bytes": str(8 << 30), "pids": "4096", "file_bytes": str(1 << 30), "time_s": str(NO_TIME),
    "bandwidth": str(NO_RATE), "disk": str(NO_DISK), "disk_read": str(NO_IO), "disk_write": str(NO_IO),
    "tokens": str(NO_TOKENS), "cost": str(NO_COST),
}  # fmt: skip
# A value of each flag of `launch` that stands for a setting, which is not the default.
WIDER: dict[str, dict[str, Any]] = {
    "engine": {"engine": "podman"},
    "agent": {"agent": "demo"},
    "limits.cpu": {"cpu": "8"},
    "limits.memory": {"memory": "64g"},
    "limits.pids": {"pids": "9999"},
    "limits.time": {"time_limit": "3h"},
    "limits.bandwidth": {"bandwidth": "90mbit"},
    "limits.disk": {"disk": "900g"},
    "limits.disk_read": {"disk_read": "900m"},
    "limits.disk_write": {"disk_write": "900m"},
    "sandbox.allow_ptrace": {"allow_ptrace": True},
    "network.mode": {"network": "allow-all"},
    "network.allow": {"allow": ("api.example.org",)},
    "workspace.include": {"include": ("*.env",)},
    "git.message": {"message": "mine"},
    "runtime": {"runtime": "runc"},
    "git.push": {"no_push": True},
    "identity.as_agent": {"as_agent": True},
    "model.max_tokens": {"max_tokens": "5m"},
    "model.max_cost": {"max_cost": "5"},
    "best_effort": {"best_effort": ("swap",)},
}


@pytest.fixture
def organisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The organisation's file, for every caller of `load_settings`."""
    path = tmp_path / "org.toml"
    monkeypatch.setitem(load_settings.__kwdefaults__, "organisation_file", path)
    return path


def request(tmp_path: Path, **flags: Any) -> LaunchRequest:
    return parse_request(host_environment(tmp_path / "home"), LaunchOptions(empty=True, **flags))


def test_each_setting_that_has_a_flag_is_attacked_here() -> None:
    assert set(WIDER) == {setting.key for setting in SETTINGS if setting.flag}
    fields = {name for flags in WIDER.values() for name in flags}
    assert fields <= {option.name for option in command.params}


@pytest.mark.parametrize("key", WIDER)
def test_no_flag_widens_what_the_organisation_manages(organisation: Path, tmp_path: Path, key: str) -> None:
    bound = {
        "limits.disk": '"5g"', "limits.disk_read": '"50m"', "limits.disk_write": '"50m"', "limits.time": '"2h"',
        "limits.bandwidth": '"10mbit"', "network.mode": '"restricted"', "model.max_tokens": '"1m"',
        "model.max_cost": "1",
    }  # fmt: skip
    organisation.write_text(f'managed = ["{key}"]\n' + (f"{key} = {bound[key]}\n" if key in bound else ""))
    with pytest.raises(UsageError, match=rf"is refused: your organisation manages {key}") as caught:
        request(tmp_path, **WIDER[key])
    assert str(organisation) in caught.value.message


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        ({}, set()),
        ({"memory": "4g"}, {"memory", "swap"}),
        ({"memory": "4g", "best_effort": ("swap",)}, {"memory"}),
        ({"memory": "4g", "cpu": "1", "best_effort": ("memory", "swap", "cpus")}, set()),
    ],
)
def test_what_was_asked_for_must_be_there_but_for_what_may_be_missing(
    tmp_path: Path, flags: dict[str, Any], asked: set[str]
) -> None:
    assert request(tmp_path, **flags).demands.needed == asked


def test_a_required_protection_is_no_best_effort(tmp_path: Path) -> None:
    for name in ("seccomp", "network", "nonsense"):
        with pytest.raises(UsageError, match=rf"--best-effort: .*{name}"):
            request(tmp_path, best_effort=(name,))


def _session(tmp_path: Path, **changes: Any) -> SessionContext:
    env = host_environment(tmp_path / "home")
    return SessionContext(env, SessionStore(env.state_dir), session_record(**{"limits": LIMITS, **changes}))


def test_a_start_has_the_demands_of_its_launch_and_of_the_organisation_now(tmp_path: Path) -> None:
    session = _session(tmp_path, asked=("memory", "swap"), best_effort=("swap", "apparmor"))
    org = tmp_path / "org.toml"
    was = Demands(frozenset({"memory", "swap"}), frozenset({"swap", "apparmor"}))
    assert demands_at_start(session, organisation_file=org) == was
    org.write_text("[require]\napparmor = true\n")
    now = demands_at_start(session, organisation_file=org)
    assert now.needed == {"memory", "apparmor"}


@pytest.mark.parametrize(
    ("rule", "record"),
    [
        ('managed = ["network.mode"]\nnetwork.mode = "restricted"\n', {"network": "allow-all"}),
        ('managed = ["sandbox.allow_ptrace"]\n', {"allow_ptrace": True}),
        ('managed = ["limits.memory"]\nlimits.memory = "4g"\n', {}),
        ('managed = ["limits.time"]\nlimits.time = "1h"\n', {}),
        ('managed = ["limits.bandwidth"]\nlimits.bandwidth = "10mbit"\n', {}),
        ('managed = ["limits.disk"]\nlimits.disk = "5g"\n', {}),
        ('managed = ["limits.disk_read"]\nlimits.disk_read = "50m"\n', {}),
        ('managed = ["limits.disk_write"]\nlimits.disk_write = "50m"\n', {}),
        ('managed = ["limits.file"]\nlimits.file = "512m"\n', {}),
        ('managed = ["model.max_tokens"]\nmodel.max_tokens = "1m"\n', {}),
        ('managed = ["model.max_cost"]\nmodel.max_cost = 1\n', {}),
        ('managed = ["engine"]\nengine = "podman"\n', {}),
        ('managed = ["runtime"]\nruntime = "runsc"\n', {}),
        ('managed = ["network.private"]\n', {"private": ("10.0.0.1:443",)}),
    ],
)
def test_a_session_from_before_the_rule_is_not_started(
    tmp_path: Path, rule: str, record: dict[str, Any]
) -> None:
    org = tmp_path / "org.toml"
    session = _session(tmp_path, **record)
    demands_at_start(session, organisation_file=org)
    org.write_text(rule)
    with pytest.raises(SessionStateError, match="does not allow any more") as caught:
        demands_at_start(session, organisation_file=org)
    assert str(org) in caught.value.details
    assert "coding-agents recover" in caught.value.hint


def test_every_limit_of_a_session_is_looked_at_again(tmp_path: Path) -> None:
    bound = {setting.key for setting in SETTINGS if setting.tighten in (Tighten.LOWER, Tighten.STRICTER)}
    live = {key for key in bound if key.startswith("relay.")}  # these are read anew by each supervisor
    live.add("signing.mode")  # with each commit (test_signing)
    live.add("origin.access")  # with each start, which resolves the addresses anew
    live.add("credentials.gitconfig")  # of a launch alone: the file has been the agent's own since
    assert bound - live <= set(_as_flags(_session(tmp_path)))


def test_a_budget_is_not_taken_for_none_because_another_has_that_number(tmp_path: Path) -> None:
    """A million tokens, and a gigabyte a second: the numbers by which the cost and the time have no limit."""
    org = tmp_path / "org.toml"
    org.write_text(
        'managed = ["model.max_tokens", "limits.bandwidth"]\nmodel.max_tokens = "2m"\nlimits.bandwidth = "20gbit"\n'
    )
    limits = {**LIMITS, "tokens": "1000000", "bandwidth": "1000000000"}
    demands_at_start(_session(tmp_path, limits=limits), organisation_file=org)


def _proxied(tmp_path: Path, egress: Egress) -> SessionContext:
    session = _session(tmp_path, network="squid")
    session.directory.mkdir(parents=True)
    write_egress(session.directory, egress)
    return session


@pytest.mark.parametrize(
    ("rule", "held"),
    [
        ('"network.allow"]\nnetwork.allow = ["a.example"]', {"opened": {"settings": ("a.example",)}}),
        ('"network.upload"]\nnetwork.upload = "1g"', {"upload": 1 << 29}),
        ('"network.allow_ech"]', {}),
    ],
)
def test_a_session_keeps_a_way_out_that_its_organisation_allows(tmp_path: Path, rule: str, held: Any) -> None:
    org = tmp_path / "org.toml"
    org.write_text(f"managed = [{rule}\n")
    demands_at_start(_proxied(tmp_path, Egress(**held)), organisation_file=org)


@pytest.mark.parametrize(
    ("rule", "held"),
    [
        ('"network.allow"]\nnetwork.allow = ["a.example"]', {"opened": {"settings": ("b.example",)}}),
        ('"network.upload"]\nnetwork.upload = "1g"', {"upload": 2 << 30}),
        ('"network.upload"]\nnetwork.upload = "1g"', {}),
        ('"network.allow_ech"]', {"allow_ech": True}),
    ],
)
def test_and_none_that_it_does_not_allow_any_more(tmp_path: Path, rule: str, held: Any) -> None:
    org = tmp_path / "org.toml"
    org.write_text(f"managed = [{rule}\n")
    with pytest.raises(SessionStateError, match="organisation"):
        demands_at_start(_proxied(tmp_path, Egress(**held)), organisation_file=org)


def test_a_start_closes_what_is_closed_by_now_and_gives_an_organisation_its_list_back(
    organisation: Path, tmp_path: Path
) -> None:
    organisation.write_text('managed = ["network.allow"]\n[network]\ndeny = ["*.evil.example"]\n')
    settings = load_settings(host_environment(tmp_path))
    before = Egress(
        {"settings": ("a.example",)}, {"settings": ("b.example",), "model": ("m.example",)}, ("c.example",)
    )
    renewed = renewed_egress(before, settings)
    assert renewed.closed == {"settings": ("b.example", "*.evil.example"), "model": ("m.example",)}
    assert renewed.managed
    reached = effective(renewed, [parse_rule("d.example", "user")])
    allowed = {host for host in "abcd" if reached.decide(Request("https", f"{host}.example", 443)).allowed}
    assert allowed == {"a"}


def test_doctor_says_that_an_organisation_decides(organisation: Path, tmp_path: Path) -> None:
    env = host_environment(tmp_path)
    assert "in force" not in _settings(env).detail
    organisation.write_text('managed = ["engine", "agent"]\n[require]\nswap = true\n')
    assert (
        f"; in force: {organisation}, which manages agent, engine and requires swap" in _settings(env).detail
    )
    organisation.write_text("")
    assert f"; in force: {organisation}, which binds nothing" in _settings(env).detail


def test_a_broken_file_of_the_repository_does_not_widen_the_budgets_of_pushes(tmp_path: Path) -> None:
    """It may have come with the work itself: the user's own stand, also when it breaks in the middle of a session."""
    tree = tmp_path / "shop"
    tree.mkdir()
    session = _session(tmp_path, repo=replace(REPO, work_tree=str(tree)))
    session.env.user_config.parent.mkdir(parents=True)
    session.env.user_config.write_text('[relay]\npush = "64m"\n')
    for text in ("", "engine =\n", '[relay]\npush = "9g"\n'):
        (tree / ".coding-agents.toml").write_text(text)
        assert relay_limits(session).push_bytes == 64 << 20
    session.env.user_config.write_text("engine =\n")
    assert relay_limits(session) == DEFAULT_LIMITS


def test_the_engines_own_choice_is_not_named_but_for_gvisor(tmp_path: Path) -> None:
    """Which has to be planned for, whoever chose it."""
    info = FakeEngine(tmp_path).info
    auto = request(tmp_path)
    assert launch_runtime(auto, info) == ""
    assert launch_runtime(auto, replace(info, default_runtime="crun")) == ""
    assert launch_runtime(auto, replace(info, default_runtime="runsc")) == "runsc"
    assert launch_runtime(request(tmp_path, runtime="crun"), replace(info, default_runtime="runsc")) == "crun"


def test_a_limit_that_the_engine_ignores_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """But not the default ones, and not what may be missing."""
    info = replace(
        FakeEngine(tmp_path).info,
        title="Podman",
        rootless=True,
        cgroup_version=1,
        ignored_limits=("memory", "swap", "pids"),
    )
    require_enforceable(info, Demands(), "")
    asked = Demands(frozenset({"memory", "swap", "cpus"}), frozenset({"swap"}))
    with pytest.raises(
        EnforcementError, match=r"limit on memory here and ignores it \(rootless, cgroup v1\)"
    ) as caught:
        require_enforceable(info, asked, "")
    assert "--best-effort memory." in caught.value.hint
    require_enforceable(info, replace(asked, best_effort=frozenset({"memory", "swap"})), "")
    with pytest.raises(NotBuiltError, match="does not work with Podman without root"):
        require_enforceable(info, Demands(), "runsc")
    assert (limits_check(info).status, "memory, swap, pids" in limits_check(info).detail) == ("warn", True)


def test_private_places_are_compared_as_settings_write_them() -> None:
    """The host's own proxy, which the guard has to open, is no setting; and an address of mode squid has its name."""
    egress = Egress(
        opened={"private": ("mirror.example:443", "six.example:8443")},
        names={"mirror.example": "10.1.2.3", "six.example": "fd00::1"},
        host_proxy="10.9.9.9:3128",
    )
    opened = ("10.1.2.3:443", "[fd00::1]:8443", "10.4.4.4:80", "10.9.9.9:3128")
    wanted = ["mirror.example=10.1.2.3:443", "six.example=[fd00::1]:8443", "10.4.4.4:80"]
    assert _private(opened, egress) == wanted
    assert _private(opened, None) == list(opened)
