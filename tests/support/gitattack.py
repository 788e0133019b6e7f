"""What a hostile guest says to the relay, by git and by bare bytes. Sent whole into a container, as our attacks.

Standard library only, no import of ours, arguments and results are JSON; bytes travel as Latin-1 text. Nothing
here judges. Formats: gitprotocol-pack(5), gitformat-pack(5).
"""

from __future__ import annotations

import hashlib
import socket
import struct
import subprocess
import time
import zlib
from contextlib import suppress

RELAY = "/run/coding-agents/relay.sock"
FETCH = b"git-upload-pack /workspace\0host=coding-agents\0"
PUSH = b"git-receive-pack /workspace\0host=coding-agents\0"
FLUSH = b"0000"
NULL = "0" * 40
SHOWN = 3000
COMMIT, TREE, BLOB, REF_DELTA = 1, 2, 3, 7
KINDS = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob"}

# --- git as a program ----------------------------------------------------------------------------------------


def git(*arguments):
    """Exit status and what git said, in /workspace."""
    done = subprocess.run(
        ("git", *arguments), cwd="/workspace", capture_output=True, timeout=120, check=False
    )
    return [done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")]


def fetch_by_id(oids):
    """For each id and protocol version: whether a fetch of it succeeded, or the object is here afterwards."""
    found = {}
    for oid in oids:
        for version in "012":
            fetched = git("-c", f"protocol.version={version}", "fetch", "local", oid)[0] == 0
            here = git("cat-file", "-e", oid)[0] == 0
            found[f"{oid} v{version}"] = fetched or here
    return found


def push_as_git(refspecs):
    """What `git push` says to each refspec: exit status and text."""
    return {refspec: git("push", "local", refspec) for refspec in refspecs}


# --- bare bytes ----------------------------------------------------------------------------------------------


def pkt(payload):
    return b"%04x" % (len(payload) + 4) + payload


def connect():
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(60)
    link.connect(RELAY)
    return link


def read_all(link):
    """Everything until the host ends the conversation, however it does."""
    received = b""
    with suppress(ConnectionError):
        while data := link.recv(65536):
            received += data
    return received


def read_refs(link):
    """The advertisement, up to its flush packet."""
    received = b""
    while not received.endswith(FLUSH):
        data = link.recv(65536)
        if not data:
            break
        received += data
    return received


def send(link, data):
    with suppress(ConnectionError):
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)


def ask(requests):
    """The answer to each of several openings of a conversation."""
    answers = []
    for request in requests:
        with connect() as link:
            send(link, request.encode("latin-1"))
            answers.append(read_all(link)[:SHOWN].decode("latin-1"))
    return answers


def want_by_id(oids):
    """What upload-pack answers to each `want`, past any check that a git client makes."""
    answers = {}
    for oid in oids:
        with connect() as link:
            link.sendall(pkt(FETCH + b"\0version=2\0"))
            read_refs(link)
            send(link, pkt(f"want {oid} no-progress\n".encode()) + FLUSH + pkt(b"done\n"))
            answers[oid] = read_all(link)[:SHOWN].decode("latin-1")
    return answers


def push(commands, pack=b"", capabilities="report-status"):
    """Answer to a push of [old, new, ref] commands (the ref as it is, unchecked) with these bytes as its pack."""
    with connect() as link:
        link.sendall(pkt(PUSH))
        read_refs(link)
        lines = [f"{old} {new} {ref}".encode("utf-8", "surrogateescape") for old, new, ref in commands]
        lines[0] += b"\0" + capabilities.encode()
        send(link, b"".join(map(pkt, lines)) + FLUSH + pack)
        return read_all(link)[:SHOWN].decode("latin-1")


# --- objects and packs ---------------------------------------------------------------------------------------


def oid_of(kind, content):
    return hashlib.sha1(KINDS[kind] + b" %d\0" % len(content) + content).hexdigest()


def tree_of(entries):
    """A tree of (mode, name, id), in the given order and unchecked."""
    return b"".join(f"{mode} ".encode() + name.encode("utf-8", "surrogateescape") + b"\0" + bytes.fromhex(oid)
                    for mode, name, oid in entries)  # fmt: skip


def commit_of(tree, parents=()):
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents),
             "author A <a@b> 1700000000 +0000", "committer A <a@b> 1700000000 +0000", "", "work\n"]  # fmt: skip
    return "\n".join(lines).encode()


def entry_header(kind, size):
    byte, size, out = (kind << 4) | (size & 15), size >> 4, bytearray()
    while size:
        out.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    out.append(byte)
    return bytes(out)


def pack_of(objects, *, claimed=None):
    """A pack of (kind, content) pairs; `claimed` is how many it says there are."""
    entries = b"".join(entry_header(kind, len(content)) + zlib.compress(content) for kind, content in objects)
    return sealed(entries, len(objects) if claimed is None else claimed)


def sealed(entries, count):
    body = b"PACK" + struct.pack(">II", 2, count) + entries
    return body + hashlib.sha1(body).digest()


def new_commit(parent, text="work"):
    """A commit of one file, and the pack that has it."""
    blob = text.encode()
    tree = tree_of([("100644", "file", oid_of(BLOB, blob))])
    commit = commit_of(oid_of(TREE, tree), [parent])
    return oid_of(COMMIT, commit), pack_of([(BLOB, blob), (TREE, tree), (COMMIT, commit)])


def push_to_refs(old, refs):
    """What each ref name answers to a good commit."""
    new, pack = new_commit(old)
    return {ref: push([[NULL, new, ref]], pack) for ref in refs}


def push_many(old, ref, count, capabilities="report-status"):
    """One push of `count` commands."""
    new, pack = new_commit(old)
    commands = [[old, new, ref], *([NULL, new, f"refs/heads/many/{number}"] for number in range(1, count))]
    return push(commands, pack, capabilities)


def push_trees(old, ref, cases):
    """What the relay answers to a commit with each tree; its entries are (mode, name, what it is)."""
    blob, link = b"[core]\n\tfsmonitor = true\n", b"/etc/passwd"
    inner = tree_of([("100644", "config", oid_of(BLOB, blob))])
    ids = {"blob": oid_of(BLOB, blob), "link": oid_of(BLOB, link), "tree": oid_of(TREE, inner), "null": NULL,
           "gitlink": "1" * 40}  # fmt: skip
    answers = {}
    for name, entries in cases.items():
        tree = tree_of([(mode, path, ids[what]) for mode, path, what in entries])
        commit = commit_of(oid_of(TREE, tree), [old])
        pack = pack_of([(BLOB, blob), (BLOB, link), (TREE, inner), (TREE, tree), (COMMIT, commit)])
        answers[name] = push([[old, oid_of(COMMIT, commit), ref]], pack)
    return answers


def push_modules(old, ref, texts):
    """What the relay answers to a commit with each text as its .gitmodules."""
    answers = {}
    for text in texts:
        tree = tree_of([("100644", ".gitmodules", oid_of(BLOB, text.encode()))])
        commit = commit_of(oid_of(TREE, tree), [old])
        pack = pack_of([(BLOB, text.encode()), (TREE, tree), (COMMIT, commit)])
        answers[text] = push([[old, oid_of(COMMIT, commit), ref]], pack)
    return answers


def push_bad_packs(old, ref, foreign):
    """What the relay answers to packs that are not what they say; `foreign` are ids of the host's repository."""
    new, good = new_commit(old)
    without_tree = commit_of("2" * 40, [old])
    stolen_parent = commit_of(oid_of(TREE, b""), [foreign[0]])
    huge = entry_header(COMMIT, 3 << 30) + zlib.compress(b"tree ")
    thin = entry_header(REF_DELTA, 4) + b"\3" * 20 + zlib.compress(b"\1\1\1x")
    packs = {
        "no pack": (new, b""),
        "not a pack": (new, b"GET / HTTP/1.0\r\n\r\n" * 100),
        "a byte changed": (new, good[:40] + bytes([good[40] ^ 1]) + good[41:]),
        "cut off": (new, good[: len(good) // 2]),
        "wrong sum": (new, good[:-1] + bytes([good[-1] ^ 1])),
        "thin on nothing": (new, sealed(thin, 1)),
        "four billion objects": (new, sealed(good[12:-20], 2**32 - 1)),
        "commit of three gigabytes": (new, sealed(huge, 1)),
        "no such tree": (oid_of(COMMIT, without_tree), pack_of([(COMMIT, without_tree)])),
        "foreign parent": (oid_of(COMMIT, stolen_parent), pack_of([(TREE, b""), (COMMIT, stolen_parent)])),
        **{f"empty pack, foreign id {number}": (oid, pack_of([])) for number, oid in enumerate(foreign)},
    }
    capabilities = "report-status side-band-64k"
    return {name: push([[old, oid, ref]], pack, capabilities) for name, (oid, pack) in packs.items()}


def push_blob(old, ref):
    """What the relay answers to a blob as the branch's tip."""
    return push([[old, oid_of(BLOB, b"x"), ref]], pack_of([(BLOB, b"x")]))


# --- endurance -----------------------------------------------------------------------------------------------


def endless(opening, piece, limit):
    """Send `opening`, then `piece` again and again: bytes until the host hung up, or `limit`; and its answer."""
    sent = 0
    with connect() as link:
        with suppress(ConnectionError, socket.timeout):
            link.sendall(opening.encode("latin-1"))
            while sent < limit:
                link.sendall(piece.encode("latin-1"))
                sent += len(piece)
                link.settimeout(20)
        return [sent, read_all(link)[:SHOWN].decode("latin-1")]


def half_open(limit_s):
    """Seconds until the host ends a silent, a half-said and a dripping conversation."""
    began = time.monotonic()
    links = {"silent": connect(), "half": connect(), "dripping": connect()}
    links["half"].sendall(b"0040git-up")
    said = pkt(FETCH)
    ended = {}
    position = 0
    while len(ended) < len(links) and time.monotonic() - began < limit_s:
        with suppress(ConnectionError):
            links["dripping"].sendall(said[position : position + 1] if position < 40 else b"")
        position += 1
        for name, link in links.items():
            link.settimeout(0.3)
            with suppress(socket.timeout):
                if name not in ended and _is_over(link):
                    ended[name] = time.monotonic() - began
    return ended


def crowd(count, hold_s):
    """Open `count` pushes that say nothing, and hold them: how many were served, turned away."""
    links = []
    for _ in range(count):
        link = connect()
        with suppress(ConnectionError):
            link.sendall(pkt(PUSH))
        links.append(link)
    served = sum(bool(_first(link)) for link in links)
    time.sleep(hold_s)
    return {"served": served, "turned away": count - served}


def _first(link):
    try:
        return link.recv(4)
    except ConnectionError:
        return b""


def _is_over(link):
    try:
        return link.recv(4096) == b""
    except ConnectionError:
        return True


def push_to_refs_often(old, pushes, refs):
    """Push `pushes` times to `refs` foreign refs each; how many were answered."""
    new, pack = new_commit(old)
    commands = [[NULL, new, f"refs/heads/flood/{number}"] for number in range(refs)]
    return sum(bool(push(commands, pack)) for _ in range(pushes))
