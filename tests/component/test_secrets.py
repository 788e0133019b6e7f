"""The store of secrets on a real file system, and programs that print secrets: attacked, and run as a user would."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import load_settings
from coding_agents.credentials import sealing
from coding_agents.credentials.asking import ask_program
from coding_agents.credentials.sealing import Kept
from coding_agents.credentials.secrets import Secrets
from coding_agents.credentials.store import Document, SecretStore
from coding_agents.errors import CredentialError, UntrustedSettingError
from support.host import host_environment
from support.logins import NOW, SECRET, program, put

ROOT = Path(__file__).resolve().parents[2]
_ROOT = os.geteuid() == 0


@pytest.fixture
def env(tmp_path: Path) -> HostEnvironment:
    (tmp_path / "home").mkdir()
    return host_environment(tmp_path / "home")


def run(
    env: HostEnvironment, *args: str, stdin: bytes = b"", status: int = 0, **extra: str
) -> subprocess.CompletedProcess[bytes]:
    """The real command line. Whatever it does, it shows no secret."""
    done = subprocess.run(
        (sys.executable, "-m", "coding_agents", *args),
        env={**env.environ, "HOME": str(env.home), "PYTHONPATH": str(ROOT / "src"), **extra},
        cwd=env.home,
        input=stdin,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == status, done
    assert SECRET.encode() not in done.stdout + done.stderr
    return done


# --- the file ---------------------------------------------------------------------------------------------


def test_a_secret_is_kept_for_its_owner_alone_and_comes_back(env: HostEnvironment) -> None:
    secrets = Secrets(env)
    assert secrets.list() == ()
    assert secrets.set({"A": SECRET, "B": "zwei wörter"}, now_ms=NOW) == "file"
    assert (secrets.reveal("A"), secrets.reveal("B")) == (SECRET, "zwei wörter")
    assert (env.config_dir / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert [(one.name, one.provider, one.set_ms) for one in secrets.list()] == [
        ("A", "file", NOW),
        ("B", "file", NOW),
    ]
    secrets.remove(["A"])
    with pytest.raises(CredentialError, match="no secret 'A'"):
        secrets.reveal("A")
    with pytest.raises(CredentialError, match="no secret 'X'"):
        secrets.remove(["B", "X"])
    assert secrets.reveal("B")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o602, 0o604])
def test_a_store_that_others_can_read_or_write_is_refused(env: HostEnvironment, mode: int) -> None:
    Secrets(env).set({"A": SECRET}, now_ms=NOW)
    path = env.config_dir / "secrets.json"
    path.chmod(mode)
    for act in (lambda: Secrets(env).reveal("A"), lambda: Secrets(env).set({"B": "x"}, now_ms=NOW)):
        with pytest.raises(CredentialError, match=f"mode {mode:04o}") as caught:
            act()
        assert "chmod 600" in caught.value.hint


def test_a_store_that_is_a_link_is_refused_and_not_replaced(env: HostEnvironment, tmp_path: Path) -> None:
    planted = put(tmp_path, "elsewhere", b'{"version":1}')
    env.config_dir.mkdir(parents=True)
    (env.config_dir / "secrets.json").symlink_to(planted)
    for act in (lambda: Secrets(env).list(), lambda: Secrets(env).set({"B": SECRET}, now_ms=NOW)):
        with pytest.raises(CredentialError, match="symbolic link"):
            act()
    assert planted.read_bytes() == b'{"version":1}'


def test_a_store_in_a_directory_of_everybody_is_refused(env: HostEnvironment) -> None:
    Secrets(env).set({"A": SECRET}, now_ms=NOW)
    env.config_dir.chmod(0o777)
    with pytest.raises(CredentialError, match="others can write to"):
        Secrets(env).reveal("A")


@pytest.mark.skipif(not _ROOT, reason="gives a file to somebody else")
def test_a_store_of_somebody_else_is_refused(env: HostEnvironment) -> None:
    Secrets(env).set({"A": SECRET}, now_ms=NOW)
    os.chown(env.config_dir / "secrets.json", 12345, -1)
    with pytest.raises(CredentialError, match="belongs to uid 12345"):
        Secrets(env).reveal("A")


def test_a_fifo_in_place_of_the_store_hangs_nobody(env: HostEnvironment) -> None:
    env.config_dir.mkdir(parents=True)
    os.mkfifo(env.config_dir / "secrets.json", 0o600)
    with pytest.raises(CredentialError, match="not a regular file"):
        Secrets(env).list()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"version":2}',
        b'{"version":1,"more":1}',
        b'{"version":1,"secrets":{"A":{"text":1}}}',
        b"\xff",
    ],
)
def test_a_store_that_is_damaged_is_told_and_never_overwritten(env: HostEnvironment, data: bytes) -> None:
    path = put(env.config_dir, "secrets.json", data)
    for act in (lambda: Secrets(env).list(), lambda: Secrets(env).set({"B": SECRET}, now_ms=NOW)):
        with pytest.raises(CredentialError, match="not a store"):
            act()
    assert path.read_bytes() == data


def test_changes_at_the_same_time_lose_nothing(env: HostEnvironment) -> None:
    def one(number: int) -> None:
        Secrets(env).set({f"S{number}": str(number)}, now_ms=NOW)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(40)))
    assert len(Secrets(env).list()) == 40
    assert Secrets(env).reveal("S17") == "17"


def test_a_change_waits_for_the_one_that_is_under_way(env: HostEnvironment) -> None:
    begun = threading.Event()

    def slowly(document: Document) -> Document:
        begun.set()
        time.sleep(0.5)
        return replace(document, secrets={**document.secrets, "SLOW": Kept(set_ms=NOW, text="1")})

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(SecretStore(env).change, slowly)
        assert begun.wait(10)
        Secrets(env).set({"QUICK": "2"}, now_ms=NOW)
        slow.result()
    assert [one.name for one in Secrets(env).list()] == ["QUICK", "SLOW"]


# --- programs that print secrets --------------------------------------------------------------------------


def asked(env: HostEnvironment, path: Path, *args: str, timeout_s: float = 20.0) -> str:
    return ask_program((str(path), *args), env.environ, env.home, timeout_s=timeout_s)


def test_a_program_is_given_no_shell_no_input_and_the_home_directory(
    env: HostEnvironment, tmp_path: Path
) -> None:
    shown = program(tmp_path, "show", 'cat; printf "%s|" "$PWD" "$@"')
    assert asked(env, shown, "$(id)", "a b", "; id") == f"{env.home}|$(id)|a b|; id|"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo one; echo two", "more than one line"),
        ("true", "is empty"),
        (f"echo {SECRET} >&2; exit 3", "exit status 3"),
        (f"echo {SECRET}; exit 1", "exit status 1"),
        ("printf 'a\\0b'", "cannot be printed"),
        ("kill -9 $$", "exit status -9"),
    ],
)
def test_a_program_that_fails_is_told_without_what_it_says(
    env: HostEnvironment, tmp_path: Path, script: str, why: str
) -> None:
    with pytest.raises(CredentialError, match=why) as caught:
        asked(env, program(tmp_path, "op", script))
    error = caught.value
    assert SECRET not in repr((error.message, error.details, error.hint, error.__cause__, error.__context__))
    assert error.hint


def test_a_program_that_prints_without_end_is_ended(env: HostEnvironment, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(CredentialError, match="prints more than 16 KiB"):
        asked(env, program(tmp_path, "op", f"echo $$ > {tmp_path}/pid; yes | head -c 1000000000"))
    assert time.monotonic() - began < 10
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("script", ["sleep 100", "yes >&2"])
def test_a_program_that_hangs_is_ended(env: HostEnvironment, tmp_path: Path, script: str) -> None:
    began = time.monotonic()
    with pytest.raises(CredentialError, match="has not printed the secret in 1 s"):
        asked(env, program(tmp_path, "op", script), timeout_s=1.0)
    assert time.monotonic() - began < 10


def test_a_program_that_is_not_there(env: HostEnvironment, tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="nowhere, which prints the secret, cannot be run"):
        asked(env, tmp_path / "nowhere")
    with pytest.raises(CredentialError, match="cannot be run"):
        asked(env, put(tmp_path, "plain", b"x"))


# --- age --------------------------------------------------------------------------------------------------


def age_identity(env: HostEnvironment) -> str:
    """An age identity, named in the user's settings; its public half."""
    made = subprocess.run(("age-keygen",), capture_output=True, check=True)
    put(env.home, "id.txt", made.stdout)
    put(env.config_dir, "config.toml", b'[secrets]\nage_identity = "~/id.txt"\n')
    return next(line.split()[-1] for line in made.stdout.decode().splitlines() if "public key" in line)


@pytest.fixture(params=["pyrage", "age"])
def sealed_env(
    env: HostEnvironment, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> HostEnvironment:
    """A user with an age identity, on a machine with pyrage or with age(1) alone."""
    if request.param == "age":
        monkeypatch.setattr(sealing, "_library", lambda: None)
    else:
        monkeypatch.setattr(sealing, "run", None)
    age_identity(env)
    return env


def test_with_an_age_identity_secrets_are_encrypted_and_age_itself_opens_them(
    sealed_env: HostEnvironment,
) -> None:
    secrets = Secrets(sealed_env)
    assert secrets.set({"A": SECRET}, now_ms=NOW) == "age"
    data = (sealed_env.config_dir / "secrets.json").read_text()
    assert SECRET not in data
    assert secrets.reveal("A") == SECRET
    assert secrets.list()[0].provider == "age"
    sealed = json.loads(data)["secrets"]["A"]["sealed"]
    opened = subprocess.run(
        ("age", "-d", "-i", str(sealed_env.home / "id.txt")),
        input=sealed.encode(),
        capture_output=True,
        check=True,
    )
    assert opened.stdout.decode() == SECRET


def test_another_identity_opens_nothing_and_an_open_one_is_refused(sealed_env: HostEnvironment) -> None:
    secrets = Secrets(sealed_env)
    secrets.set({"A": SECRET}, now_ms=NOW)
    (sealed_env.home / "id.txt").chmod(0o644)
    with pytest.raises(CredentialError, match=r"id\.txt can be read or written by others"):
        secrets.reveal("A")
    age_identity(sealed_env)
    with pytest.raises(CredentialError, match="does not open or make"):
        secrets.reveal("A")
    put(sealed_env.home, "id.txt", b"AGE-SECRET-KEY-1NONSENSE\n")
    with pytest.raises(CredentialError, match="does not open or make") as caught:
        secrets.set({"B": SECRET}, now_ms=NOW)
    assert "NONSENSE" not in repr((caught.value.message, caught.value.__cause__))
    (sealed_env.home / "id.txt").unlink()
    with pytest.raises(CredentialError, match="there is no age identity"):
        secrets.reveal("A")
    (sealed_env.config_dir / "config.toml").unlink()
    with pytest.raises(CredentialError, match="no identity is named"):
        secrets.reveal("A")
    assert secrets.list()[0].name == "A"  # for that it need not be opened


def test_a_repository_cannot_choose_the_identity(env: HostEnvironment, tmp_path: Path) -> None:
    put(tmp_path, "repo/.coding-agents.toml", b'[secrets]\nage_identity = "/x"\n')
    with pytest.raises(UntrustedSettingError):
        load_settings(env, project=tmp_path / "repo")


# --- as a user runs it ------------------------------------------------------------------------------------


def test_the_verbs_take_list_and_forget_secrets_and_show_none(env: HostEnvironment, tmp_path: Path) -> None:
    done = run(env, "secrets", "set", "A", stdin=f"{SECRET}\n".encode())
    assert b"not encrypted" in done.stderr
    prints = program(tmp_path, "op", f"echo {SECRET}")
    run(env, "secrets", "set", "B", "--", str(prints), SECRET, "--reveal")
    file = put(tmp_path, "mcp-secrets.env", f"C={SECRET}\nD='{SECRET} x'\n".encode())
    assert b"remove it" in run(env, "secrets", "import", str(file)).stderr
    listed = json.loads(run(env, "secrets", "list", "--json").stdout)
    assert [(one["name"], one["provider"]) for one in listed] == [
        ("A", "file"), ("B", "exec op"), ("C", "file"), ("D", "file"),
    ]  # fmt: skip
    assert b"exec op" in run(env, "secrets", "list").stdout
    assert Secrets(env).reveal("B") == SECRET
    assert Secrets(env).reveal("D") == f"{SECRET} x"
    run(env, "secrets", "remove", "A", "B")
    assert [one.name for one in Secrets(env).list()] == ["C", "D"]
    for file in env.home.rglob("*"):
        assert file.name == "secrets.json" or not file.is_file() or SECRET not in file.read_text()


@pytest.mark.parametrize(
    ("args", "stdin", "says"),
    [
        (("secrets", "set", "A"), f"{SECRET}\n{SECRET}\n", "more than one line"),
        (("secrets", "set", "A"), f"{SECRET}\0", "cannot be printed"),
        (("secrets", "set", "A"), "", "is empty"),
        (("secrets", "set", "A/B"), SECRET, "no name of a secret"),
        (("secrets", "remove", "A"), "", "there is no secret 'A'"),
        (("secrets", "import", "nowhere"), "", "there is no file nowhere"),
        (("secrets", "import", "bad.env"), "", "bad.env:2 is not of the form NAME=value"),
        (("secrets", "import", "open.env"), "", "open.env can be read or written by others (mode 0644)"),
    ],
)
def test_mistakes_are_told_and_change_nothing(
    env: HostEnvironment, args: tuple[str, ...], stdin: str, says: str
) -> None:
    put(env.home, "bad.env", f"A=1\n{SECRET}\n".encode())
    put(env.home, "open.env", f"A={SECRET}\n".encode(), 0o644)
    for more in ((), ("--json",) if "list" in args else ()):
        done = run(env, *args, *more, stdin=stdin.encode(), status=26)
        assert says in done.stderr.decode()
    assert not (env.config_dir / "secrets.json").exists()


def test_a_value_is_typed_without_echo(env: HostEnvironment) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        (sys.executable, "-m", "coding_agents", "secrets", "set", "A"),
        env={**env.environ, "HOME": str(env.home), "PYTHONPATH": str(ROOT / "src")},
        stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    with suppress(OSError):  # EIO: the other end is closed
        while piece := os.read(leader, 4096):
            shown += piece
            if b"Secret A: " in shown and SECRET.encode() not in shown and not shown.endswith(b"\n"):
                os.write(leader, f"{SECRET}\n".encode())
                while piece := os.read(leader, 4096):
                    shown += piece
    os.close(leader)
    assert process.wait(30) == 0, shown
    assert SECRET.encode() not in shown
    assert Secrets(env).reveal("A") == SECRET


def test_what_a_traceback_shows_holds_no_secret(env: HostEnvironment) -> None:
    Secrets(env).set({"A": SECRET}, now_ms=NOW)
    Secrets(env).set_program("B", ("op", SECRET), now_ms=NOW)
    assert SECRET not in repr(SecretStore(env).read())
