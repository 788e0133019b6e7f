"""What every agent is told about its sandbox, in the file where it looks for its user's instructions."""

from __future__ import annotations

from collections.abc import Sequence

from coding_agents.model.manifest import AgentManifest
from coding_agents.model.session import SessionRecord
from coding_agents.sandbox.spec import Network

_TEXT = """\
# Where you work
You run without prompts in a container of coding-agents, made for this task. `/workspace` is a private copy of a
person's repository, on the branch `{branch}`. You may change, build, run and break anything here.

- Commit to this branch. {push} Other branches and tags do not leave the container.
- Network: {network}
{origin}{packages}- Refused, whatever you try: root and new privileges, writing outside `/workspace`, the home
  directory, `/tmp` and `/var/tmp`, the machine that runs the container. Do not spend time on ways around it.
- Keys are not in here. The one that you find for the model is a dummy; the host puts the real one in its place.
- The repository's own MCP servers and hooks do not start by themselves: a person has not trusted them.
- To ask for something that you lack (a host, a package, a secret, a decision), end your turn with the question: a
  person reads it and can answer on your terminal, or start you anew with other settings.
"""

_NETWORK = {
    Network.RESTRICTED: "none, but the model's own service.",
    Network.SQUID: "listed hosts alone, through the proxy in `http_proxy` and `https_proxy`. `coding-agents-why URL`\n"
    "  tells why one is refused, `coding-agents-why --rules` which are listed. Only TLS and plain HTTP pass.",
    Network.ALLOW_ALL: "the internet, not the host's own networks.",
}


_ORIGIN = """\
- `origin`: `git fetch origin` works; the host does it. `git push origin BRANCH` waits until a person has approved
  it. When it says that it still waits, go on, and push the same again later. Protected branches and tags are refused.
"""


def instructions(
    *, branch: str, network: Network, push: bool, registries: Sequence[str] = (), origin: bool = False
) -> bytes:
    """The text for a session on `branch`; `push` tells whether its commits go to the host by themselves.

    `origin` tells whether its repository has one, `registries` are the package managers whose indexes the host reads
    for it.
    """
    pushed = (
        "A push goes to the host's quarantine, and what you have not committed is committed when the session stops."
        if push
        else "Nothing is pushed when the session stops: the work stays in its volume."
    )
    names = " and ".join(registries)
    packages = (
        f"- Packages: {names} install from the indexes that the host reads for you; they are set up.\n"
        if names
        else ""
    )
    return _TEXT.format(
        branch=branch,
        network=_NETWORK[network],
        push=pushed,
        packages=packages,
        origin=_ORIGIN if origin else "",
    ).encode()


def home_files(
    manifest: AgentManifest, record: SessionRecord, registries: Sequence[str] = ()
) -> dict[str, bytes]:
    """What is in the home directory before the first start: the agent's seeds, and what it is told (`instructions`)."""
    files = manifest.seed_files()
    if manifest.instructions:
        network = Network(record.network)
        files[manifest.instructions] = instructions(
            branch=record.branch,
            network=network,
            push=record.push,
            registries=registries,
            origin=bool(record.repo.url),
        )
    return files
