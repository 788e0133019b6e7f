"""Names of refs that an agent has chosen: none may end the service of its session, and least of all its rescue."""

from __future__ import annotations

import hashlib
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from coding_agents.gitsync.pktline import FLUSH, pkt
from coding_agents.gitsync.relay_repo import SALVAGE, Identity
from coding_agents.gitsync.relay_usage import RelayUsage
from coding_agents.proc.tree import remove_tree
from coding_agents_guest.lfspointer import LFS
from coding_agents_guest.nestedref import NESTED
from support.relay_scene import PUSH, Scene, make_scene, read_advertisement, read_all
from support.relay_server import URL, RelayServer, serving
from support.repos import BRANCH, commit, sh

_EMPTY = b"PACK" + struct.pack(">II", 2, 0)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = make_scene(tmp_path)
    yield made
    remove_tree(made.relay.git_dir)  # which pytest cannot


def push_at_the_base(scene: Scene, server: RelayServer, refs: Sequence[bytes]) -> bytes:
    """One push of new refs at a commit that the relay has; the answer."""
    lines = [b"%s %s %s" % (b"0" * 40, scene.base.encode(), ref) for ref in refs]
    lines[0] += b"\0report-status"
    with server.connect() as link:
        link.sendall(pkt(PUSH))
        read_advertisement(link)
        link.sendall(b"".join(map(pkt, lines)) + FLUSH + _EMPTY + hashlib.sha1(_EMPTY).digest())
        link.shutdown(socket.SHUT_WR)
        return read_all(link)


def plant(scene: Scene, *refs: bytes) -> None:
    """What the relay of an earlier version may have taken."""
    commands = b"".join(b"create %s %s\n" % (ref, scene.base.encode()) for ref in refs)
    scene.relay.store.git("update-ref", "--stdin", stdin=commands)


def salvages(scene: Scene) -> None:
    with serving(scene.relay, scene.tmp / "salvage", identity=Identity.SALVAGE) as server:
        env = server.guest_env(scene.env)
        sh(scene.guest, "fetch", "-q", "local", env=env)
        sh(scene.guest, "checkout", "-qB", BRANCH.short, f"local/{BRANCH.short}", env=env)
        found = commit(scene.guest, "work", "precious\n", env=env)
        sh(scene.guest, "push", "-q", URL, f"HEAD:{SALVAGE}/head", env=env)
    assert scene.relay.store.resolve(f"{SALVAGE}/head") == found


@pytest.mark.parametrize(
    "name",
    [
        f"{NESTED}x".encode() + b"/a" * 1800,
        NESTED.encode() + b"x\xff",
        NESTED.encode() + b"/".join([b"b" * 200] * 15),
        LFS.encode() + b"x\xff",
        LFS.encode() + b"a" * 40 + b"/a" * 1800,
    ],
    ids=["deep", "no-text", "long", "lfs-no-text", "lfs-deep"],
)
def test_a_name_that_our_guest_does_not_make_is_refused(scene: Scene, name: bytes) -> None:
    before = scene.relay.store.refs()
    with serving(scene.relay, scene.tmp / "run") as server:
        assert b"ng " + name in push_at_the_base(scene, server, [name])
        assert [(event.type, event.outcome) for event in server.events] == [("push-refused", "denied")]
    assert scene.relay.store.refs() == before
    salvages(scene)


def test_a_relay_that_has_a_name_deeper_than_any_recursion_still_takes_a_salvage(scene: Scene) -> None:
    plant(scene, NESTED.encode() + b"x" + b"/a" * 1200)
    salvages(scene)


def test_all_refs_that_an_agent_may_have_do_not_shut_out_its_rescue(scene: Scene) -> None:
    """Their names alone are more than a megabyte of what git lists before it takes a push."""
    names = [
        f"{number:04d}/{'b' * 200}/{'c' * 200}/{'d' * 200}/{'e' * 200}/{'f' * 185}" for number in range(1100)
    ]
    packed = "".join(f"{scene.base} {NESTED}{name}\n" for name in names)
    with (scene.relay.git_dir / "packed-refs").open("a") as file:
        file.write(packed)
    assert len(scene.relay.store.refs(NESTED)) == 1100
    salvages(scene)
    with serving(scene.relay, scene.tmp / "run") as server:
        answer = push_at_the_base(scene, server, [f"{NESTED}one-more".encode()])
    assert b"relay.refs allows 1000" in answer


def test_directories_count_as_what_they_take_on_disk(scene: Scene) -> None:
    usage = RelayUsage(scene.relay)
    before = usage.measure(scene.relay.store.refs()).disk_bytes
    with serving(scene.relay, scene.tmp / "run") as server:
        names = [f"{NESTED}{number}{'/a' * 60}".encode() for number in range(10)]
        assert push_at_the_base(scene, server, names).count(b"ok refs") == 10
    directories = 2 * 10 * 60  # and those of the logs
    assert usage.measure(scene.relay.store.refs()).disk_bytes >= before + directories * 4096
