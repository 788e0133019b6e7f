"""Bad input gives a clear message, the right status, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coding_agents.engine.apparmor import profiles_loaded
from support.engines import EngineUnderTest
from support.faults import ORDINARY_UID, assert_nothing_left, assert_refused, refs, supervisors
from support.product import Product, Result, git, make_repo, user_of, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.alike]

_HUGE = "9" * 300
_NASTY = ("", "-", "\x1b[2J\x07", "a\nb", "ü\u202e", "../..", _HUGE, "\udcff")


@pytest.fixture(scope="module")
def user(engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """One user for all refusals that need no session; in the end there must still be none."""
    with user_of(engine.name, tmp_path_factory.mktemp("bad-input")) as product:
        make_repo(product.home / "shop")
        subprocess.run(("git", "init", "--quiet", "--bare", str(product.home / "bare.git")), check=True)
        (product.home / "plain").mkdir()
        yield product
        assert_nothing_left(product)


def launch(product: Product, *args: str, **options: object) -> Result:
    """`launch ARGS -d --json` in the home directory."""
    env = options.pop("env", None)
    assert not options
    words = ("launch", "--agent", "demo", "--network-proxy", "restricted", "-d", "--json", *args)
    result = product.run(*words, status=None, env=env)  # type: ignore[arg-type]
    assert not list(product.sessions_dir.glob("*"))
    return result


@pytest.mark.parametrize(
    ("source", "status", "code", "says"),
    [
        ("", 2, "usage", "SOURCE is empty"),
        ("nowhere", 11, "not-a-repository", "nowhere"),
        ("plain", 11, "not-a-repository", "plain"),
        ("shop/README.md", 11, "not-a-repository", "README.md"),
        ("shop/.git", 11, "not-a-repository", ".git"),
        ("bare.git", 12, "bare-repository", "bare.git"),
        ("C:\\shop", 11, "not-a-repository", "C:"),
        ("a\x1b[2Jb", 11, "not-a-repository", "x1b"),
        ("x" * 5000, 11, "not-a-repository", "xxx"),
        ("ext::sh -c id", 15, "clone", "ext::"),
        ("ftp://host/x", 15, "clone", "ftp://"),
        ("https://", 15, "clone", "https://"),
        ("https://127.0.0.1:99999/x", 15, "clone", "malformed"),
        ("https://no host/x", 15, "clone", "malformed"),
        ("ssh://-oProxyCommand=touch/x", 15, "clone", "malformed"),
        ("https://host/\x1b[2J", 15, "clone", "malformed"),
        ("https://host/%0a", 15, "clone", "malformed"),
        ("https://127.0.0.1:1/x.git", 15, "clone", "https://127.0.0.1:1/x.git"),
        ("git@127.0.0.1:x", 15, "clone", "git@127.0.0.1:x"),
        ("file:///nowhere/x.git", 15, "clone", "file:///nowhere/x.git does not exist"),
        ("-oProxyCommand=x", 2, "usage", "-o"),
        ("--upload-pack=touch x", 2, "usage", "--upload-pack"),
    ],
)
def test_source(user: Product, source: str, status: int, code: str, says: str) -> None:
    error = assert_refused(launch(user, source), status=status, code=code, says=says)
    assert error["hint"] or status == 2
    assert not list((user.home / ".local/share/coding-agents/repos").rglob("*.git"))


def test_password_of_a_url_is_never_shown(user: Product) -> None:
    result = launch(user, "https://uma:hunter2secret@127.0.0.1:1/x.git")
    error = assert_refused(result, status=15, code="clone", says="https://127.0.0.1:1/x.git")
    assert "hunter2secret" not in result.out + result.err
    assert "hooksPath" in error["details"]  # masking one letter of it would make it unreadable


@pytest.mark.parametrize(
    "branch", ["", " ", "a b", "-x", "a..b", "a.lock", ".x", "a//b", "/a", "a/", "HEAD", "@", "a~1", "a:b", "a\\b",
               "a\tb", "\x1b[2J", "a" * 300, "\udcff", "refs/heads/../x", "a@{1}", "*"],
)  # fmt: skip
def test_branch_name(user: Product, branch: str) -> None:
    assert_refused(launch(user, "shop", "-b", branch), status=13, code="branch", says="invalid branch name")


@pytest.mark.parametrize(("taken", "asked"), [("demo", "x"), ("demo/y/z", "y"), ("demo/w", "w/v")])
def test_branch_that_cannot_exist_beside_another(user: Product, taken: str, asked: str) -> None:
    repo = user.home / "shop"
    git(repo, "branch", taken)
    try:
        assert_refused(launch(user, "shop", "-b", asked), status=13, code="branch", says=taken)
    finally:
        git(repo, "branch", "-D", taken)


def test_existing_branch_with_work_is_not_taken_without_yes(user: Product) -> None:
    repo = user.home / "shop"
    git(repo, "branch", "demo/mine", git(repo, "commit-tree", "-p", "HEAD", "-m", "mine", "HEAD^{tree}"))
    before = refs(repo)
    error = assert_refused(
        launch(user, "shop", "-b", "mine"), status=13, code="branch", says="demo/mine has 1 commit"
    )
    assert "-y" in error["hint"]
    assert refs(repo) == before


@pytest.mark.parametrize(
    "name", ["", "-x", "A", "a b", "a/b", "..", "a..b", "a-", "ü", "a" * 60, "\x1b", "\udcff"]
)
def test_session_name(user: Product, name: str) -> None:
    assert_refused(launch(user, "shop", "--name", name), status=22, code="name", says="invalid session name")


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--agent", (*_NASTY, "Demo")),
        ("--engine", (*_NASTY, "dockerr")),
        ("--network-proxy", (*_NASTY, "bogus", "none")),
        ("--cpu", (*_NASTY, "0", "-1", "1e9", "nan", "inf", "0x10", "1,5", "4097")),
        ("--memory", (*_NASTY, "0", "1", "-8g", "8x", "1e30g", "nan", "999999t")),
        ("--pids", (*_NASTY, "0", "63", "-5", "1.5", "4194305")),
        ("--message", ("", " ", "a\nb", "\x1b[2J", "x" * 201)),
        ("--best-effort", (*_NASTY, "seccomp", "disc")),
        ("--include", ("", "/etc/passwd", "../x", "a/../../x", "a\x1bb", "a" * 501)),
    ],
)
def test_option_value(user: Product, option: str, values: tuple[str, ...]) -> None:
    for value in values:
        result = launch(user, "shop", option, value)
        assert_refused(result, status=2, code="usage", says=option)


@pytest.mark.parametrize(
    ("words", "status", "code", "says"),
    [
        (("--agent", "nope"), 21, "manifest", "unknown agent 'nope'"),
        (("--allow", "api.example.org"), 2, "usage", "--allow means nothing"),
        (("--network-proxy", "squid", "--allow", "10.0.0.1"), 2, "usage", "is an address"),
        (("--rm", "--no-push"), 2, "usage", "--rm"),
        (("--empty",), 2, "usage", "--empty"),
        (("-p", " "), 2, "usage", "prompt"),
        (("-p", "do", "--", "true"), 2, "usage", "exclude"),
        (("--",), 2, "usage", "command must follow"),
        (("--bogus",), 2, "usage", "--bogus"),
        (("--memory",), 2, "usage", "--memory"),
        (("other",), 2, "usage", "other"),
    ],
)
def test_contradictions_and_unknown_things(
    user: Product, words: tuple[str, ...], status: int, code: str, says: str
) -> None:
    assert_refused(launch(user, "shop", *words), status=status, code=code, says=says)


def test_json_of_a_foreground_launch_is_refused_before_anything_is_made(user: Product) -> None:
    result = user.run("launch", "shop", "--agent", "demo", "--json", "--", "true", status=2)
    assert result.error["code"] == "usage"


@pytest.mark.parametrize("kind", ["socket", "fifo", "device"])
def test_special_files_in_the_tree(product: Product, repo: Path, kind: str) -> None:
    odd = repo / "odd"
    match kind:
        case "socket":
            os.chdir(repo)  # sun_path is short
            with socket.socket(socket.AF_UNIX) as server:
                server.bind("odd")
            os.chdir("/")
        case "fifo":
            os.mkfifo(odd)
        case "device":
            if os.geteuid() != 0:
                pytest.skip("a device node needs root")
            os.mknod(odd, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    error = assert_refused(launch(product, str(repo)), status=14, code="workspace", says="'odd'")
    assert ".gitignore" in error["hint"]
    assert_nothing_left(product)
    (repo / ".gitignore").write_text("odd\n")
    name = product.launch_detached(repo, "true")  # as the hint says
    product.run("remove", "--force", name)


@pytest.mark.parametrize("path", ["secret/", "README.md", "new.txt"])
def test_unreadable_files_in_the_tree(ordinary: Product, path: str) -> None:
    repo = make_repo(ordinary.home / f"{ordinary.home.name}-u", {"README.md": "x\n", "secret/a": "a\n"})
    (repo / "new.txt").write_text("new\n")
    subprocess.run(("chown", "-R", str(ORDINARY_UID), str(repo)), check=True)
    (repo / path).chmod(0)
    result = launch(ordinary, str(repo))
    assert_refused(result, status=14, code="workspace", says=path.rstrip("/"))
    assert_nothing_left(ordinary)


def _fake_engine(directory: Path, name: str, script: str) -> dict[str, str]:
    directory.mkdir(exist_ok=True)
    program = directory / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


_FORBIDDEN = (
    "echo 'permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock:"
    " dial unix /var/run/docker.sock: connect: permission denied' >&2; exit 1"
)


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ("echo 'Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?' >&2; exit 1", 31,
         "engine-stopped"),
        (_FORBIDDEN, 33, "engine-forbidden"),
        ("{real} | sed 's/\"ServerVersion\":\"[^\"]*\"/\"ServerVersion\":\"19.03.1\"/'", 32, "engine-too-old"),
        ("echo garbage", 34, "engine"),
        ("printf '\\377\\376\\000'", 34, "engine"),
        ("echo null", 34, "engine"),
        ("exit 0", 31, "engine-stopped"),
        ("kill -9 $$", 34, "engine"),
    ],
)  # fmt: skip
def test_engine_that_does_not_work(
    user: Product, tmp_path: Path, script: str, status: int, code: str
) -> None:
    if "{real}" in script and user.engine != "docker":
        pytest.skip("changes the version of a real Docker")
    script = script.replace("{real}", f'{shutil.which("docker")} "$@"')
    env = {**_fake_engine(tmp_path / "bin", "docker", script), "CODING_AGENTS_ENGINE": "docker"}
    result = launch(user, "shop", env=env)
    assert "Traceback" not in result.err
    assert result.error["code"] in (code, "engine-stopped"), result
    assert result.status == result.error["exit_status"]
    assert result.error["hint"] or result.error["details"]
    if code != "engine":
        assert (result.status, result.error["code"]) == (status, code)
        assert result.error["hint"]


@pytest.mark.parametrize("choice", ["docker", "podman", "auto"])
def test_no_engine_installed(user: Product, tmp_path: Path, choice: str) -> None:
    (tmp_path / "git").symlink_to("/usr/bin/git")
    result = launch(user, "shop", "--engine", choice, env={"PATH": str(tmp_path)})
    assert_refused(result, status=30, code="engine-not-found", says="installed")
    doctor = user.run("doctor", status=1, env={"PATH": str(tmp_path), "CODING_AGENTS_ENGINE": choice})
    assert ("Podman" if choice == "podman" else "Docker") in doctor.err


def test_git_is_not_installed(user: Product, tmp_path: Path) -> None:
    program = subprocess.run(
        ("which", user.engine), capture_output=True, text=True, check=True
    ).stdout.strip()
    (tmp_path / user.engine).symlink_to(program)
    (tmp_path / "sh").symlink_to("/bin/sh")
    result = launch(user, "shop", env={"PATH": str(tmp_path)})
    assert result.error["code"] in (
        "program-not-found",
        "engine-stopped",
    )  # an engine of scripts may need more
    assert "Traceback" not in result.err


def test_image_build_that_fails_midway(product: Product, repo: Path) -> None:
    program = subprocess.run(
        ("which", product.engine), capture_output=True, text=True, check=True
    ).stdout.strip()
    env = _fake_engine(
        product.home / "bin",
        product.engine,
        f"""case "$*" in
        'image inspect '*coding-agents-demo*) echo 'Error: No such image: x' >&2; exit 1;;
        build*|*' build '*) echo 'Step 3/9 : RUN x'; echo 'E: disk on fire' >&2; exit 100;;
        esac
        exec {program} "$@" """,
    )
    result = launch(product, str(repo), env=env)
    error = assert_refused(result, status=35, code="image-build", says="coding-agents-demo:local")
    assert "E: disk on fire" in error["details"]
    assert error["details"].count("E: disk on fire") == 1
    log = Path(error["hint"].removeprefix("Read the whole log: "))
    assert "Step 3/9 : RUN x" in log.read_text()
    assert_nothing_left(product)
    assert not list(Path("/tmp").glob(f"coding-agents-build-{os.geteuid()}-*-{repo.name}*"))
    product.launch(repo, "--rm", "--", "true")  # the image that is there still is


def test_session_exists(product: Product, repo: Path) -> None:
    name = product.launch_detached(repo, "sleep 600", "-b", "work")
    for words in (("-p", "x"), ("--", "true")):
        result = product.launch(repo, "-d", "--json", "-b", "work", *words, status=None)
        error = assert_refused(result, status=10, code="session-exists", says=name)
        assert error["hint"]
    other = make_repo(product.home / f"{repo.name}-other")
    product.launch(repo, "-d", "--name", repo.name)
    refused = product.launch(other, "-d", "--json", "--name", repo.name, status=None)
    assert_refused(refused, status=10, code="session-exists", says="another repository")
    assert product.state(name) == "running"
    product.run("remove", "--force", name)
    product.run("remove", "--force", f"demo-{repo.name}")


def test_branches_whose_names_read_the_same_are_different_sessions(product: Product, repo: Path) -> None:
    names = [
        product.launch_detached(repo, "true", "-b", branch) for branch in ("a_b", "a-b", "a/b", "ü", "ä")
    ]
    assert len(set(names)) == 5
    for name in names:
        product.run("wait", name)
        product.run("remove", name)


def test_launch_from_a_deleted_directory(user: Product) -> None:
    gone = user.home / "gone"
    gone.mkdir()
    script = f"rmdir {gone}; exec {' '.join(_argv())} launch --agent demo -d --json"
    for more, says in (("", "gone"), (" ../shop", "gone"), (" relative", "gone")):
        gone.mkdir(exist_ok=True)
        result = _shell(user, script + more, cwd=gone)
        assert_refused(result, status=11, code="not-a-repository", says=says)
    gone.mkdir(exist_ok=True)
    assert _shell(user, f"rmdir {gone}; exec {' '.join(_argv())} list -a --json", cwd=gone).json == []


@pytest.mark.parametrize("variable", ["XDG_STATE_HOME", "XDG_DATA_HOME"])
@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null"])
def test_places_that_cannot_be_written(user: Product, variable: str, place: str) -> None:
    result = launch(user, "shop", env={variable: place})
    error = assert_refused(result, status=43, code="store", says=place)
    assert not error["message"].count("Errno")
    assert "Traceback" not in user.run("list", "-a", status=None, env={variable: place}).err
    assert "Traceback" not in user.run("doctor", status=None, env={variable: place}).err


def test_relative_xdg_places_are_ignored(user: Product) -> None:
    env = {"XDG_CONFIG_HOME": "rel", "XDG_STATE_HOME": "rel", "XDG_DATA_HOME": "rel"}
    assert user.run("config", "path", env=env).out.strip() == f"{user.home}/.config/coding-agents/config.toml"


@pytest.mark.parametrize("home", ["", "relative", "{}/nowhere/home"])
@pytest.mark.parametrize("verb", [("list", "--json"), ("config", "path"), ("doctor", "--json"), ("audit",)])
def test_home_that_is_not_there(user: Product, home: str, verb: tuple[str, ...]) -> None:
    assert "Traceback" not in user.run(*verb, env={"HOME": home.format(user.home)}, status=None).err
    assert not (user.home / "nowhere").exists()


def test_home_of_another_user(ordinary: Product) -> None:
    """Neither readable nor writable: said at once, and nothing is made."""
    repo = make_repo(ordinary.home / "shop")
    subprocess.run(("chown", "-R", str(ORDINARY_UID), str(repo)), check=True)
    closed = ordinary.home / "closed"
    closed.mkdir(mode=0o700)
    result = launch(ordinary, str(repo), env={"HOME": str(closed)})
    assert "Traceback" not in result.err
    assert result.error["code"] in ("store", "config")
    assert str(closed) in result.error["message"]
    assert ordinary.leftovers() == []


def test_read_only_home(ordinary: Product) -> None:
    repo = make_repo(ordinary.home / "shop")
    subprocess.run(("chown", "-R", str(ORDINARY_UID), str(repo)), check=True)
    fixed = ordinary.home / "fixed"
    fixed.mkdir(mode=0o755)
    result = launch(ordinary, str(repo), env={"HOME": str(fixed)})
    assert_refused(result, status=43, code="store", says=str(fixed))
    assert ordinary.run("list", "--json", env={"HOME": str(fixed)}).json == []


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"garbage = = x", "not valid TOML"), (b"\xff\xfe", "not UTF-8"), (b"nokey = 1", "nokey"),
     (b"agent = 1", "agent"), (b"[limits]\ncpu = 1e400", "cpu"), (b"x = " + b"[" * 3000, "TOML"),
     (b"#" * 100_000, "larger than")],
)  # fmt: skip
def test_settings_file(product: Product, repo: Path, content: bytes, says: str) -> None:
    settings = product.home / ".config/coding-agents/config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_bytes(content)
    assert_refused(launch(product, str(repo)), status=20, code="config", says=str(settings))
    assert says in product.run("config", "show", status=20).err
    assert product.run("list", "--json").json == []  # no setting is needed to look
    product.run("doctor", status=1)


def test_environment_variable_of_ours(user: Product) -> None:
    for name, value in (
        ("CODING_AGENTS_NETWORK_MODE", "bogus"),
        ("CODING_AGENTS_NETWROK_MODE", "restricted"),
    ):
        assert_refused(launch(user, "shop", env={name: value}), status=20, code="config", says=name)


def test_a_protection_that_this_host_lacks_is_refused_before_anything_is_made(
    user: Product, engine: EngineUnderTest
) -> None:
    if profiles_loaded(engine.api.info):
        pytest.skip("this host has it")
    required = {"CODING_AGENTS_REQUIRE": "apparmor"}
    assert_refused(
        launch(user, "shop", env=required), status=36, code="enforcement", says="apparmor is required"
    )


def test_manifest_of_the_users(product: Product, repo: Path) -> None:
    manifest = product.home / ".config/coding-agents/agents/mine.toml"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("x =")
    result = launch(product, "--agent", "mine", str(repo))
    assert_refused(result, status=21, code="manifest", says=str(manifest))
    report = product.run("doctor", "--json", status=1).json
    assert str(manifest) in json.dumps(report)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"v": 99}',
        b"\xff" * 100,
        b"[" * 100_000,
        None,
    ],
)
def test_garbage_in_the_sessions_directory(product: Product, repo: Path, content: bytes | None) -> None:
    """One session that cannot be read is shown as failed, and hinders no other."""
    broken = product.sessions_dir / "0123456789ab"
    broken.mkdir(parents=True, mode=0o700)
    if content is not None:
        (broken / "session.json").write_bytes(content)
    listed = product.run("list", "-a", "--json").json
    assert [(one["session"], one["state"]) for one in listed] == [("0123456789ab", "failed")]
    for verb in ("stop", "wait", "start", "logs", "diff", "recover", "remove"):
        result = product.run(verb, "0123456789ab", status=None)
        assert result.status in (18, 43), (verb, result)
        assert "Traceback" not in result.err
    product.run("doctor")
    assert "0123456789ab" in product.run("prune").out
    product.launch(repo, "--rm", "--", "true")


@pytest.mark.parametrize("options", [(), ("--disk", "64m")], ids=["", "own disk"])
def test_corrupt_record_of_a_running_session(product: Product, repo: Path, options: tuple[str, ...]) -> None:
    """It is set aside with all of its work, and the lines that it prints lead to the work and to an empty engine."""
    if options and (os.geteuid() != 0 or product.engine == "podman"):
        pytest.skip("mounting a file system takes root; and Docker shows it for both")
    name = product.launch_detached(repo, "echo mine > mine.txt; git add mine.txt; sleep 600", *options)
    wait_for(lambda: product.exec(name, "test -s mine.txt", status=None).status == 0, "the agent's file")
    session, record = product.session(name)["id"], product.session_dir(name) / "session.json"
    record.write_bytes(record.read_bytes()[:500])
    for verb in ("remove", "recover"):
        assert f"coding-agents remove --force {session}" in product.run(verb, name, status=43).err
    said = product.run("remove", "--force", name).err
    assert product.run("list", "-a", "--json").json == []
    assert (product.home / ".local/state/coding-agents/set-aside" / session / "relay.git").is_dir()
    assert f"kept {product.engine} volume {name}-home, {name}-workspace" in said
    assert product.engine_run("ps", "-q", "--filter", f"label=coding-agents.session={session}") == ""
    _shell(product, said.split("take the work out with: ")[1].splitlines()[0])
    listed = subprocess.run(
        ("tar", "-tf", str(product.home / "work.tar")), capture_output=True, text=True, check=True
    )
    assert "./mine.txt" in listed.stdout.splitlines()
    assert "set-aside" in product.run("uninstall", "-y", status=17).err
    _shell(product, said.split("remove all of it with: ")[1].splitlines()[0])
    assert product.leftovers() == []


@pytest.mark.parametrize("verb", ["exec", "start", "stop", "wait", "logs", "diff", "remove", "recover"])
def test_session_that_does_not_exist(user: Product, verb: str) -> None:
    for name in ("nosuch", "", "../../etc", "\x1b[31m", "x" * 5000):
        words = (verb, name, "--", "true") if verb == "exec" else (verb, name)
        result = user.run(*words, status=125 if verb == "exec" else 18)
        assert "no session" in result.err
        assert "\x1b" not in result.err


def test_unknown_verbs_and_missing_arguments(user: Product) -> None:
    assert "Did you mean launch?" in user.run("lanch", status=2).err
    bare = user.run(status=2)
    assert "Commands:" in bare.err
    assert "\\x0a" not in bare.err
    for words in (("bogus",), ("--bogus",), ("stop",), ("exec", "x"), ("images", "bogus"), ("config", "set"),
                  ("completions", "tcsh"), ("logs", "x", "--tail", "0"),
                  ("prune", "--older-than", "soon")):  # fmt: skip
        result = user.run(*words, status=2)
        assert "Traceback" not in result.err
        assert result.err.startswith("error: ")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(product: Product, repo: Path, closed: str) -> None:
    words = (
        "launch",
        str(repo),
        "--agent",
        "demo",
        "--network-proxy",
        "restricted",
        "-d",
        "--",
        "sleep",
        "600",
    )
    result = _shell(product, f"exec {' '.join((*_argv(), *words))} {closed}")
    assert result.status == 0, result
    assert "Traceback" not in result.err
    assert product.state(f"demo-{repo.name}-session-1") == "running"
    assert _shell(product, f"exec {' '.join(_argv())} stop nosuch {closed}").status == 18
    product.run("remove", "--force", f"demo-{repo.name}-session-1")


@pytest.mark.parametrize("words", ["config show", "doctor", "list -a --json"])
def test_result_that_nobody_reads_or_no_disk_takes(user: Product, words: str) -> None:
    result = _shell(user, f"(sleep 0.5; {' '.join(_argv())} {words}; echo $? >&2) | true")
    assert "Traceback" not in result.err
    assert result.err.splitlines()[-1] == "141"
    full = _shell(user, f"exec {' '.join(_argv())} {words} > /dev/full")
    assert full.status == 43
    assert "Traceback" not in full.err
    assert "cannot write the result: no space left on device" in full.err


def test_output_of_a_session_that_nobody_reads(product: Product, repo: Path) -> None:
    """`launch … | head -1` must not hang on a full pipe, and the session is a whole one."""
    words = f"launch {repo} --agent demo --network-proxy restricted -- sh -c 'echo w > w.txt; seq 200000'"
    result = _shell(product, f"{' '.join(_argv())} {words} | head -1")
    assert result.out == "1\n"
    assert "Traceback" not in result.err
    wait_for(lambda: product.state(f"demo-{repo.name}-session-1") == "stopped", "the end of the session")
    assert git(repo, "show", "demo/session-1:w.txt") == "w"


def test_bare_environment(user: Product) -> None:
    """No PATH, TERM, LANG or USER: cron and systemd start programs so."""
    result = subprocess.run(
        (*_argv(), "list", "-a", "--json"),
        env={"HOME": str(user.home), "PYTHONPATH": user.env["PYTHONPATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "[]\n", "")
    assert supervisors(user) == []


def _argv() -> tuple[str, ...]:
    return (sys.executable, "-m", "coding_agents")


def _shell(product: Product, script: str, *, cwd: Path | None = None) -> Result:
    done = subprocess.run(
        ("sh", "-c", script), cwd=cwd or product.home, env=product.env, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)
