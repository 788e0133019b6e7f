"""Random conversations with the relay: what is no push of the session's refs is refused, in words, and moves nothing.

Behind the relay is a real receive-pack; which names are refs `git check-ref-format` says.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coding_agents.gitsync.pktline import FLUSH, pkt
from coding_agents.gitsync.relay_limits import RelayLimits
from coding_agents.gitsync.relay_repo import ARCHIVING
from coding_agents_guest.nestedref import LATEST, NESTED, is_nested_name
from support.gitattack import NULL, new_commit
from support.relay_scene import FETCH, PUSH, Scene, make_scene, read_all
from support.relay_server import RelayServer, serving
from support.repos import BRANCH

OWN = (BRANCH.ref, LATEST)
_REPORTS = (
    b"report-status",
    b"report-status side-band-64k atomic",
    b"report-status-v2 delete-refs ofs-delta agent=x",
)


@dataclass
class Talk:
    """A relay that is served with no bound on the number of conversations."""

    scene: Scene
    server: RelayServer

    def refs(self) -> dict[str, str]:
        """All but what is kept while a push is carried out: the service ends after its answer does."""
        refs = self.scene.relay.store.refs()
        return {str(ref): str(oid) for ref, oid in refs.items() if not ref.startswith(ARCHIVING)}

    def say(self, *pieces: bytes) -> bytes:
        """The whole answer to a client that says `pieces` and is done; it must end (or a timeout is raised)."""
        with self.server.connect() as link:
            with suppress(BrokenPipeError, ConnectionResetError):
                for piece in pieces:
                    link.sendall(piece)
                link.shutdown(socket.SHUT_WR)
            return read_all(link)

    def undo(self, before: dict[str, str]) -> None:
        """Put the refs back as they were."""
        lines = [f"delete {ref}\0\0" for ref in self.refs().keys() - before.keys()]
        lines += [f"update {ref}\0{oid}\0\0" for ref, oid in before.items()]
        argv = ["git", "update-ref", "--stdin", "-z"]
        text = "".join(lines).encode("utf-8", "surrogateescape")
        subprocess.run(argv, cwd=self.scene.relay.git_dir, env=self.scene.env, input=text, check=True)

    def __repr__(self) -> str:
        return "talk"


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    scene = make_scene(tmp_path_factory.mktemp("talk"))
    limits = RelayLimits(burst=1_000_000, conversations=64, refs=100_000)
    with serving(scene.relay, scene.tmp / "run", limits=limits) as server:
        yield Talk(scene, server)


_part = st.one_of(
    st.text(alphabet="ab-_.@", min_size=1, max_size=5).map(str.encode),
    st.sampled_from(
        [b"..", b"a..b", b"@{", b"a@{b", b".a", b"a.lock", b"a.", b"@", b"HEAD", b"-", b"", b"a b", b"a~", b"^", b":",
         b"?", b"*", b"[", b"\\", b"\x7f", b"\t", b"\x01", b"\xff", "\u00e9".encode(), b"x" * 240, b"x" * 300,
         b"%2F", b"a.lock.b", b"\x80.lock", b".git"]
    ),
)  # fmt: skip
_tail = st.lists(_part, min_size=1, max_size=4).map(b"/".join)
_prefix = st.sampled_from(
    [NESTED, NESTED, NESTED, NESTED.rstrip("/"), f"{BRANCH.ref}/", BRANCH.ref, f"{LATEST}/", "refs/coding-agents/",
     "refs/coding-agents/archive/", "refs/coding-agents/salvage/heads/", "refs/heads/", "refs/tags/", "refs/", "",
     NESTED.upper(), f"/{NESTED}", f"refs/../{NESTED}", "refs//coding-agents/nested/", "HEAD/"]
)  # fmt: skip
_name = st.one_of(
    st.sampled_from([*OWN, "HEAD", "refs/heads/main", "refs/coding-agents/base"]).map(str.encode),
    st.builds(lambda prefix, tail: prefix.encode() + tail, _prefix, _tail),
    st.builds(lambda prefix, tail: prefix.encode() + tail, _prefix, st.binary(min_size=1, max_size=8)),
    st.builds(lambda size: NESTED.encode() + b"n" * size, st.sampled_from((255, 256, 5000, 65_000))),
)
_capabilities = st.sampled_from(
    [*_REPORTS, *_REPORTS, b"", b"report-status push-options", b"\xff", b"push-cert=x", b" "]
)


@settings(max_examples=60)
@given(name=_name, capabilities=_capabilities, delete=st.booleans() | st.just(False))
def test_one_ref_is_taken_just_if_it_is_ours_and_git_calls_it_one(
    talk: Talk, name: bytes, capabilities: bytes, delete: bool
) -> None:
    before = talk.refs()
    ref = name.removesuffix(b"\n").decode("utf-8", "surrogateescape")
    new, pack = new_commit(talk.scene.base, "one")
    old = before.get(ref, NULL)
    line = b"%s %s %s\0%s" % (old.encode(), (NULL if delete else new).encode(), name, capabilities)
    if len(line) > 65_516:
        return
    said = talk.say(pkt(PUSH), pkt(line), FLUSH, b"" if delete else pack)
    after = talk.refs()
    wanted = (
        _is_ours(ref) and not delete and not {b"\0", b"\n"} & {name[i : i + 1] for i in range(len(name))}
        and _is_ref(ref) and max(map(len, name.split(b"/"))) <= 250
        and capabilities in (*_REPORTS, b"", b" ", b"push-cert=x") and len(line) < 60_000
    )  # fmt: skip
    talk.undo(before)
    if wanted:
        assert after == {**before, ref: new}, said
    elif b"\0" in name:  # what follows it is read as capabilities
        assert _changed(before, after) <= {ref.partition("\0")[0]}
        assert all(map(_is_ours, _changed(before, after)))
    elif max(map(len, name.split(b"/"))) <= 250:
        assert after == before
        assert b"ng " in said or b"ERR " in said or b"unpack" in said or b"report-status" not in capabilities


@settings(max_examples=50)
@given(
    names=st.lists(_name, min_size=1, max_size=5),
    capabilities=_capabilities,
    many=st.sampled_from((0, 0, 0, 64, 300)),
    data=st.data(),
)
def test_no_list_of_commands_moves_what_is_not_ours(
    talk: Talk, names: list[bytes], capabilities: bytes, many: int, data: st.DataObject
) -> None:
    before = talk.refs()
    new, pack = new_commit(talk.scene.base, "list")
    names = [*names, *(NESTED.encode() + b"%d" % number for number in range(many))]
    lines = []
    for number, name in enumerate(names):
        old = data.draw(st.sampled_from((NULL, talk.scene.base, "f" * 40, "F" * 40, "1" * 64)))
        to = data.draw(st.sampled_from((new, new, new, NULL, talk.scene.private, "1" * 64)))
        line = f"{old} {to} ".encode() + name + (b"\0" + capabilities if number == 0 else b"\n")
        lines.append(pkt(line[:65_516]))
    said = talk.say(
        pkt(PUSH), b"".join(lines) + data.draw(st.sampled_from((FLUSH, FLUSH, b"", b"0001"))), pack
    )
    after = talk.refs()
    talk.undo(before)
    changed = _changed(before, after)
    assert all(map(_is_ours, changed)), said
    assert all(map(_is_ref, changed)), said
    assert all(after.get(ref) == new for ref in changed)
    if changed:
        assert all(_is_ours(name.split(b"\0")[0].decode("utf-8", "surrogateescape")) for name in names)


@settings(max_examples=50)
@given(data=st.data())
def test_a_conversation_with_changed_bytes_ends_and_moves_nothing_else(
    talk: Talk, data: st.DataObject
) -> None:
    before = talk.refs()
    new, pack = new_commit(talk.scene.base, "bytes")
    line = f"{NULL} {new} {NESTED}x\0report-status side-band-64k".encode()
    opening = pkt(
        data.draw(st.sampled_from((PUSH, PUSH + b"\0version=1\0", FETCH, FETCH + b"\0version=2\0")))
    )
    whole = bytearray(opening + pkt(line) + FLUSH + pack)
    for _ in range(data.draw(st.integers(1, 4))):
        here = data.draw(st.integers(0, min(len(whole), 330) - 1))
        match data.draw(st.sampled_from(("set", "insert", "cut", "end", "long"))):
            case "set":
                whole[here] = data.draw(st.integers(0, 255))
            case "insert":
                whole[here:here] = data.draw(
                    st.sampled_from((b"\0", b"0", b"0000", b"\xff", b"/", b"ffff", b"0004"))
                )
            case "cut":
                del whole[here : here + data.draw(st.integers(1, 50))]
            case "end":
                del whole[max(here, 1) :]
            case "long":
                whole[here:here] = b"x" * 100_000
    cut = data.draw(st.integers(0, len(whole)))
    talk.say(bytes(whole[:cut]), bytes(whole[cut:]))
    after = talk.refs()
    talk.undo(before)
    assert all(ref.startswith(NESTED) and _is_ref(ref) for ref in _changed(before, after))
    assert all(after[ref] == new for ref in _changed(before, after))


def _changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {ref for ref in before.keys() | after.keys() if before.get(ref) != after.get(ref)}


def _is_ours(ref: str) -> bool:
    return ref in OWN or (ref.startswith(NESTED) and is_nested_name(ref.removeprefix(NESTED)))


def _is_ref(ref: str) -> bool:
    name = ref.encode("utf-8", "surrogateescape")
    return b"\0" not in name and subprocess.run(["git", "check-ref-format", name]).returncode == 0
