"""Attacks on the way to origin: what git pushes there, and fetches from there, by way of the host."""

from __future__ import annotations

import os
import signal
import subprocess

from coding_agents.attacks.repository import WORKSPACE, git

_PUSH_S = 3.0


def push_words(words: list[str]) -> str:
    """What becomes of `git push WORDS` with a new commit as HEAD: empty when it was taken, else what git said.

    Who waits for a person waits longer than we do.
    """
    made = git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "pushed by an attack")[1].strip()
    filled = [word.replace("HEAD:", f"{made}:") for word in words]
    argv = ("git", "-c", "core.hooksPath=/dev/null", "push", "--no-progress", *filled)
    with subprocess.Popen(
        argv,
        cwd=WORKSPACE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as pushing:
        try:
            said = pushing.communicate(timeout=_PUSH_S)[0]
        except subprocess.TimeoutExpired:
            os.killpg(pushing.pid, signal.SIGKILL)  # what carries it to the host, too
            return pushing.communicate()[0].decode("utf-8", "replace")[-2000:] or "it waits"
    return "" if pushing.returncode == 0 else said.decode("utf-8", "replace")[-2000:] or "refused"


def fetch_words(words: list[str]) -> str:
    """What becomes of `git fetch WORDS` by each version of the protocol: empty when one was answered."""
    found = ""
    for version in "02":
        status, said = git("-c", f"protocol.version={version}", "fetch", "--no-write-fetch-head", *words)
        if status == 0:
            return ""
        found += said or "refused"
    return found
