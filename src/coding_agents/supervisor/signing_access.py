"""Signatures for a session's guest: one commit at a time, judged, recorded, and signed by a program of the host's.

A request is the bytes of a commit, up to the end of the stream; the answer is one JSON object: `signature`, `missing`
(the relay lacks what the commit names: push it, then ask again) or `refused` with the reason.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from coding_agents.errors import CodingAgentsError, SigningError
from coding_agents.gitsync.rules import load_policy
from coding_agents.model.audit import AuditEvent, RecordType
from coding_agents.model.commit import MAX_COMMIT, Commit, object_id
from coding_agents.model.refs import Oid
from coding_agents.model.signing import LIVE
from coding_agents.model.turns import Turns
from coding_agents.policy.decide import Deny, decide
from coding_agents.policy.matrix import Operation
from coding_agents.policy.signing import SigningFacts, judge_payload
from coding_agents.proc.runner import Owner
from coding_agents.supervisor.context import SessionContext, session_settings
from coding_agents.supervisor.guest_link import GUEST_UID
from coding_agents.supervisor.journal import Journal, now_ms
from coding_agents_guest.mux import Stream

if TYPE_CHECKING:
    from coding_agents.brokers.sign.answers import Signature
    from coding_agents.brokers.sign.signer import Signer

# A rebase signs each of its commits, and asks twice for one of which the relay lacks something.
_BURST, _EVERY_S, _PATIENCE_S = 240, 1.0, 20.0
_WAITING = 4  # a guest that hangs up leaves its commit here, and its stream is one less for other services
_READ_S = 20.0
_CHECK_S = 60.0
_RATE = "sign-turns"
_UNAVAILABLE = "sign-key"


class _NotSignedError(Exception):
    """There is no signature; the message is shown to the agent."""


class SigningAccess:
    """One session's. What signs is loaded with the first commit."""

    def __init__(self, session: SessionContext, journal: Journal) -> None:
        self._session = session
        self._journal = journal
        self._policy = load_policy()
        self._turns = Turns(_BURST, _EVERY_S)
        self._one = asyncio.Lock()
        self._waiting = 0

    @property
    def served(self) -> bool:
        """Whether this session's commits are signed while it runs."""
        return self._session.record.signing in LIVE

    async def serve(self, stream: Stream) -> None:
        """Answer the one request of a connection."""
        if stream.peer_uid != GUEST_UID:
            stream.reset("commits are signed for the agent alone")
            return
        try:
            async with asyncio.timeout(_READ_S):
                payload = await _read(stream)
            answer = await self._answer(payload)
        except TimeoutError:
            stream.reset("a commit to sign did not come to its end")
            return
        except OSError:
            stream.reset("the connection broke off")
            return
        with suppress(OSError):
            await stream.write(msgspec.json.encode(answer))
            stream.write_eof()

    async def close(self) -> None:
        """Nothing of it stays open."""

    async def _answer(self, payload: bytes) -> dict[str, object]:
        try:
            commit = await self._judge(payload)
            if self._waiting >= _WAITING:
                raise await self._too_many(payload, "the host is still signing others; wait, then go on")
            self._waiting += 1
            try:
                await self._take_turn(payload)  # before all that costs the host anything
                async with self._one:  # an agent of keys asks one question at a time, and so do we
                    if not await asyncio.to_thread(self._has, commit):
                        return {"missing": True}
                    signature = await self._sign(payload, commit)
            finally:
                self._waiting -= 1
        except _NotSignedError as error:
            return {"refused": str(error)}
        except CodingAgentsError as error:  # the relay or the log is damaged, or a disk is full
            await self._note(RecordType.SIGNING_REFUSED, payload, "failed", "", 0, error.message)
            return {
                "refused": "the host cannot sign now; its user finds the reason in the session's audit log"
            }
        return {"signature": signature.armored.decode("ascii")}

    async def _judge(self, payload: bytes) -> Commit:
        """The commit that may be signed. Raises _NotSignedError."""
        judged = judge_payload(payload, self._facts())
        decision = decide(self._policy, judged.operation)
        if judged.commit is None or isinstance(decision, Deny):
            reason = judged.reason or decision.reason
            await self._note(
                RecordType.SIGNING_REFUSED, payload, "denied", decision.rule, int(decision.tier), reason
            )
            raise _NotSignedError(f"{decision.reason}; {reason}" if judged.reason else reason)
        return judged.commit

    def _facts(self) -> SigningFacts:
        record = self._session.record
        committer = record.committer_name, record.committer_email
        return SigningFacts(
            object_format=record.repo.object_format,
            authors=((record.author_name, record.author_email), committer),
            committer=committer,
            since=record.created_ms // 1000,
            now=now_ms() // 1000,
        )

    def _has(self, commit: Commit) -> bool:
        """Whether the relay has what the commit names, with all that this names. Raises GitError."""
        store = self._session.relay.store
        named = [commit.tree, *commit.parents]
        asked = "".join(f"{oid}\n" for oid in named).encode()
        kinds = store.git("cat-file", "--batch-check=%(objecttype)", stdin=asked).text().splitlines()
        if kinds != ["tree", *("commit" for _ in commit.parents)]:  # else one is missing, or something else
            return False
        look = ("rev-list", "--objects", "--quiet", *named, "--not", "--all")
        return store.git("-c", "core.commitGraph=false", *look, check=False, timeout_s=_CHECK_S).ok

    async def _take_turn(self, payload: bytes) -> None:
        wait_s = self._turns.take(asyncio.get_running_loop().time(), patience_s=_PATIENCE_S)
        if wait_s is None:
            raise await self._too_many(
                payload, f"too many commits at once: one is looked at every {_EVERY_S:g} s"
            )
        await asyncio.sleep(wait_s)

    async def _too_many(self, payload: bytes, reason: str) -> _NotSignedError:
        await self._note(RecordType.SIGNING_REFUSED, payload, "denied", _RATE, 2, reason)
        return _NotSignedError(reason)

    async def _sign(self, payload: bytes, commit: Commit) -> Signature:
        """Record it, then sign it. Raises _NotSignedError, AuditError."""
        decision = decide(self._policy, Operation.SIGN_COMMIT)
        try:
            signer = await asyncio.to_thread(self._signer)
        except CodingAgentsError as error:
            raise await self._failed(payload, error) from error
        detail = {**_about(payload, self._session.record.repo.object_format), "tree": commit.tree}
        await self._journal.broker(
            AuditEvent(
                RecordType.SIGNED,
                tier=int(decision.tier),
                rule=decision.rule,
                subject=signer.shown,
                detail=detail,
            )
        )
        from coding_agents.brokers.sign.signer import sign_payload

        try:
            return await asyncio.to_thread(sign_payload, payload, signer)
        except CodingAgentsError as error:
            raise await self._failed(payload, error) from error

    def _signer(self) -> Signer:
        """The key of the record, while the user still wants it used. Raises SigningError, ConfigError, GitError."""
        record, env = self._session.record, self._session.env
        wanted = session_settings(self._session).signing_mode
        if wanted in ("off", "merge") or (record.signing == "user" and wanted == "session"):
            raise SigningError(
                "the settings have no commits signed any more", hint="See the setting signing.mode."
            )
        if record.signing == "session":
            from coding_agents.brokers.sign.own_key import own_signer

            signer = own_signer(self._session.directory, path=env.environ.get("PATH", ""))
        else:
            from coding_agents.brokers.sign.config import read_config
            from coding_agents.brokers.sign.signer import users_signer

            owner = Owner(record.repo.owner_uid, record.repo.owner_gid)
            config = read_config(env.for_git(), Path(record.repo.git_dir), owner)
            signer = users_signer(config, env.for_git(), owner)
        if (signer.format, signer.shown) != (record.signing_format, record.signing_key):
            raise SigningError(
                "git names another key than when the session was launched",
                hint="Launch a new session for it.",
            )
        return signer

    async def _failed(self, payload: bytes, error: CodingAgentsError) -> _NotSignedError:
        """What is told to the agent names no file of the host's: that is in the record."""
        await self._note(RecordType.SIGNED, payload, "failed", _UNAVAILABLE, 2, error.message)
        told = next((words for words in _TOLD if words in error.message), "the key cannot be used")
        return _NotSignedError(
            f"on the host {told}; ask its user. {error.hint if told in _TOLD else ''}".strip()
        )

    async def _note(
        self, kind: RecordType, payload: bytes, outcome: str, rule: str, tier: int, reason: str
    ) -> None:
        event = AuditEvent(
            kind,
            outcome="denied" if outcome == "denied" else "failed",
            rule=rule,
            tier=tier,
            subject=self._session.record.signing_key,
            detail={**_about(payload, self._session.record.repo.object_format), "reason": reason},
        )
        with suppress(CodingAgentsError, OSError):
            await self._journal.broker(event)


_TOLD = (
    "the key is locked",
    "the key has expired, was revoked, or may not sign",
    "the key is not there",
    "the program that signs took too long",
    "git names another key than when the session was launched",
    "the settings have no commits signed any more",
)
"""Reasons that say nothing of the host."""


async def _read(stream: Stream) -> bytes:
    """The request; of one that is too long as much as shows that. Raises OSError."""
    found = bytearray()
    while len(found) <= MAX_COMMIT and (data := await stream.read()):
        found += data
    return bytes(found)


def _about(payload: bytes, object_format: str) -> dict[str, str | int]:
    """What a record says of the bytes: their digest, and the id that they would have as a commit."""
    unsigned: Oid = object_id("commit", payload, object_format=object_format)
    return {"sha256": hashlib.sha256(payload).hexdigest(), "unsigned": unsigned, "bytes": len(payload)}
