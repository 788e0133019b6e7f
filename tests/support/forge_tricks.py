"""What a bad forge, or somebody between us and a good one, answers in place of git."""

from __future__ import annotations

import random
import time

from support.forge import Request, Trick

SERVICES = ("upload-pack", "receive-pack")


def redirect(to: str, *, status: int = 302, on: str = "GET") -> Trick:
    """Send who asks to another address (of a repository), with the rest of the path kept as git's clients expect."""

    def trick(request: Request) -> bool:
        if request.command != on:
            return False
        _, _, rest = request.path.partition(".git")
        request.say(status, b"", location=f"{to}{rest}")
        return True

    return trick


def hang(request: Request) -> bool:
    """Take the request, and say nothing until the server goes."""
    request.close_connection = True
    request.forge.closing.wait(120)
    return True


def drip(request: Request) -> bool:
    """A byte now and then: no timeout of a single read ever sees silence."""
    _head(request)
    while not request.forge.closing.wait(0.05):
        request.wfile.write(b"0")
    return True


def garbage(request: Request) -> bool:
    """Bytes that are no protocol, under git's own content type."""
    _head(request)
    request.wfile.write(random.Random(7).randbytes(5000))
    return True


def endless(request: Request) -> bool:
    """A side band that never ends: a pack of any size, as fast as it is taken."""
    if request.command == "GET":
        return False
    for _ in request.body():
        pass
    _head(request)
    request.wfile.write(b"0008NAK\n")
    pack = b"\1PACK\0\0\0\2\0\xff\xff\xff"
    request.wfile.write(b"%04x" % (len(pack) + 4) + pack)
    piece = b"\1" + random.Random(7).randbytes(65515)
    deadline = time.monotonic() + 120
    while not request.forge.closing.is_set() and time.monotonic() < deadline:
        request.wfile.write(b"%04x" % (len(piece) + 4) + piece)
    return True


def answering(status: int, body: bytes = b"", **headers: str) -> Trick:
    """One fixed answer, as 500, or 401 with a challenge of its own."""

    def trick(request: Request) -> bool:
        request.say(status, body, **headers)
        return True

    return trick


def chatter(text: bytes, *, status: int = 0) -> str:
    """The script of a hook that prints these bytes, whatever they are, and ends with `status`."""
    shown = "".join(f"\\{byte:03o}" for byte in text)
    return f"printf '{shown}' >&2; exit {status}"


def _head(request: Request) -> None:
    request.close_connection = True
    request.send_response(200)
    service = next((one for one in SERVICES if one in request.path), SERVICES[0])
    kind = "advertisement" if request.command == "GET" else "result"
    request.send_header("content-type", f"application/x-git-{service}-{kind}")
    request.send_header("connection", "close")
    request.end_headers()
