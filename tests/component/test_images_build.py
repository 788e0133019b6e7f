"""Building images, with a stub engine and a stub mmdebstrap: order, reuse, failures, Ctrl-C, two at once."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from coding_agents.errors import ImageBuildError
from coding_agents.images.api import ImageRef
from coding_agents.images.build import BuildSettings, ensure_image, plan_images
from coding_agents.images.rootfs import has_mounts_below, make_rootfs, scratch_dir
from support.image_engine import ImageEngineStub

_MMDEBSTRAP = """#!/bin/sh
echo "I: making it in $(pwd)"
cp base.list packages.txt finish.sh "$OUT"
env > "$OUT/environment"
eval "tar=\\${$(($# - 1))}"
[ ! -e "$OUT/fail" ] || { echo "E: no such package: nonsense"; exit 3; }
echo rootfs > "$tar"
"""


@dataclass
class Site:
    """A machine with Debian's package tools stubbed, and the settings to build on it."""

    root: Path
    engine: ImageEngineStub = field(default_factory=ImageEngineStub)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("bin", "tmp", "out"):
            (self.root / name).mkdir()
        program = self.root / "bin" / "mmdebstrap"
        program.write_text(_MMDEBSTRAP.replace("$OUT", str(self.root / "out")))
        program.chmod(0o755)

    def settings(self, **changes: str) -> BuildSettings:
        environment = {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(self.root / "tmp"),
            "SSL_CERT_FILE": str(self.root / "ca.pem"), **changes,
        }  # fmt: skip
        return BuildSettings(work_dir=self.root / "work", environment=environment, on_line=self.lines.append)

    def ensure(self, agent: str | None, **changes: str) -> ImageRef:
        return ensure_image(self.engine, agent, self.settings(**changes))

    def leftovers(self) -> list[Path]:
        return list((self.root / "tmp").iterdir())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    apt = tmp_path / "apt"
    apt.mkdir()
    (apt / "sources.list").write_text("deb http://mirror.test/debian bookworm main\n")
    release = tmp_path / "os-release"
    release.write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    monkeypatch.setattr("coding_agents.images.rootfs.APT_DIR", apt)
    monkeypatch.setattr("coding_agents.images.rootfs.OS_RELEASE", release)
    monkeypatch.setattr("coding_agents.images.rootfs.os.geteuid", lambda: 0)
    return Site(tmp_path)


def test_base_then_agent_and_the_second_time_nothing(site: Site) -> None:
    found = site.ensure("demo")
    assert site.engine.built == ["coding-agents-base:local", "coding-agents-demo:local"]
    assert found == ImageRef(
        site.engine.image_id("coding-agents-demo:local") or "", "coding-agents-demo:local"
    )
    assert site.engine.arguments["coding-agents-demo:local"] == {"BASE": "coding-agents-base:local"}
    content, mode = site.engine.contexts["coding-agents-demo:local"]["demo-agent"]
    assert (content[:2], mode) == (b"#!", 0o755)
    site.lines.clear()
    assert site.ensure("demo") == found
    assert (len(site.engine.built), site.lines) == (2, [])
    assert site.leftovers() == []


def test_without_a_registry_the_base_comes_from_debian_packages(site: Site) -> None:
    site.ensure(None)
    assert (site.root / "out" / "base.list").read_text().endswith("http://mirror.test/debian bookworm main\n")
    assert site.engine.contexts["coding-agents-base:local"] == {"root.tar": (b"rootfs\n", 0)}
    assert "SSL_CERT_FILE" not in (site.root / "out" / "environment").read_text()
    assert any("making the base from Debian packages" in line for line in site.lines)
    assert any(line.startswith("making it in ") for line in site.lines)


def test_with_a_registry_the_same_files_are_a_dockerfile(site: Site) -> None:
    site.engine.registry = frozenset({"debian:bookworm-slim"})
    site.ensure(None, https_proxy="http://proxy.test:1")
    assert set(site.engine.contexts["coding-agents-base:local"]) == {
        "Dockerfile", "dpkg.cfg", "finish.sh", "packages.txt",
    }  # fmt: skip
    assert site.engine.arguments["coding-agents-base:local"] == {
        "ROOT": "debian:bookworm-slim",
        "HTTPS_PROXY": "http://proxy.test:1",
        "https_proxy": "http://proxy.test:1",
    }


def test_changed_inputs_build_again(site: Site) -> None:
    site.ensure("demo")
    site.engine.add("coding-agents-demo:local", {"coding-agents.inputs": "of yesterday"})
    site.ensure("demo")
    assert site.engine.built[2:] == ["coding-agents-demo:local"]
    site.engine.add("coding-agents-base:local", {"coding-agents.inputs": "of yesterday"})
    site.ensure(None)
    assert site.engine.built[3:] == ["coding-agents-base:local"]


def test_certificates_and_proxy_go_into_the_builder_stage_of_a_pinned_agent_alone(site: Site) -> None:
    certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (site.root / "ca.pem").write_text(certificate)
    site.ensure("claude", HTTPS_PROXY="http://me:pw@proxy.test:1", npm_config_registry="http://npm.test/")
    site.ensure("demo", HTTPS_PROXY="http://me:pw@proxy.test:1")
    context = site.engine.contexts["coding-agents-claude:local"]
    assert certificate.encode() in context["builder/host-ca.crt"][0]
    assert context["builder/pins"][0].count(b"sha512-") == 2
    assert site.engine.arguments["coding-agents-claude:local"]["NPM_REGISTRY"] == "http://npm.test/"
    assert not any(name.startswith("builder/") for name in site.engine.contexts["coding-agents-demo:local"])
    assert "HTTPS_PROXY" not in site.engine.arguments["coding-agents-demo:local"]
    # What a build leaves beside its result is gone.
    assert site.engine.list_images("coding-agents.stage") == []


def test_a_failing_build_says_why_and_leaves_nothing(site: Site) -> None:
    site.engine.fail_build_of = "coding-agents-claude:local"
    with pytest.raises(ImageBuildError, match="could not build coding-agents-claude:local") as caught:
        site.ensure("claude")
    assert "self signed certificate" in caught.value.details
    assert "root certificate" in caught.value.hint
    assert site.engine.image_id("coding-agents-claude:local") is None
    assert site.engine.list_images("coding-agents.stage") == []
    assert site.leftovers() == []


def test_a_failing_build_shows_the_end_of_its_log_once_and_keeps_all_of_it(site: Site) -> None:
    """The engine's own error ends with lines of the log, which are not shown twice."""
    path = site.root / "work/coding-agents-demo.log"
    site.ensure(None)
    site.engine.fail_build_of = "coding-agents-demo:local"
    site.engine.says = [f"step {number}" for number in range(100)] + ["E: disk on fire"]
    with pytest.raises(ImageBuildError) as caught:
        site.ensure("demo")
    lines = caught.value.details.splitlines()
    assert lines.count("E: disk on fire") == lines.count("step 99") == 1
    assert lines[-1] == "E: disk on fire"
    assert len(lines) < 50
    assert caught.value.hint == f"Read the whole log: {path}"
    assert path.read_text().splitlines()[1:] == site.engine.says
    site.engine.fail_build_of = ""
    site.ensure("demo")
    assert not path.exists()


def test_a_failing_rebuild_keeps_the_old_image(site: Site) -> None:
    site.ensure(None)
    old = site.engine.add("coding-agents-demo:local", {"coding-agents.inputs": "of yesterday"})
    site.engine.fail_build_of = "coding-agents-demo:local"
    with pytest.raises(ImageBuildError):
        site.ensure("demo")
    assert site.engine.image_id("coding-agents-demo:local") == old


def test_a_failing_mmdebstrap_shows_the_end_of_its_output(site: Site) -> None:
    (site.root / "out" / "fail").touch()
    with pytest.raises(ImageBuildError) as caught:
        site.ensure("demo")
    assert "E: no such package: nonsense" in caught.value.details
    assert site.engine.rows == {}
    assert site.leftovers() == []


def test_without_mmdebstrap_and_registry(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ImageBuildError) as caught:
        site.ensure("demo", PATH=str(tmp_path / "empty"))
    assert "mmdebstrap is not installed" in caught.value.details
    assert "mmdebstrap" in caught.value.hint


def test_ctrl_c_leaves_nothing(site: Site) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    site.engine.during_build = interrupt
    with pytest.raises(KeyboardInterrupt):
        site.ensure("demo")
    assert site.engine.image_id("coding-agents-demo:local") is None
    assert site.leftovers() == []
    site.engine.during_build = lambda: None
    assert site.ensure("demo").ref == "coding-agents-demo:local"


def test_two_builds_at_once_build_once(site: Site) -> None:
    entered, second_waits = threading.Event(), threading.Event()

    def first_is_building() -> None:
        entered.set()
        assert second_waits.wait(10)

    def on_line(line: str) -> None:
        if line == "waiting for another build to finish":
            second_waits.set()

    site.engine.during_build = first_is_building
    first = threading.Thread(target=site.ensure, args=("demo",))
    first.start()
    assert entered.wait(20)
    settings = BuildSettings(site.root / "work", site.settings().environment, on_line)
    found = ensure_image(site.engine, "demo", settings)
    first.join(20)
    assert found.id == site.engine.image_id("coding-agents-demo:local")
    assert site.engine.built.count("coding-agents-demo:local") == 1


def test_too_little_space_is_said_before_the_work(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coding_agents.images.build.NEEDED_BYTES", 1 << 60)
    with pytest.raises(ImageBuildError) as caught:
        site.ensure(None)
    assert "MiB free" in caught.value.details
    assert "TMPDIR" in caught.value.hint
    assert list((site.root / "out").iterdir()) == []


def test_scratch_of_a_dead_build_goes_and_of_a_living_one_stays(tmp_path: Path) -> None:
    environment = {"TMPDIR": str(tmp_path)}
    dead = tmp_path / f"coding-agents-build-{os.geteuid()}-{1 << 30}-x"
    living = tmp_path / f"coding-agents-build-{os.geteuid()}-{os.getpid()}-x"
    other = tmp_path / "coding-agents-build-other"
    for path in (dead, living, other):
        (path / "deep").mkdir(parents=True)
    with scratch_dir(environment) as scratch:
        assert {path.name for path in tmp_path.iterdir()} == {living.name, other.name, scratch.name}
        assert scratch.stat().st_mode & 0o777 == 0o711
    assert not scratch.exists()


# Like mmdebstrap when it is killed: what it has mounted stays.
KILLED = """#!/bin/sh
mkdir -p "$TMPDIR/mmdebstrap.x/dev/shm"
mount --bind "$PRECIOUS" "$TMPDIR/mmdebstrap.x/dev/shm" || exit 1
echo mounted > "$PRECIOUS/seen"
kill -9 $$
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts as root")
def test_a_killed_build_leaves_no_mount_and_the_host_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = tmp_path / "pre cious"
    precious.mkdir()
    program = tmp_path / "bin/mmdebstrap"
    program.parent.mkdir()
    program.write_text(KILLED.replace("$PRECIOUS", str(precious)))
    program.chmod(0o755)
    environment = {"TMPDIR": str(tmp_path), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    monkeypatch.setenv("PATH", environment["PATH"])
    (base,) = plan_images(None)
    with scratch_dir(environment) as scratch:
        with pytest.raises(ImageBuildError, match="could not make the base image"):
            make_rootfs(base, scratch / "root.tar", environment=environment, on_line=print)
        assert (precious / "seen").read_text() == "mounted\n"
        assert not has_mounts_below(scratch)
    assert not scratch.exists()
    assert (precious / "seen").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts as root")
def test_what_is_mounted_below_a_leftover_is_not_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    leftover = tmp_path / f"coding-agents-build-0-{1 << 30}-x"
    place = leftover / "dev sh\\m"
    place.mkdir(parents=True)
    subprocess.run(("mount", "--bind", precious, place), check=True)
    try:
        with scratch_dir({"TMPDIR": str(tmp_path)}):
            pass
        assert (precious / "file").exists()
        assert leftover.exists()
    finally:
        subprocess.run(("umount", place), check=True)
    with scratch_dir({"TMPDIR": str(tmp_path)}):
        pass
    assert not leftover.exists()


def test_builds_that_end_meanwhile_are_in_nobodys_way(tmp_path: Path) -> None:
    over = threading.Event()

    def others() -> None:
        while not over.is_set():
            made = [tmp_path / f"coding-agents-build-{os.geteuid()}-1-{number}" for number in range(50)]
            for path in made:
                path.mkdir()
            for path in made:
                path.rmdir()

    thread = threading.Thread(target=others)
    thread.start()
    try:
        for _ in range(100):
            with scratch_dir({"TMPDIR": str(tmp_path)}):
                pass
    finally:
        over.set()
        thread.join()


def test_the_plan_of_an_unknown_agent_touches_no_engine(site: Site) -> None:
    from coding_agents.errors import ManifestError

    with pytest.raises(ManifestError, match="unknown agent"):
        site.ensure("nonsense")
    assert site.lines == []
    assert len(plan_images("demo")) == 2
