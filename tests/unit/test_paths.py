"""Truth tables of path spellings on WSL and macOS; nothing here ran on those systems."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.config.environ import Platform
from coding_agents.config.paths import PathTraits, canonical, host_path, traits, windows_path
from coding_agents.errors import UsageError


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("C:\\Users\\Ann\\shop", "/mnt/c/Users/Ann/shop"),
        ("c:/Users/Ann", "/mnt/c/Users/Ann"),
        ("D:\\", "/mnt/d"),
        ("C:\\a\\..\\b\\.\\c", "/mnt/c/b/c"),
        ("C:\\..\\..\\etc", "/mnt/c/etc"),
        ("\\\\wsl$\\Debian\\home\\ann", "/home/ann"),
        ("\\\\wsl.localhost\\debian\\home\\ann", "/home/ann"),
        ("//wsl.localhost/Debian/home", "/home"),
        ("\\\\wsl$\\Debian", "/"),
        ("/home/ann", "/home/ann"),
        ("//home/ann", "//home/ann"),
        ("relative/x", "relative/x"),
        ("name:with:colons", "name:with:colons"),
        ("http://host/x", "http://host/x"),
    ],
)
def test_wsl_paths(raw: str, path: str) -> None:
    assert host_path(raw, platform="wsl", distro="Debian") == path


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("\\\\server\\share\\x", "network share"),
        ("\\\\wsl$\\Ubuntu\\home", "distribution 'Ubuntu'"),
        ("\\\\wsl$", "network share"),
        ("C:shop", "relative to the current directory of drive C:"),
        ("C:", "relative"),
        ("", "empty"),
        ("a\0b", "NUL"),
    ],
)
def test_wsl_paths_without_a_local_spelling(raw: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        host_path(raw, platform="wsl", distro="Debian")


def test_another_automount_root() -> None:
    assert host_path("C:\\x", platform="wsl", mount_root="/") == "/c/x"
    assert windows_path("/c/x", distro="Debian", mount_root="/") == "C:\\x"


@pytest.mark.parametrize("platform", ["linux", "darwin", "other"])
@pytest.mark.parametrize("raw", ["C:\\x", "\\\\server\\x", "//a//b", "C:x"])
def test_elsewhere_a_backslash_is_a_letter(raw: str, platform: Platform) -> None:
    assert host_path(raw, platform=platform) == raw


@pytest.mark.parametrize(
    ("path", "windows"),
    [
        ("/mnt/c/Users/Ann", "C:\\Users\\Ann"),
        ("/mnt/c", "C:\\"),
        ("/mnt/wslg/x", "\\\\wsl.localhost\\Debian\\mnt\\wslg\\x"),
        ("/mnt", "\\\\wsl.localhost\\Debian\\mnt"),
        ("/home/ann", "\\\\wsl.localhost\\Debian\\home\\ann"),
    ],
)
def test_windows_spelling(path: str, windows: str) -> None:
    assert windows_path(path, distro="Debian") == windows


def test_windows_spelling_needs_an_absolute_path() -> None:
    with pytest.raises(ValueError, match="absolute"):
        windows_path("x", distro="Debian")


_NAMES = st.text(string.ascii_letters + string.digits + " ._-äß", min_size=1, max_size=12).filter(
    lambda name: name.strip(". ") == name
)


@given(st.lists(_NAMES, max_size=5), st.sampled_from(["/mnt/c", "/mnt/z", "/home"]))
def test_both_spellings_of_a_path_mean_the_same(names: list[str], root: str) -> None:
    path = "/".join([root, *names])
    assert host_path(windows_path(path, distro="Debian"), platform="wsl", distro="Debian") == path


@given(st.lists(st.sampled_from(["..", ".", "a", "b"]), max_size=8))
def test_a_drive_path_never_leaves_its_drive(names: list[str]) -> None:
    path = host_path("C:\\" + "\\".join(names), platform="wsl")
    assert path == "/mnt/c" or path.startswith("/mnt/c/")
    assert ".." not in path.split("/")


@pytest.mark.parametrize(
    ("path", "platform", "same_as"),
    [
        ("/var/folders/x", "darwin", "/private/var/folders/x"),
        ("/tmp", "darwin", "/private/tmp"),
        ("/etc/x", "darwin", "/private/etc/x"),
        ("/private/var/x", "darwin", "/private/var/x"),
        ("/variable", "darwin", "/variable"),
        ("/Users/ann", "darwin", "/Users/ann"),
        ("/var/x", "linux", "/var/x"),
    ],
)
def test_canonical(path: str, platform: Platform, same_as: str) -> None:
    assert canonical(path, platform=platform) == same_as


@pytest.mark.parametrize(
    ("path", "platform", "insensitive", "slow"),
    [
        ("/home/u/x", "linux", False, False),
        ("/mnt/c/x", "linux", False, False),
        ("/home/u/x", "wsl", False, False),
        ("/mnt/c/x", "wsl", True, True),
        ("/mnt/data/x", "wsl", False, False),
        ("/Users/u/x", "darwin", True, False),
        ("/Volumes/usb/x", "darwin", True, True),
    ],
)
def test_traits(path: str, platform: Platform, insensitive: bool, slow: bool) -> None:
    found = traits(path, platform=platform)
    assert (found.case_insensitive, found.slow) == (insensitive, slow)
    assert bool(found.why) == (found != PathTraits(case_insensitive=False, slow=False))
