"""Settings from real files: every layer, hostile files, and mistakes told with their lines."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from coding_agents.config.edit import set_setting
from coding_agents.config.environ import HostEnvironment
from coding_agents.config.load import ORGANISATION_FILE, OTHER_VARIABLES, find_project, load_settings
from coding_agents.errors import CodingAgentsError, ConfigError, UntrustedSettingError, UsageError
from coding_agents.model.settings import SETTINGS, Origin, Settings, Source
from support.host import host_environment


class Host:
    """A user's home, a repository and an organisation's file in one directory."""

    def __init__(self, root: Path) -> None:
        self.env = host_environment(root / "home")
        self.repo = root / "repo"
        self.repo.mkdir()
        self.org = root / "org.toml"
        self.user = self.env.user_config
        self.user.parent.mkdir(parents=True)
        self.project = self.repo / ".coding-agents.toml"

    def load(self, flags: dict[str, object] | None = None, **environ: str) -> Settings:
        env = host_environment(self.env.home, **environ)
        return load_settings(env, project=self.repo, flags=flags, organisation_file=self.org)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_each_layer_stands_over_the_one_before_and_is_named(host: Host) -> None:
    host.org.write_text('engine = "podman"\nagent = "demo"\n[limits]\ncpu = 8\npids = 5000\nmemory = "16g"\n')
    host.user.write_text('agent = "codex"\n[limits]\npids = 6000\nmemory = "12g"\n')
    host.project.write_text('[limits]\nmemory = "10g"\n')
    settings = host.load({"limits.memory": "20g", "limits.pids": None}, CODING_AGENTS_LIMITS_PIDS="7000")
    assert (settings.engine, settings.agent) == ("podman", "codex")
    assert (settings.limits_cpu, settings.limits_pids, settings.limits_memory) == (8, 7000, 20 << 30)
    assert settings.origins["engine"] == Origin(Source.ORGANISATION, str(host.org))
    assert settings.origins["agent"] == Origin(Source.USER, str(host.user))
    assert settings.origins["limits.pids"] == Origin(Source.ENVIRONMENT, "$CODING_AGENTS_LIMITS_PIDS")
    assert settings.origins["limits.memory"] == Origin(Source.COMMAND_LINE, "--memory")
    assert settings.origins["git.push"].source is Source.DEFAULT


def test_no_file_at_all_gives_the_defaults(host: Host) -> None:
    settings = host.load()
    assert settings.network_mode == "allow-all"
    assert {origin.source for origin in settings.origins.values()} == {Source.DEFAULT}


def test_a_repository_can_tighten(host: Host) -> None:
    host.project.write_text('[network]\nmode = "restricted"\n[limits]\ncpu = 1\n[require]\napparmor = true\n')
    settings = host.load()
    assert (settings.network_mode, settings.limits_cpu, settings.require) == ("restricted", 1, ("apparmor",))
    assert settings.origins["network.mode"] == Origin(Source.PROJECT, str(host.project))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[limits]\nmemory = "64g"\n',
            r'limits\.memory = "64g" is refused: a repository can change limits\.memory to a smaller value only; '
            r'it is "8g" \(the default\)',
        ),
        ('[network]\nprivate = ["10.0.0.1:22"]\n', "a repository cannot set network.private"),
        ('[network]\nca = "none"\n', "a repository cannot set network.ca"),
        ('[workspace]\ninclude = [".env"]\n', "a repository cannot set workspace.include"),
        ('engine = "podman"\n', r'engine = "podman" is refused: a repository cannot set engine'),
        ('agent = "demo"\n', "a repository cannot set agent"),
        ("[git]\npush = false\n", "a repository cannot set git.push"),
        ('best_effort = ["swap"]\n', "a repository cannot set best_effort"),
    ],
)
def test_a_repository_cannot_widen(host: Host, text: str, says: str) -> None:
    host.project.write_text(text)
    with pytest.raises(UntrustedSettingError, match=says):
        host.load()


def test_a_private_host_name_is_refused_with_its_file_and_what_to_write(host: Host) -> None:
    host.user.write_text('engine = "auto"\n[network]\nprivate = ["10.0.0.1:22", "mirror.corp:443"]\n')
    with pytest.raises(ConfigError) as caught:
        host.load()
    assert caught.value.message == (
        f"{host.user}: network.private: 'mirror.corp:443' is not ADDRESS:PORT: "
        "write the address of 'mirror.corp', such as 10.1.2.3:443"
    )
    assert caught.value.details.startswith("line 3: ")


def test_a_repository_cannot_loosen_what_the_user_tightened(host: Host) -> None:
    host.user.write_text('[network]\nmode = "restricted"\n')
    host.project.write_text('[network]\nmode = "allow-all"\n')
    with pytest.raises(UntrustedSettingError, match=r"network\.mode"):
        host.load()


def test_all_attempts_of_a_repository_are_told_with_their_lines(host: Host) -> None:
    host.project.write_text('engine = "podman"\n\n[limits]\ncpu = 100\n')
    with pytest.raises(UntrustedSettingError, match="2 mistakes") as caught:
        host.load()
    assert caught.value.details.splitlines() == [
        'line 1: engine = "podman" is refused: a repository cannot set engine',
        "line 4: limits.cpu = 100 is refused: a repository can change limits.cpu to a smaller value only; "
        "it is 4 (the default)",
    ]


def test_a_managed_key_can_be_tightened_but_not_widened_by_anybody(host: Host) -> None:
    host.org.write_text(
        'managed = ["network.mode", "engine"]\nengine = "docker"\n[network]\nmode = "squid"\n'
    )
    assert host.load({"network.mode": "restricted"}).network_mode == "restricted"
    assert host.load().managed == {"network.mode", "engine"}
    with pytest.raises(UsageError) as flag:
        host.load({"network.mode": "allow-all"})
    assert flag.value.message == (
        '--network-proxy: network.mode = "allow-all" is refused: your organisation manages network.mode, '
        f'and it can be changed to a stricter one only; it is "squid" ({host.org}, line 4)'
    )
    refused = (
        'engine = "podman" is refused: your organisation manages engine, and it cannot be changed; '
        f'it is "docker" ({host.org}, line 2)'
    )
    with pytest.raises(ConfigError) as variable:
        host.load(CODING_AGENTS_ENGINE="podman")
    assert variable.value.message == f"$CODING_AGENTS_ENGINE: {refused}"
    host.user.write_text('# mine\nengine = "podman"\n')
    with pytest.raises(ConfigError) as file:
        host.load()
    assert file.value.message == f"{host.user}: {refused}"
    assert file.value.details == f"line 2: {refused}"


@pytest.mark.parametrize(
    "text",
    [
        '[network]\nmode = "allow-all"\n',
        '"network.mode" = "allow-all"\n[network]\nmode = "restricted"\n',
        '[network]\nmode = "allow-all"\nprivate = ["10.0.0.9:1"]\n',
        'network = { mode = "restricted", private = ["10.0.0.9:1"] }\n',
        '[limits]\nmemory = "64g"\n',
        "[sandbox]\nallow_ptrace = true\n",
        "managed = []\n",
        "[managed]\nx = 1\n",
        'best_effort = ["swap"]\n',
        "[require]\nswap = false\n",
    ],
)
@pytest.mark.parametrize("place", ["user", "project"])
def test_no_file_gets_around_the_organisation(host: Host, place: str, text: str) -> None:
    host.org.write_text(
        'managed = ["network.mode", "network.private", "limits.memory", "sandbox.allow_ptrace"]\n'
        '[network]\nmode = "restricted"\n[require]\nswap = true\n'
    )
    path: Path = getattr(host, place)
    path.write_text(text)
    with pytest.raises((ConfigError, UntrustedSettingError)) as caught:
        host.load()
    assert str(path) in caught.value.message


def test_what_the_organisation_requires_nobody_does_without(host: Host) -> None:
    host.org.write_text("# ours\n[require]\napparmor = true\npids = true\n")
    assert host.load().demanded == {"apparmor", "pids"}
    refused = (
        f'best_effort = ["apparmor"] is refused: your organisation requires apparmor ({host.org}, line 2)'
    )
    with pytest.raises(UsageError) as flag:
        host.load({"best_effort": ["apparmor"]})
    assert flag.value.message == f"--best-effort: {refused}"
    with pytest.raises(ConfigError) as variable:
        host.load(CODING_AGENTS_BEST_EFFORT="apparmor")
    assert variable.value.message == f"$CODING_AGENTS_BEST_EFFORT: {refused}"
    assert host.load({"best_effort": ["swap"]}).best_effort == ("swap",)
    host.org.write_text('best_effort = ["pids"]\n[require]\npids = true\n')
    with pytest.raises(ConfigError, match=r"your organisation requires pids .*line 2"):
        host.load()


def test_what_a_user_or_a_repository_requires_the_user_may_do_without(host: Host) -> None:
    host.user.write_text("[require]\nswap = true\n")
    host.project.write_text("[require]\napparmor = true\n")
    settings = host.load({"best_effort": ["apparmor", "swap"]})
    assert (settings.require, settings.best_effort) == (("swap", "apparmor"), ("apparmor", "swap"))
    assert settings.demanded == frozenset()


def test_a_protection_that_nothing_starts_without_is_never_best_effort(host: Host) -> None:
    with pytest.raises(UsageError, match="--best-effort: seccomp is required: no session starts without it"):
        host.load({"best_effort": ["swap", "seccomp"]})
    host.user.write_text('best_effort = ["network"]\n')
    with pytest.raises(ConfigError, match="best_effort: network is required"):
        host.load()


def test_lists_and_requirements_of_all_layers_add_up(host: Host) -> None:
    host.org.write_text("[require]\nseccomp = true\n")
    host.user.write_text('[workspace]\ninclude = ["a"]\n[require]\napparmor = true\n')
    settings = host.load({"workspace.include": ("b", "a")})
    assert settings.workspace_include == ("a", "b")
    assert settings.require == ("seccomp", "apparmor")


def test_all_mistakes_of_a_file_are_told_together(host: Host) -> None:
    host.user.write_text('engin = "docker"\n[limits]\n# a comment\nmemory = "lots"\ncpu = [\n 1,\n]\n')
    with pytest.raises(ConfigError, match="3 mistakes") as caught:
        host.load()
    lines = caught.value.details.splitlines()
    assert lines[0] == "line 1: unknown key 'engin'; did you mean 'engine'?"
    assert lines[1].startswith("line 4: limits.memory: not a size")
    assert lines[2].startswith("line 5: limits.cpu:")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"engine =\n", "not valid TOML.*line 1"),
        (b"engine = 'a'\nengine = 'b'\n", "not valid TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"#" * 70_000, "larger than 65536"),
        (b"a = " + b"[" * 5000, "not valid TOML"),
        (b"[limits]\npids = " + b"9" * 5000, "not valid TOML"),
    ],
)
@pytest.mark.parametrize("place", ["org", "user", "project"])
def test_broken_files_are_named(host: Host, place: str, text: bytes, says: str) -> None:
    path: Path = getattr(host, place)
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=says) as caught:
        host.load()
    assert str(path) in caught.value.message


def test_the_repositorys_file_is_never_followed_or_waited_for(host: Host, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("token = 'hunter2'\n")
    host.project.symlink_to(secret)
    with pytest.raises(ConfigError) as caught:
        host.load()
    assert "hunter2" not in str(caught.value) + caught.value.details
    host.project.unlink()
    os.mkfifo(host.project)
    with pytest.raises(ConfigError, match="not a regular file"):
        host.load()


def test_the_users_file_may_be_a_link_into_their_dotfiles(host: Host, tmp_path: Path) -> None:
    dotfile = tmp_path / "dotfiles.toml"
    dotfile.write_text('agent = "demo"\n')
    host.user.symlink_to(dotfile)
    assert host.load().agent == "demo"


@pytest.mark.parametrize("place", ["org", "user"])
def test_files_that_everybody_can_write_are_refused(host: Host, place: str) -> None:
    path: Path = getattr(host, place)
    path.write_text('agent = "demo"\n')
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="can be changed by others"):
        host.load()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
@pytest.mark.parametrize("place", ["org", "user"])
def test_files_of_another_user_are_refused(host: Host, place: str) -> None:
    path: Path = getattr(host, place)
    path.write_text('agent = "demo"\n')
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="can be changed by others"):
        host.load()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the organisation's file is root's")


def _loose_file(host: Host) -> None:
    host.org.chmod(0o664)


def _loose_directory(host: Host) -> None:
    host.org.parent.chmod(0o777)


def _directory_of_a_user(host: Host) -> None:
    os.chown(host.org.parent, 65534, 65534)


def _link_in_a_loose_directory(host: Host) -> None:
    """Another file of root's, which says nothing, in the place of the organisation's."""
    other = host.repo.parent / "elsewhere"
    other.mkdir()
    host.org.rename(host.repo.parent / "real.toml")
    (host.repo.parent / "empty.toml").write_text("")
    host.org = other / "config.toml"
    host.org.symlink_to("../empty.toml")
    other.chmod(0o777)


def _link_to_a_loose_directory(host: Host) -> None:
    other = host.repo.parent / "elsewhere"
    other.mkdir(mode=0o777)
    other.chmod(0o777)
    host.org.rename(other / "config.toml")
    host.org.symlink_to(other / "config.toml")


@needs_root
@pytest.mark.parametrize(
    "loosen",
    [
        _loose_file, _loose_directory, _directory_of_a_user, _link_in_a_loose_directory,
        _link_to_a_loose_directory,
    ],
)  # fmt: skip
def test_the_organisations_file_counts_where_root_alone_can_have_put_it(
    host: Host, loosen: Callable[[Host], None]
) -> None:
    host.org.write_text('managed = ["engine"]\n')
    assert host.load().managed == {"engine"}
    loosen(host)
    with pytest.raises(ConfigError, match="can be changed by others than root"):
        host.load()


def test_an_organisations_file_that_leads_nowhere_stops(host: Host) -> None:
    host.org.symlink_to("gone.toml")
    with pytest.raises(ConfigError, match="cannot read the settings"):
        host.load()
    host.org.unlink()
    host.org.symlink_to(host.org.name)
    with pytest.raises(ConfigError, match="cannot read the settings"):
        host.load()
    host.org.unlink()
    host.org.write_text("")
    host.org = host.org / "config.toml"
    with pytest.raises(ConfigError, match=r"cannot read the settings.*not a directory"):
        host.load()


@needs_root
@pytest.mark.parametrize("closed", ["file", "directory"])
def test_an_organisations_file_that_this_user_cannot_read_stops(host: Host, closed: str) -> None:
    home = host.repo.parent / "etc"
    home.mkdir()
    host.org = home / "config.toml"
    host.org.write_text('managed = ["engine"]\n')
    (host.org if closed == "file" else home).chmod(0)
    open_to_all = [host.repo.parent, *host.repo.parent.parents[:3]]
    modes = [(path, path.stat().st_mode) for path in open_to_all]
    try:
        for path, mode in modes:
            path.chmod(mode | 0o011)
        os.seteuid(65534)
        with pytest.raises(ConfigError, match=r"cannot read.*permission denied"):
            host.load()
    finally:
        os.seteuid(0)
        for path, mode in modes:
            path.chmod(mode)


def test_nothing_of_the_environment_names_another_organisation(host: Host) -> None:
    """Its place is a constant; what a user can set are variables, and a name like one is a mistake."""
    assert Path("/etc/coding-agents/config.toml") == ORGANISATION_FILE
    for name in ("CODING_AGENTS_ORGANISATION_FILE", "CODING_AGENTS_MANAGED", "CODING_AGENTS_CONFIG"):
        with pytest.raises(ConfigError, match=name):
            host.load(**{name: "/tmp/x"})
    host.org.write_text('managed = ["engine"]\nengine = "docker"\n')
    elsewhere = str(host.repo.parent / "elsewhere")
    assert host.load(XDG_CONFIG_HOME=elsewhere, HOME=elsewhere, XDG_CONFIG_DIRS=elsewhere).engine == "docker"


def test_mistyped_variables_are_errors_and_those_of_tests_are_not_ours(host: Host) -> None:
    with pytest.raises(ConfigError, match=r"CODING_AGENTS_NETWORK_MOD: .* did you mean 'network.mode'"):
        host.load(CODING_AGENTS_NETWORK_MOD="restricted")
    with pytest.raises(ConfigError, match="CODING_AGENTS_LIMITS_CPU"):
        host.load(CODING_AGENTS_LIMITS_CPU="many")
    assert host.load(CODING_AGENTS_TEST_X="1", XCODING_AGENTS_ENGINE="x").engine == "auto"


def test_every_variable_that_our_own_files_name_is_a_setting_or_listed() -> None:
    root = Path(__file__).parents[2]
    texts = [path.read_text() for path in (root / "src").rglob("*.py")]
    texts += [path.read_text() for path in (root / "dev", root / ".ci" / "run") if path.exists()]
    named = {name for text in texts for name in re.findall(r"(?<!_)CODING_AGENTS_[A-Z_]*[A-Z]\b", text)}
    known = {setting.variable for setting in SETTINGS} | OTHER_VARIABLES
    unknown = {name for name in named - known if not name.startswith("CODING_AGENTS_TEST_")}
    assert not unknown
    assert len(named & known) > 3


def test_variables_of_other_use_are_left_alone(host: Host) -> None:
    assert host.load(CODING_AGENTS_SESSION="x").engine == "auto"


def test_a_wrong_flag_is_a_usage_error(host: Host) -> None:
    with pytest.raises(UsageError, match="--memory: not a size") as caught:
        host.load({"limits.memory": "lots"})
    assert caught.value.exit_status == 2


def test_the_repository_is_found_from_below(host: Host) -> None:
    below = host.repo / "a" / "b"
    below.mkdir(parents=True)
    (host.repo / ".git").write_text("gitdir: elsewhere\n")
    assert find_project(below) == host.repo
    assert find_project(host.env.home.parent / "home") is None


def _set(host: Host, key: str, *words: str) -> str:
    return set_setting(host.user, key, words, organisation_file=host.org)


def test_set_writes_a_private_file_that_loads(host: Host) -> None:
    host.user.parent.rmdir()
    _set(host, "limits.memory", "4g")
    _set(host, "limits.cpu", "0.5")
    _set(host, "network.mode", "restricted")
    _set(host, "git.push", "false")
    _set(host, "git.message", "2024")
    _set(host, "workspace.include", "data/**", "*.env")
    _set(host, "require", "apparmor")
    settings = host.load()
    assert (settings.limits_memory, str(settings.limits_cpu)) == (4 << 30, "0.5")
    assert (settings.network_mode, settings.git_push, settings.git_message) == ("restricted", False, "2024")
    assert (settings.workspace_include, settings.require) == (("data/**", "*.env"), ("apparmor",))
    assert host.user.stat().st_mode & 0o777 == 0o600


def test_set_keeps_comments_and_order(host: Host) -> None:
    host.user.write_text('# mine\nagent = "demo"  # for now\n\n[limits]\ncpu = 2 # two\n')
    _set(host, "limits.cpu", "3")
    assert host.user.read_text() == '# mine\nagent = "demo"  # for now\n\n[limits]\ncpu = 3 # two\n'


def test_set_adds_a_top_level_key_before_the_tables(host: Host) -> None:
    host.user.write_text("[limits]\ncpu = 2\n")
    _set(host, "engine", "podman")
    assert tomllib.loads(host.user.read_text()) == {"engine": "podman", "limits": {"cpu": 2}}


@pytest.mark.parametrize(
    ("key", "words", "says"),
    [
        ("limits.memmory", ["1g"], "did you mean"),
        ("engine", ["dokcer"], "did you mean docker"),
        ("limits.cpu", ["1", "2"], "limits.cpu"),
        ("git.message", ["two", "words"], "git.message"),
    ],
)
def test_set_refuses_and_writes_nothing(host: Host, key: str, words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        set_setting(host.user, key, words)
    assert not host.user.exists()


def test_set_does_not_write_what_the_organisation_refuses(host: Host) -> None:
    host.org.write_text('managed = ["engine"]\nengine = "docker"\n')
    with pytest.raises(ConfigError, match=r'engine = "podman" is refused: your organisation manages engine'):
        _set(host, "engine", "podman")
    assert not host.user.exists()
    _set(host, "agent", "demo")
    assert host.load().agent == "demo"


@pytest.mark.parametrize("text", ["engine = \n", "engin = 1\n", "limits = 5\n"])
def test_set_leaves_a_broken_file_alone(host: Host, text: str) -> None:
    host.user.write_text(text)
    with pytest.raises(CodingAgentsError):
        _set(host, "limits.cpu", "1")
    assert host.user.read_text() == text


def test_set_writes_through_a_link_into_dotfiles(host: Host, tmp_path: Path) -> None:
    dotfile = tmp_path / "dotfiles.toml"
    dotfile.write_text('agent = "demo"\n')
    host.user.symlink_to(dotfile)
    _set(host, "engine", "docker")
    assert host.user.is_symlink()
    assert tomllib.loads(dotfile.read_text()) == {"agent": "demo", "engine": "docker"}


def test_the_environment_value_is_a_plain_value(host: Host) -> None:
    assert isinstance(host.env, HostEnvironment)
    assert host.env == host_environment(host.env.home)
