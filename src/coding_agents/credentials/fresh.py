"""The credential of a process that asks for it with each request to a model, so that each costs next to nothing.

It loads what renews tokens, HTTP among it; who asks once takes `credentials.model`.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.memory import Memory
from coding_agents.credentials.model import ModelCredential, find_credential, shown
from coding_agents.credentials.store import SecretStore
from coding_agents.model.manifest import AgentManifest

_MEMORY = Memory()
"""Of this process: what programs of the user have printed, so that not each request asks for a touch of a key."""


async def fresh_credential(
    manifest: AgentManifest, env: HostEnvironment, *, now_ms: int
) -> ModelCredential | None:
    """`find_credential`, which also renews tokens of our own that are about to end, and asks a program of the user's
    only once in a while. Raises CredentialError and StoreError.
    """
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads(), _fresh, manifest, env, now_ms)


def _fresh(manifest: AgentManifest, env: HostEnvironment, now_ms: int) -> ModelCredential | None:
    choice = SecretStore(env).read().logins.get(manifest.name)
    if choice is None:
        return find_credential(manifest, env, now_ms=now_ms)
    return shown(manifest, _MEMORY.held(manifest, choice, env, now_ms=now_ms))


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads of their own: a program that hangs must not take those by which a session's work is saved."""
    return ThreadPoolExecutor(2, thread_name_prefix="credential")
