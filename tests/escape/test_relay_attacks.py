"""A hostile agent speaks to the relay, by git and by bare bytes: it writes one ref and reads what it was given.

Each test but the last few must leave the relay and the user's repository as they were, to the last object file.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import gitattack
from support.escape import Captive, capture, fresh_repo
from support.product import Product, git, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.escape, pytest.mark.alike]

SECRET = "the crown jewels"
CONVERSATIONS = 16
REQUEST_S = 30


@dataclass(frozen=True)
class Prey:
    """A session, and objects of the user's repository that it was not given."""

    captive: Captive
    private: str
    blob: str
    unreachable: str
    sibling: str

    @property
    def relay(self) -> Path:
        return self.captive.product.session_dir(self.captive.name) / "relay.git"

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.captive.branch}"

    @property
    def tip(self) -> str:
        return git(self.relay, "rev-parse", self.ref)

    @property
    def foreign(self) -> list[str]:
        return [self.private, self.blob, self.unreachable]

    def refusals(self) -> list[dict[str, Any]]:
        """Audit records of what was refused or failed."""
        records = self.captive.product.audit(self.captive.name)
        return [record for record in records if record["outcome"] != "allowed"]

    def state(self) -> dict[str, object]:
        """All refs and object files of the relay and of the user's repository."""
        git_dir = self.captive.repo / ".git"
        return {
            **{str(place): git(place, "for-each-ref") for place in (self.relay, git_dir)},
            "objects": sorted(
                str(path)
                for place in (self.relay, git_dir)
                for path in (place / "objects").rglob("*")
                if path.is_file()
            ),
        }


@pytest.fixture(scope="module")
def prey(owner: Product) -> Prey:
    repo = fresh_repo(owner)
    git(repo, "switch", "--quiet", "--create", "sibling")
    git(repo, "commit", "--quiet", "--allow-empty", "--message", "given to another session")
    sibling = git(repo, "rev-parse", "HEAD")
    owner.launch(repo, "--rm", "--", "true")
    git(repo, "switch", "--quiet", "--create", "private", "main")
    (repo / "secret").write_text(SECRET)
    git(repo, "add", "secret")
    git(repo, "commit", "--quiet", "--message", "private")
    private, blob = git(repo, "rev-parse", "HEAD"), git(repo, "rev-parse", "HEAD:secret")
    (repo / "secret").write_text("never committed")
    unreachable = git(repo, "hash-object", "-w", "secret")
    git(repo, "switch", "--quiet", "--force", "main")
    return Prey(capture(owner, repo), private, blob, unreachable, sibling)


@pytest.fixture
def untouched(prey: Prey) -> Iterator[Prey]:
    """The prey, in which nothing may be different afterwards, and whose audit log shows a refusal."""
    before, recorded = prey.state(), len(prey.refusals())
    yield prey
    assert prey.captive.is_alive()
    assert prey.state() == before
    assert wait_for(lambda: len(prey.refusals()) > recorded, "the refusal in the audit log")


# --- reading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["", "\0version=1\0", "\0version=2\0"])
def test_what_is_advertised_is_what_was_given(prey: Prey, version: str) -> None:
    """No `.have` line, no other ref, and protocol v0 whatever was asked for."""
    fetch, push = prey.captive.attack(
        gitattack.ask,
        [gitattack.pkt(service + version.encode()).decode("latin-1") + "0000"
         for service in (gitattack.FETCH, gitattack.PUSH)],
    )  # fmt: skip
    base = git(prey.captive.repo, "rev-parse", "main")
    assert refs_of(fetch) == {"HEAD": prey.tip, prey.ref: prey.tip, "refs/heads/main": base}
    assert refs_of(push) == {prey.ref: prey.tip}
    assert "allow-" not in fetch
    assert "version " not in fetch + push
    assert not {"push-options", "push-cert"} & set(push.split("\0")[1].split())


def refs_of(advertisement: str) -> dict[str, str]:
    """Ref names and ids of an advertisement in protocol v0."""
    refs = {}
    position = 0
    while (size := int(advertisement[position : position + 4], 16)) != 0:
        oid, name = advertisement[position + 4 : position + size].partition("\0")[0].split()
        refs[name] = oid
        position += size
    return refs


def test_no_object_can_be_had_by_its_id(prey: Prey) -> None:
    launch_state = git(prey.relay, "for-each-ref", "--format=%(objectname)", "refs/coding-agents/launch")
    wanted = [*prey.foreign, prey.sibling, *launch_state.split()]
    fetched = prey.captive.attack(gitattack.fetch_by_id, wanted)
    assert fetched == dict.fromkeys(fetched, False)
    for oid, answer in prey.captive.attack(gitattack.want_by_id, wanted).items():
        assert "not our ref" in answer, oid
        assert "PACK" not in answer
    assert SECRET not in prey.captive.product.exec(prey.captive.name, "grep -r jewels . || true").out


def test_no_hidden_ref_can_be_fetched(prey: Prey) -> None:
    for ref in ("refs/coding-agents/base", "refs/coding-agents/launch", "refs/heads/private", "refs/given/*"):
        status, said = prey.captive.attack(gitattack.git, "fetch", "local", f"{ref}:refs/stolen/x")
        assert status != 0 or not said or "stolen" not in said, ref
    assert prey.captive.attack(gitattack.git, "for-each-ref", "refs/stolen/") == [0, ""]


# --- other refs ----------------------------------------------------------------------------------------------


def test_git_shows_why_another_ref_is_refused(untouched: Prey) -> None:
    refs = ("refs/heads/main", "refs/heads/master", "refs/heads/private", "refs/tags/v1", "refs/notes/commits",
            "refs/coding-agents/base")  # fmt: skip
    said = untouched.captive.attack(gitattack.push_as_git, [f"HEAD:{ref}" for ref in refs])
    for refspec, (status, text) in said.items():
        assert status == 1, refspec
        assert "[remote rejected]" in text
        assert "only the session's branch can be pushed here" in text
        assert "fatal" not in text
    recorded = {record["subject"]: record for record in untouched.refusals()}
    for ref in refs:
        assert (recorded[ref]["type"], recorded[ref]["rule"]) == ("push-refused", "git-push-other-ref")


def test_no_name_leads_to_another_ref(untouched: Prey) -> None:
    ours = untouched.ref
    refs = [
        "HEAD", "refs/heads/HEAD", "refs/heads/demo", "refs/stash", f"refs/replace/{untouched.tip}",
        "refs/coding-agents/launch", "refs/coding-agents/archive/1", "refs/coding-agents/salvage/head",
        "refs/coding-agents/salvage/heads/x", "refs/given/x", "refs/remotes/origin/main", "refs/for/main",
        ours.upper(), ours.title(), ours.replace("demo", "Demo"), f"{ours}/deeper", f"{ours}.lock", f"{ours} ",
        f"{ours}\t", f"{ours}\r", f"{ours}/", f"{ours}~1", f"{ours}^{{}}", f"{ours}@{{1}}", f"/{ours}", f"./{ours}",
        f"refs/heads/../{ours.removeprefix('refs/')}", f"{ours}/../x", ours.replace("/", "//", 1),
        ours.replace("e", "\u0435"), ours.replace("-", "\u2010"), f"{ours}\u200b", f"{ours}\ufe0f",
        "--upload-pack=touch x", "-d", "refs/heads/-x", "refs/heads/\x1b]0;title\x07", "refs/heads/\u202egpj",
        "refs/heads/" + "x" * 4000, "refs/heads/\udcff", f"{untouched.captive.branch}", "../../../../../etc/passwd",
    ]  # fmt: skip
    answers = untouched.captive.attack(gitattack.push_to_refs, untouched.tip, refs)
    assert len(answers) == len(refs)
    for ref, answer in answers.items():
        assert "ng " in answer or "ERR " in answer, ref
        assert "ok refs" not in answer, ref


def test_one_foreign_ref_spoils_the_whole_push(untouched: Prey) -> None:
    answer = untouched.captive.attack(gitattack.push_many, untouched.tip, untouched.ref, 2)
    assert f"ng {untouched.ref} another ref of the same push was refused" in answer


def test_a_thousand_refs_are_refused_at_once(untouched: Prey) -> None:
    answer = untouched.captive.attack(gitattack.push_many, untouched.tip, untouched.ref, 1000)
    assert "more than 64 refs is refused" in answer
    assert untouched.refusals()[-1]["rule"] == "git-protocol"


def test_the_branch_cannot_be_deleted(untouched: Prey) -> None:
    said = untouched.captive.attack(gitattack.push_as_git, [f":{untouched.ref}"])
    status, text = said[f":{untouched.ref}"]
    assert status == 1
    assert "[remote rejected]" in text
    assert "a branch cannot be deleted here" in text
    assert wait_for(lambda: untouched.refusals()[-1]["rule"] == "git-push-delete", "the record")


def test_no_certificates_and_no_options(untouched: Prey) -> None:
    attack = untouched.captive.attack
    assert "does not support" in attack(gitattack.git, "push", "--signed=yes", "local", "HEAD")[1]
    assert "does not support" in attack(gitattack.git, "push", "-o", "ci.skip", "local", "HEAD")[1]
    options = attack(gitattack.push_many, untouched.tip, untouched.ref, 1, "report-status push-options")
    assert "push options are refused" in options
    certificate = gitattack.pkt(gitattack.PUSH) + gitattack.pkt(b"push-cert\0report-status") + gitattack.FLUSH
    assert "push certificates are refused" in attack(gitattack.ask, [certificate.decode("latin-1")])[0]


# --- what is no conversation ---------------------------------------------------------------------------------


def test_every_other_request_line_is_refused(untouched: Prey) -> None:
    lines = [
        b"git-upload-archive /workspace\0host=coding-agents\0",
        b"git-receive-pack /etc\0host=coding-agents\0",
        b"git-receive-pack /workspace/../../x\0host=coding-agents\0",
        b"git-receive-pack  /workspace\0host=coding-agents\0",
        b"git-receive-pack /workspace\n\0host=coding-agents\0",
        b"git-upload-pack --upload-pack=x /workspace\0host=coding-agents\0",
        b"git-upload-pack /workspace\0/etc\0host=coding-agents\0",
        b"git-upload-pack /workspace\0host=other\0",
        b"git-upload-pack /workspace\0host=coding-agents:9418\0",
        b"git-upload-pack /workspace\0host=coding-agents\0\0version=2\0core.hooksPath=/workspace\0",
        b"git-upload-pack /workspace\0host=coding-agents\0\0version=3\0",
        b"git-upload-pack /workspace\0host=coding-agents\0\0version=2\n\0",
        b"git-upload-pack /workspace",
        b"GIT-UPLOAD-PACK /workspace\0host=coding-agents\0",
        b"sh -c 'touch /tmp/x'\0",
        b"",
    ]
    requests = [gitattack.pkt(line) for line in lines]
    requests += [
        b"0000",
        b"0001",
        b"zzzz",
        b"ffff" + b"x" * 100,
        b"+0a0",
        b"GET / HTTP/1.0\r\n\r\n",
        b"\0" * 1000,
    ]
    answers = untouched.captive.attack(gitattack.ask, [request.decode("latin-1") for request in requests])
    for request, answer in zip(requests, answers, strict=True):
        assert "ERR " in answer, request
        assert "refs/" not in answer, request
    assert untouched.refusals()[-1]["rule"] == "git-protocol"


@pytest.mark.parametrize(
    ("opening", "piece", "reason"),
    [
        (b"", b"x" * 65536, "malformed packet length"),
        (gitattack.pkt(gitattack.PUSH), gitattack.pkt(b"shallow " + b"1" * 40) * 1000, "longer than 65536 bytes"),
        (gitattack.pkt(gitattack.PUSH) + b"fff0", b"y" * 65536, "malformed push command"),
    ],
    ids=["request", "commands", "one command"],
)  # fmt: skip
def test_megabytes_without_end_are_cut_off(
    untouched: Prey, opening: bytes, piece: bytes, reason: str
) -> None:
    limit = 256 << 20
    texts = (opening.decode("latin-1"), piece.decode("latin-1"))
    sent, answer = untouched.captive.attack(gitattack.endless, *texts, limit)
    assert sent < limit
    assert reason in answer or answer == ""


def test_bad_packs_change_nothing(untouched: Prey) -> None:
    answers = untouched.captive.attack(
        gitattack.push_bad_packs, untouched.tip, untouched.ref, untouched.foreign
    )
    assert len(answers) == 10 + len(untouched.foreign)
    for name, answer in answers.items():
        assert f"ng {untouched.ref}" in answer, name
    # git would ask for as much memory as the pack says, and get it.
    assert "3,072.0 MiB, relay.object allows 100.0 MiB" in answers["commit of three gigabytes"]
    assert "a push of 4294967295 objects is refused" in answers["four billion objects"]
    assert untouched.refusals()[-1]["type"] == "push"
    assert untouched.refusals()[-1]["outcome"] == "failed"


def test_a_branch_names_a_commit_or_nothing(prey: Prey) -> None:
    """The blob arrives, as git checks this last; the ref does not move."""
    before = prey.tip
    assert f"ng {prey.ref}" in prey.captive.attack(gitattack.push_blob, before, prey.ref)
    assert prey.tip == before
    assert wait_for(lambda: prey.refusals()[-1]["outcome"] == "failed", "the failure in the audit log")


# Modes, names and kinds that git refuses to check out; several are `.git` to some file system.
TREES: dict[str, list[tuple[str, str, str]]] = {
    "dot git": [("40000", ".git", "tree")],
    "dot GIT": [("40000", ".GIT", "tree")],
    "dot git file": [("100644", ".git", "blob")],
    "dot git link": [("120000", ".git", "link")],
    "short name": [("40000", "git~1", "tree")],
    "trailing space": [("40000", ".git ", "tree")],
    "trailing dot": [("40000", ".git.", "tree")],
    "stream": [("40000", ".git::$INDEX_ALLOCATION", "tree")],
    "ignored by HFS": [("40000", ".g\u200cit", "tree")],
    "backslash": [("100644", ".git\\config", "blob")],
    "dot": [("40000", ".", "tree")],
    "dot dot": [("40000", "..", "tree")],
    "path": [("100644", "../../etc/cron.d/x", "blob")],
    "absolute": [("100644", "/etc/cron.d/x", "blob")],
    "no name": [("100644", "", "blob")],
    "null id": [("100644", "a", "null")],
    "twice": [("100644", "a", "blob"), ("100644", "a", "blob")],
    "file and directory": [("100644", "a", "blob"), ("40000", "a", "tree")],
    "unsorted": [("100644", "b", "blob"), ("100644", "a", "blob")],
    "modules as link": [("120000", ".gitmodules", "link")],
}


def test_trees_that_no_file_system_may_see_are_refused(untouched: Prey) -> None:
    answers = untouched.captive.attack(gitattack.push_trees, untouched.tip, untouched.ref, TREES)
    assert {name: answer for name, answer in answers.items() if f"ng {untouched.ref}" not in answer} == {}
    texts = [
        f'[submodule "{name}"]\n\tpath = {path}\n\turl = {url}\n'
        for name, path, url in (
            ("../../hooks", "a", "https://host.invalid/x"),
            ("a", "-a", "https://host.invalid/x"),
            ("a", "a", "-u./evil"),
        )
    ]
    modules = untouched.captive.attack(gitattack.push_modules, untouched.tip, untouched.ref, texts)
    assert {text: answer for text, answer in modules.items() if f"ng {untouched.ref}" not in answer} == {}


def test_git_shows_that_a_tree_is_refused(untouched: Prey) -> None:
    script = (
        'blob=$(git hash-object -w --stdin </dev/null); tree=$(printf "100644 blob $blob\\tconfig\\n" | git mktree);'
        'top=$(printf "040000 tree $tree\\t.git\\n" | git mktree);'
        f"git push local $(git commit-tree -p HEAD -m x $top):{untouched.ref}"
    )
    result = untouched.captive.product.exec(untouched.captive.name, script, status=1)
    assert "[remote rejected]" in result.err
    assert "hasDotgit" in result.err or "unpacker error" in result.err


# --- endurance, and what is allowed --------------------------------------------------------------------------


def test_a_crowd_is_held_to_a_few_processes(prey: Prey) -> None:
    answers: list[dict[str, int]] = []
    attack = threading.Thread(
        target=lambda: answers.append(prey.captive.attack(gitattack.crowd, 100, 2)), daemon=True
    )
    attack.start()
    most = 0
    while attack.is_alive():
        most = max(most, len(git_processes(prey.relay)))
        attack.join(0.05)
    assert 0 < most <= CONVERSATIONS
    assert answers[0]["served"] <= CONVERSATIONS
    assert answers[0]["turned away"] >= 100 - CONVERSATIONS
    wait_for(lambda: not git_processes(prey.relay), "the end of the relay's processes")
    prey.captive.assert_saves()


def git_processes(relay: Path) -> list[str]:
    """receive-pack and upload-pack processes of the host that serve this relay.

    One that such a process is just starting has its command line, too, until it is another program: it does not count.
    """
    wanted = str(relay).encode()
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            parent = (path.parent / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if wanted in words and {b"receive-pack", b"upload-pack"} & set(words):
            found[path.parent.name] = parent
    return [pid for pid, parent in found.items() if parent not in found]


def test_half_open_conversations_are_ended(prey: Prey) -> None:
    ended = prey.captive.attack(gitattack.half_open, REQUEST_S + 30)
    assert set(ended) == {"silent", "half", "dripping"}
    assert max(ended.values()) < REQUEST_S + 10
    prey.captive.assert_saves()


def test_rewritten_history_keeps_the_old_tip(prey: Prey) -> None:
    script = (
        "git commit -q --allow-empty -m one && git push -q local HEAD && old=$(git rev-parse HEAD) &&"
        "git commit -q --amend --allow-empty -m two && git push -qf local HEAD && echo $old"
    )
    old = prey.captive.product.exec(prey.captive.name, script).out.strip()
    archive = "refs/coding-agents/archive/1"
    wait_for(lambda: git(prey.relay, "for-each-ref", archive), "the archived tip")
    assert git(prey.relay, "rev-parse", archive) == old
    assert git(prey.relay, "log", "-1", "--format=%s", prey.ref) == "two"
    records = prey.captive.product.audit(prey.captive.name)
    assert any(one["rule"] == "git-push-rewrite" and one["detail"]["archived"] == archive for one in records)


def test_a_flood_of_refused_pushes_fills_no_disk(prey: Prey) -> None:
    """Last, as it uses up the log's budget for refusals and the turns: what exceeds the rate is counted, not stored."""
    log = prey.captive.product.session_dir(prey.captive.name) / "audit.jsonl"
    before = len(log.read_bytes())
    began = len(prey.refusals())
    for _ in range(2):
        prey.captive.attack(gitattack.push_to_refs_often, prey.tip, 10, 60)
    wait_for(lambda: any(one["type"] == "gap" for one in prey.refusals()), "the gap in the log")
    assert len(prey.refusals()) - began < 2 * 10 * 60
    assert len(log.read_bytes()) - before < 4 << 20
    assert prey.captive.product.run("audit", "verify", "--session", prey.captive.name).status == 0
    prey.captive.assert_saves()
