"""What of the user's ssh-agent one connection of a session may use: named keys, to log in at named hosts.

A signature is good for the session that its data names, at whichever host that session is. So the client must first
have bound its connection to a session (`session-bind@openssh.com`), which the host of it has signed: the user's agent
checks that, when it is one that checks (`Bind` with a broken signature must fail with it). No IO.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from coding_agents.brokers.sshagent.wire import (
    AgentError,
    Bind,
    SignRequest,
    fingerprint,
    identities_message,
    parse_identities,
)


class Allowed(msgspec.Struct, frozen=True):
    """A key by its fingerprint, the host that it may be used at, and the keys by which that host is known."""

    fingerprint: str
    host: str
    host_keys: frozenset[bytes]


class AgentFilter:
    """One connection's. Every question is asked in order, and what it raises ends nothing: the guest is told no."""

    def __init__(self, allowed: Iterable[Allowed]) -> None:
        self._allowed = tuple(allowed)
        self._bound: Bind | None = None

    def identities(self, answer: bytes) -> bytes:
        """The agent's list of keys without those of no use here. Raises AgentError.

        In the place of a key's comment, which often names its user and machine, stands the host that it is for.
        """
        hosts = {one.fingerprint: one.host.encode("ascii") for one in self._here()}
        keys = [key for key, _ in parse_identities(answer)]
        return identities_message(
            tuple((key, hosts[name]) for key in keys if (name := fingerprint(key)) in hosts)
        )

    def require_bindable(self, bind: Bind) -> None:
        """Raises AgentError for a session that no key may be used in."""
        if self._bound is not None:
            raise AgentError("this connection to the agent is bound to a session already")
        if bind.forwarding:
            raise AgentError("the agent is not forwarded to other hosts")
        if not 16 <= len(bind.session) <= 64:
            raise AgentError("the session has no name of a usual length")
        if not any(bind.host_key in one.host_keys for one in self._allowed):
            raise AgentError("no key of the agent is for this host, by the setting credentials.ssh_agent")

    def bound(self, bind: Bind) -> None:
        """The user's agent has checked that the session is that host's."""
        self.require_bindable(bind)
        self._bound = bind

    def require_signable(self, request: SignRequest) -> Allowed:
        """The entry by which this may be signed. Raises AgentError."""
        bind = self._bound
        if bind is None:
            raise AgentError("the client has not said which host it logs in to (OpenSSH 8.9 and later do)")
        if request.session != bind.session:
            raise AgentError("the signature would log in to another session than the one that was shown")
        if request.host_key and request.host_key != bind.host_key:
            raise AgentError("the signature names another host than the one that was shown")
        name = fingerprint(request.key)
        entry = next((one for one in self._here() if one.fingerprint == name), None)
        if entry is None:
            raise AgentError("this key is not for this host, by the setting credentials.ssh_agent")
        return entry

    def _here(self) -> tuple[Allowed, ...]:
        """The entries that count: those of the host that the connection is bound to, all before that."""
        bind = self._bound
        return tuple(one for one in self._allowed if bind is None or bind.host_key in one.host_keys)


def broken(bind: Bind) -> Bind:
    """The same with a signature that no host has made: an agent that takes it checks none."""
    last = bind.signature[-1:] or b"\0"
    signature = bind.signature[:-1] + bytes([last[0] ^ 1])
    return msgspec.structs.replace(bind, signature=signature)
