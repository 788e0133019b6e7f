"""Which URLs are cloned, how they are shown, and where their clones lie."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coding_agents.errors import CloneError
from coding_agents.gitsync.discover import resolve_source
from coding_agents.gitsync.urls import GitUrl, parse_url, strip_userinfo


@pytest.mark.parametrize(
    ("raw", "shown", "directory", "name"),
    [
        ("https://h.test/a/b.git", "https://h.test/a/b.git", "h.test/a/b.git", "b"),
        ("https://h.test/a/b", "https://h.test/a/b", "h.test/a/b.git", "b"),
        ("https://h.test/a/b/", "https://h.test/a/b/", "h.test/a/b.git", "b"),
        ("https://u:tok@h.test:8443/b", "https://h.test:8443/b", "h.test-8443/b.git", "b"),
        ("ssh://git@h.test/a/b", "ssh://git@h.test/a/b", "h.test/a/b.git", "b"),
        ("ssh://git:pw@h.test/a/b", "ssh://git@h.test/a/b", "h.test/a/b.git", "b"),
        ("git@h.test:a/b.git", "git@h.test:a/b.git", "h.test/a/b.git", "b"),
        ("work:b", "work:b", "work/b.git", "b"),
        ("git://h.test/b", "git://h.test/b", "h.test/b.git", "b"),
        ("file:///srv/b.git", "file:///srv/b.git", "localhost/srv/b.git", "b"),
    ],
)
def test_urls(raw: str, shown: str, directory: str, name: str) -> None:
    url = parse_url(raw)
    assert url is not None
    assert (url.shown, url.directory, url.name) == (shown, PurePosixPath(directory), name)
    assert "tok" not in repr(url)
    assert "pw" not in repr(url)


@pytest.mark.parametrize("raw", [".", "repo", "/srv/repo", "../x", "C:\\repo", "c:/repo", "a/b:c", "~/x"])
def test_paths(raw: str) -> None:
    assert parse_url(raw) is None
    assert resolve_source(raw) == Path(raw)


@pytest.mark.parametrize(
    "raw",
    [
        "-x", "--upload-pack=touch /tmp/x", "ext::sh -c id", "EXT::sh", "fd::17", "foo-bar::x", "https::x",
        "ftp://h/x", "javascript://h/x", "rsync://h/x", "https://", "https:///x", "https://h", "https://h/",
        "https://h/x?y=1", "https://h/x#y", "ssh://-oProxyCommand=id/x", "ssh://-l@h/x", "git@-h:x", "-l@h:x",
        "https://h/x%0ahost=evil", "https://h/x\ny", "https://h:99999/x", "https://[::1/x", "git@h:a\nb",
    ],
)  # fmt: skip
def test_refused(raw: str) -> None:
    with pytest.raises(CloneError):
        parse_url(raw)


def test_what_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "host:repo").mkdir()
    assert resolve_source("host:repo") == Path("host:repo")


@given(
    st.text(alphabet="ab./~-_%:@ABé", min_size=1, max_size=30),
    st.text(alphabet="ab./~-_ABé", min_size=1, max_size=30),
)
def test_clones_stay_in_their_folder_and_apart(one: str, two: str) -> None:
    urls = []
    for path in (one, two):
        try:
            url = parse_url(f"https://h.test/{path}")
        except CloneError:
            continue
        assert isinstance(url, GitUrl)
        for part in url.directory.parts:
            assert part not in ("", ".", "..")
            assert not part.startswith(("-", "."))
        assert not any(part.endswith(".git") for part in url.directory.parts[:-1])
        urls.append(url)
    if len({url.directory for url in urls}) < len(urls):
        same = {url.path.rstrip("/").removesuffix(".git").replace("//", "/").strip("/") for url in urls}
        assert len(same) == 1 or one.strip("/").split("/") == two.strip("/").split("/")


def test_a_host_named_empty_does_not_meet_the_empty_sessions() -> None:
    url = parse_url("ssh://empty/demo-x")
    assert url is not None
    assert url.directory != PurePosixPath("empty/demo-x.git")


@pytest.mark.parametrize("url", ["/srv/x", "git@h:x", "", "C:\\x"])
def test_what_has_no_userinfo_stays(url: str) -> None:
    assert strip_userinfo(url) == url
