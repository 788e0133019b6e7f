"""What the host adds to a session's git: a credential, a signature, a fetch from origin and a push to it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.rows import Row
from bench.user import User

_TIMES = 7
_PLACE = "git.example.invalid/team/app"
# Runs in the container and on the host alike. A push is of a commit of its own; a fetch of one that somebody else has
# pushed would need somebody else, so there is nothing new in it. The pauses let the host end what nobody waits for.
_SCRIPT = """
import json, statistics, subprocess, sys, time
times, place, refspec = int(sys.argv[1]), sys.argv[2], sys.argv[3]
def git(*args, stdin=b""):
    began = time.perf_counter()
    subprocess.run(("git", *args), check=True, capture_output=True, input=stdin)
    return (time.perf_counter() - began) * 1000
host, _, path = place.partition("/")
asked = f"protocol=https\\nhost={host}\\npath={path}\\n".encode()
taken = {"credential": [], "signed": [], "unsigned": [], "fetch": [], "push": []}
for number in range(times):
    taken["credential"].append(git("credential", "fill", stdin=asked))
    taken["unsigned"].append(git("commit", "-q", "--no-gpg-sign", "--allow-empty", "-m", f"u{number}"))
    taken["signed"].append(git("commit", "-q", "-S", "--allow-empty", "-m", f"s{number}"))
    taken["fetch"].append(git("fetch", "-q", "origin"))
    taken["push"].append(git("push", "-q", "origin", refspec))
    time.sleep(0.5)
medians = {name: statistics.median(values) for name, values in taken.items()}
print(json.dumps({**medians, "signature": medians["signed"] - medians["unsigned"]}))
"""
_SETTINGS = f"""[credentials]
release = ["https://{_PLACE}"]
"""
_GITCONFIG = """[user]
	name = Bench
	email = bench@example.invalid
	signingKey = {home}/key
[commit]
	gpgSign = true
[gpg]
	format = ssh
[credential]
	helper = store --file={home}/credentials
	useHttpPath = true
"""


def measure(user: User) -> Iterator[Row]:
    """In a session without a network, and on the host by the same commands in the same user's git."""
    _equip(user.home)
    repo = user.repository({"README.md": b"hello\n"})
    origin = user.home / "origin.git"
    _git(user, user.home, "clone", "--quiet", "--bare", str(repo), str(origin))
    _git(user, repo, "remote", "add", "origin", str(origin))
    words = ("--network-proxy", "restricted", "--rm", "--allow-origin-push", "--branch", "bench")
    script = ("python3", "-c", _SCRIPT, str(_TIMES), _PLACE)
    inside = json.loads(user.launch(repo, *words, "--", *script, "HEAD:refs/heads/demo/bench"))
    direct = (sys.executable, *script[1:], "HEAD:refs/heads/from-host")
    done = subprocess.run(direct, cwd=repo, env=user.env, check=True, capture_output=True)
    for path in (user.home / ".gitconfig", user.home / ".config/coding-agents/config.toml"):
        path.unlink()  # what is measured next signs nothing
    host = json.loads(done.stdout)
    for what, name, against, slack in (
        ("a credential, by git's helper", "credential", "`git credential fill` on the host", 30.0),
        ("a signature, with the push of what it names", "signature", "a signature on the host", 80.0),
        ("fetch from origin, nothing new", "fetch", "fetch on the host, by path", 100.0),
        ("push of a commit to origin, allowed at launch", "push", "push on the host, by path", 250.0),
    ):
        yield Row(what=what, value=inside[name], unit="ms", against=against, baseline=host[name], max_ratio=1.0,
                  slack=slack)  # fmt: skip


def _equip(home: Path) -> None:
    """Give the user a key, a stored password, and settings that release it."""
    make = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", str(home / "key"))
    subprocess.run(make, check=True, stdin=subprocess.DEVNULL)
    (home / ".gitconfig").write_text(_GITCONFIG.format(home=home))
    (home / "credentials").write_text(f"https://bench:bench-password-0123456789@{_PLACE}\n")
    (home / "credentials").chmod(0o600)
    settings = home / ".config/coding-agents/config.toml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(_SETTINGS)


def _git(user: User, place: Path, *args: str) -> None:
    subprocess.run(("git", *args), cwd=place, env=user.env, check=True, stdin=subprocess.DEVNULL)
