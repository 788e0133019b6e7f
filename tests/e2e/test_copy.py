"""`cp` both ways and `paste`, on a real session."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest

from support.product import Product, wait_for
from support.ptys import on_terminal, shell_agent

pytestmark = pytest.mark.engine


@pytest.fixture
def name(product: Product, repo: Path) -> str:
    return product.launch_detached(repo, "sleep 600")


def test_a_tree_goes_in_and_comes_out_the_same(product: Product, name: str) -> None:
    source = product.home / "tree"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/ünïcode file").write_bytes(os.urandom(200_000))
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("deep/er")
    os.mkfifo(source / "pipe")
    told = product.run("cp", "tree", f"{name}:/tmp").err
    assert "copied 2 files, 200010 bytes, to /tmp/tree" in told
    assert "left out" in told
    assert "pipe" in told
    inside = product.exec(name, "stat -c '%U %a' /tmp/tree/run; readlink /tmp/tree/link; ls /tmp/tree").out
    assert inside.split() == ["agentuser", "755", "deep/er", "deep", "link", "run"]

    product.run("cp", f"{name}:/tmp/tree", "back")
    back = product.home / "back"
    assert (back / "deep/er/ünïcode file").read_bytes() == (source / "deep/er/ünïcode file").read_bytes()
    assert (back / "run").stat().st_mode & 0o777 == 0o755
    assert (back / "link").readlink() == Path("deep/er")
    product.run("cp", f"{name}:README.md", ".")
    assert (product.home / "README.md").read_text() == "hello\n"
    product.run("cp", "README.md", f"{name}:src/copy.md")
    assert product.exec(name, "cat /workspace/src/copy.md").out == "hello\n"
    copied = [record["subject"] for record in product.audit(name) if record["type"] == "copied"]
    assert copied == [
        "in /tmp/tree",
        "out /tmp/tree",
        "out /workspace/README.md",
        "in /workspace/src/copy.md",
    ]
    product.run("stop", name)


def test_a_hostile_tree_is_contained(product: Product, name: str) -> None:
    product.exec(
        name,
        "mkdir -p /tmp/t/d && cd /tmp/t && echo fine > a && ln a hard && mkfifo pipe && ln -s /etc/passwd abs &&"
        "ln -s ../../x up && ln -s d/../../../x crooked && ln -s . here && printf x > \"$(printf 'e\\033]0;t\\007')\"",
    )
    copied = product.run("cp", f"{name}:/tmp/t", "t")
    assert sorted(path.name for path in (product.home / "t").iterdir()) == [
        "a",
        "d",
        "e\x1b]0;t\x07",
        "hard",
        "here",
    ]
    assert all(word in copied.err for word in ("left out", "abs", "up", "crooked", "pipe"))
    assert not (product.home / "t/hard").samefile(product.home / "t/a")
    product.exec(
        name, "printf x > \"$(printf '/tmp/e\\033]0;t\\007')\"; ln -s x \"$(printf '/tmp/t/\\033]0;l\\007')\""
    )
    assert "\x1b" not in product.run("cp", f"{name}:/tmp/t", "t2").err
    victim = product.home / "victim"
    victim.write_text("untouched")
    (product.home / "leads").symlink_to(victim)
    assert "is there already" in product.run("cp", f"{name}:/tmp/t/a", "leads", status=61).err
    assert victim.read_text() == "untouched"
    product.exec(name, "head -c 3000000 /dev/zero > /tmp/big; truncate -s 20G /tmp/sparse")
    for what in ("big", "sparse"):
        refused = product.run("cp", "--max-size", "2m", f"{name}:/tmp/{what}", "big", status=61)
        assert "more than 2m" in refused.err
        assert "--max-size" in refused.err
    assert not [
        path.name for path in product.home.iterdir() if path.name.startswith((".coding-agents-copy", "big"))
    ]
    product.run("stop", name)


MISTAKES = [
    (("README", "{name}:/etc/x"), 2, "below /workspace, /home/agentuser, /tmp"),
    (("README", "{name}:../etc/x"), 2, "cannot copy to /etc/x"),
    (("README", "{name}:/tmp/../opt"), 2, "cannot copy to /opt"),
    (("README", "{name}:/tmp/no/such"), 34, "/tmp/no"),
    (("README", "{name}:/tmp/none/"), 61, "no directory /tmp/none"),
    (("none", "{name}:/tmp"), 61, "cannot read"),
    (("{name}:/tmp/none", "."), 61, "No such file"),
    (("{name}:/tmp/ready", "no/such/place"), 61, "is no directory"),
    (("a", "b"), 2, "has to be in a session"),
    (("{name}:/tmp", "{name}:/tmp"), 2, "has to be in a session"),
    (("{name}:", "."), 2, "not a file or directory"),
    (("{name}:/", "."), 2, "not a file or directory"),
    (("nobody:/tmp/x", "."), 18, "nobody"),
    (("--max-size", "lots", "README", "{name}:/tmp"), 2, "'lots'"),
]


@pytest.mark.alike
def test_mistakes(product: Product, name: str) -> None:
    (product.home / "README").write_text("x")
    for words, status, says in MISTAKES:
        told = product.run("cp", *(word.replace("{name}", name) for word in words), status=status).err
        assert says in told, words
    product.run("stop", name)


def _png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = zlib.compress(b"\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


@pytest.mark.alike
def test_an_image_is_pasted_and_named_in_the_agents_terminal(product: Product, repo: Path) -> None:
    shell_agent(product)
    launched = product.run("launch", str(repo), "--agent", "shell", "--network-proxy", "restricted", "-d")
    name = launched.out.strip()
    (product.home / "shot.png").write_bytes(_png())
    (product.home / "fake.png").write_text("#!/bin/sh\nno image\n")
    with on_terminal(product, "connect", name) as shown:
        shown.sees("$")
        assert product.run("paste", name, "shot.png").out == "/tmp/paste-1.png\n"
        shown.sees("/tmp/paste-1.png")
        shown.types("\x01echo \x05 > /tmp/typed\r")  # it is on the line, and no Enter came with it
        wait_for(lambda: product.exec(name, "cat /tmp/typed", status=None).out, "the line")
        shown.leaves_tmux()
        assert shown.ends() == 0
    assert product.exec(name, "cat /tmp/typed").out.strip() == "/tmp/paste-1.png"
    product.run("cp", f"{name}:/tmp/paste-1.png", "back.png")
    assert (product.home / "back.png").read_bytes() == _png()
    tools = product.home / "bin"
    tools.mkdir()
    (tools / "xclip").write_text(
        f'#!/bin/sh\necho "$@" > {product.home}/asked; exec cat {product.home}/shot.png\n'
    )
    (tools / "xclip").chmod(0o755)
    desktop = {"PATH": f"{tools}:{os.environ['PATH']}", "DISPLAY": ":7", "SECRET": "x"}
    assert product.run("paste", name, env=desktop).out == "/tmp/paste-2.png\n"
    assert (product.home / "asked").read_text().split() == [
        "-selection",
        "clipboard",
        "-target",
        "image/png",
        "-out",
    ]
    assert "cannot read the clipboard" in product.run("paste", name, status=61).err
    assert "no image that agents take" in product.run("paste", name, "fake.png", status=61).err
    product.run("stop", name)
