"""`images update` with a stub engine and an npm that is played: what counts when, and what a failure leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest
from msgspec.structs import replace

from coding_agents.app.trial import is_check, require_checkable
from coding_agents.app.trial_place import has_marker, trial_place
from coding_agents.app.update import Updated, Updater
from coding_agents.errors import EngineError, ImageBuildError, ImageUpdateError, StoreError
from coding_agents.images.api import ImageRef
from coding_agents.images.build import BuildSettings, current_image, ensure_image, plan_images
from coding_agents.images.manifests import find_agent, load_manifest, pins_file
from coding_agents.images.recipes import agent_ref
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.pins import PinFile, render_pins
from coding_agents.store.files import locked
from support.host import host_environment
from support.image_engine import ImageEngineStub
from support.product import user_of
from support.sessions import REPO, session_record

TODAY = date(2026, 11, 29)
LOCAL, PREVIOUS, CANDIDATE = (agent_ref("claude", tag) for tag in ("local", "previous", "candidate"))
SHIPPED = load_manifest("claude").packages["claude"]
SHOWN = SHIPPED.shown[0]


def digest(version: str, arch: str) -> str:
    """The integrity of a version that is played."""
    if version == SHIPPED.version:
        return SHIPPED.integrity[arch]
    letter = "ABCDEFGHIJ"[sum(map(ord, version + arch)) % 10]
    return f"sha512-{letter * 86}=="


@dataclass
class Site:
    """A user, an engine with the images of the shipped pins, and npm with `newest`. `verdict` fails the check."""

    home: Path
    newest: str = "2.9.0"
    verdict: str = ""
    tried: list[tuple[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    engine: ImageEngineStub = field(
        default_factory=lambda: ImageEngineStub(registry=frozenset({"debian:bookworm-slim"}))
    )

    def __post_init__(self) -> None:
        self.env = host_environment(self.home)
        self.builds = BuildSettings(
            self.home / "work", {"TMPDIR": str(self.home)}, self.lines.append, pins_dir=self.env.pins_dir
        )
        self.first = ensure_image(self.engine, "claude", self.builds).id

    def npm(self, specs: Sequence[str]) -> list[bytes]:
        answers = []
        for spec in specs:
            name, _, version = spec.rpartition("@")
            version = self.newest if version == "latest" else version
            found = {
                "name": name,
                "version": version,
                "dist.integrity": digest(version, name.rpartition("-")[2]),
            }
            answers.append(json.dumps(found).encode())
        return answers

    def check(self, manifest: AgentManifest, images: tuple[ImageRef, ImageRef]) -> None:
        # While it is tried, nobody else gets it.
        assert self.engine.image_id(CANDIDATE) == images[1].id
        self.tried.append((manifest.packages["claude"].version, self.version()))
        if self.verdict:
            raise ImageUpdateError(self.verdict, details="what it printed")

    @property
    def updater(self) -> Updater:
        return Updater(self.env, self.engine, self.builds, self.npm, self.check, TODAY)

    def update(self, *, version: str = "", only_look: bool = False) -> Updated:
        return self.updater.update("claude", version=version, only_look=only_look)

    def version(self) -> str:
        """What a launch would use now."""
        return find_agent("claude", None, self.env.pins_dir).manifest.packages["claude"].version

    def state(self) -> tuple[str, bytes, dict[str, str | None]]:
        """All that an update may change."""
        path = pins_file(self.env.pins_dir, "claude")
        tags = {ref: self.engine.image_id(ref) for ref in (LOCAL, CANDIDATE)}
        return self.version(), path.read_bytes() if path.exists() else b"", tags

    def is_current(self) -> bool:
        """Whether a launch would find its image."""
        recipe = plan_images("claude", None, self.env.pins_dir)[-1]
        return current_image(self.engine, recipe) is not None


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_checked_version_takes_the_place_of_the_old_one_and_goes_back(site: Site) -> None:
    done = site.update()
    assert done == Updated("claude", "updated", {SHOWN: SHIPPED.version}, {SHOWN: "2.9.0"})
    assert site.tried == [("2.9.0", SHIPPED.version)]
    assert site.version() == "2.9.0"
    assert site.is_current()
    assert site.engine.image_id(PREVIOUS) == site.first
    assert site.engine.image_id(CANDIDATE) is None
    second = site.engine.image_id(LOCAL)
    assert second != site.first

    site.newest = "2.10.0"
    assert site.update().before == {SHOWN: "2.9.0"}
    assert site.engine.image_id(PREVIOUS) == second
    assert site.updater.roll_back("claude") == Updated(
        "claude", "rolled-back", {SHOWN: "2.10.0"}, {SHOWN: "2.9.0"}
    )
    assert (site.version(), site.engine.image_id(LOCAL), site.is_current()) == ("2.9.0", second, True)
    # No further back than one: that image is gone. By version it goes.
    site.updater.roll_back("claude")
    assert (site.version(), site.is_current()) == (SHIPPED.version, True)
    assert not pins_file(site.env.pins_dir, "claude").exists()
    with pytest.raises(ImageUpdateError, match="no earlier pins"):
        site.updater.roll_back("claude")


def fail_check(site: Site) -> None:
    site.verdict = "the new version fails its check"


def fail_build(site: Site) -> None:
    site.engine.fail_build_of = CANDIDATE


def fail_switch(site: Site) -> None:
    site.engine.fail_tag_of = LOCAL


@pytest.mark.parametrize("fault", [fail_check, fail_build, fail_switch])
@pytest.mark.parametrize("earlier", [False, True], ids=["shipped", "own"])
def test_whatever_fails_leaves_pins_and_images_as_they_were(site: Site, fault: object, earlier: bool) -> None:
    if earlier:
        site.update()
        site.newest = "2.10.0"
    before = site.state()
    fault(site)  # type: ignore[operator]
    with pytest.raises((ImageUpdateError, ImageBuildError, EngineError)):
        site.update()
    assert site.state() == before
    assert site.is_current()


def test_ctrl_c_in_the_check_leaves_all_as_it_was(site: Site) -> None:
    before = site.state()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(site.updater, check=interrupt).update("claude")
    assert site.state() == before


def test_looking_changes_nothing(site: Site) -> None:
    before = site.state()
    assert site.update(only_look=True).state == "available"
    assert (site.state(), site.tried) == (before, [])


def test_the_newest_is_said_and_is_pinned_today(site: Site) -> None:
    site.newest = SHIPPED.version
    assert site.update().state == "newest"
    packages = find_agent("claude", None, site.env.pins_dir).manifest.packages
    assert packages["claude"] == replace(SHIPPED, pinned=TODAY)
    assert (site.tried, site.is_current()) == ([], True)


def test_an_older_version_is_taken_only_by_name(site: Site) -> None:
    site.newest = "2.0.0"
    assert site.update().state == "newest"
    assert site.version() == SHIPPED.version
    assert any("2.0.0, older than" in line for line in site.lines)
    assert site.update(version="2.0.0").state == "updated"
    assert site.version() == "2.0.0"
    assert any(line.startswith("going back to") for line in site.lines)


def test_other_bytes_for_the_version_in_use_are_refused(site: Site) -> None:
    before = site.state()
    site.newest = SHIPPED.version

    def forged(specs: Sequence[str]) -> list[bytes]:
        return [
            answer.replace(b"sha512-", b"sha512-" + (b"/" * 86 + b"==")).split(b"==")[0] + b'=="}'
            for answer in site.npm(specs)
        ]

    with pytest.raises(ImageUpdateError, match="another integrity"):
        replace(site.updater, view=forged).update("claude")
    assert site.state() == before


def test_one_update_at_a_time(site: Site) -> None:
    site.env.pins_dir.mkdir(parents=True)
    with locked(site.env.pins_dir / "claude.lock"), pytest.raises(StoreError, match="locked by another"):
        site.update()


def test_later_pins_of_a_release_are_used_again(site: Site) -> None:
    site.update()
    path = pins_file(site.env.pins_dir, "claude")
    old = {"claude": replace(SHIPPED, version="2.0.0", pinned=date(2020, 1, 1))}
    path.write_bytes(render_pins(PinFile(agent="claude", packages=old)))
    assert site.version() == SHIPPED.version
    with pytest.raises(ImageUpdateError, match="no earlier pins"):
        site.updater.roll_back("claude")


def test_what_cannot_be_updated_is_said_so(site: Site) -> None:
    with pytest.raises(ImageUpdateError, match="'demo' pins no packages"):
        site.updater.update("demo")
    with pytest.raises(ImageUpdateError, match=r"no \[model\] table"):
        require_checkable(load_manifest("demo"))


def test_a_check_is_given_nothing_of_the_users(tmp_path: Path) -> None:
    secrets = {
        "ANTHROPIC_API_KEY": "canary",
        "CODING_AGENTS_MODEL_UPSTREAM": "canary",
        "HTTPS_PROXY": "canary",
    }
    env = host_environment(tmp_path, DOCKER_HOST="unix:///x", TMPDIR=str(tmp_path), **secrets)
    for path in (".claude/.credentials.json", ".config/coding-agents/config.toml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("canary")
    own = tmp_path / ".config/coding-agents/agents"
    own.mkdir()
    with trial_place(env, name="check-1", environ={"OWN": "value"}) as trial:
        assert "canary" not in trial.environ.values()
        assert (trial.environ["DOCKER_HOST"], trial.environ["OWN"]) == ("unix:///x", "value")
        assert Path(trial.environ["HOME"]) == trial.home != env.home
        assert trial.home.stat().st_mode & 0o777 == 0o700
        found = [path for path in trial.home.rglob("*") if path.is_file() and ".git" not in path.parts]
        assert all(path.is_relative_to(trial.cwd) for path in found)
        assert trial.agents_dir.resolve() == own
        assert trial.state_dir == env.state_dir
        assert not has_marker(trial, "claude/session-1")
    assert not trial.home.exists()


def test_what_a_killed_check_left_is_told_from_a_users_own_session() -> None:
    def is_left(path: str) -> bool:
        return is_check(session_record(repo=replace(REPO, work_tree=path, common_dir=f"{path}/.git")))

    mine = f"/tmp/coding-agents-build-{os.geteuid()}-1-gone/home"
    assert is_left(f"{mine}/check-0a1b2c3d")
    for other in (
        f"{mine}/shop",
        "/home/u/check-0a1b2c3d",
        "/tmp/coding-agents-build-77777-1-x/home/check-0a",
    ):
        assert not is_left(other)


def test_the_command_line_says_what_it_cannot_do(tmp_path: Path) -> None:
    with user_of("docker", tmp_path) as user:
        for args in (
            ("--rollback", "--check", "claude"),
            ("--version", "1.0.0", "claude", "codex"),
            ("--version", "latest", "claude"),
        ):
            user.run("images", "update", *args, status=2)
        path = tmp_path / ".local/share/coding-agents/pins/claude.toml"
        path.parent.mkdir(parents=True)
        newer = {"claude": replace(SHIPPED, version="2.9.0", pinned=date(2099, 1, 1))}
        path.write_bytes(render_pins(PinFile(agent="claude", packages=newer)))
        assert f"2.9.0: pinned today, by {path}" in user.run("agents", "show", "claude").err
        path.write_text("version = 1\n")
        done = user.run("agents", "show", "claude", status=21)
        assert "Remove the file" in done.err
