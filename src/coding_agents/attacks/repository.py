"""Attacks on the way home: what is committed, pushed and fetched to make the host run, show or give away something."""

from __future__ import annotations

import os
import subprocess

WORKSPACE = "/workspace"
HOOKS = (
    "reference-transaction", "post-checkout", "post-merge", "post-commit", "pre-commit", "pre-push", "pre-receive",
    "post-receive", "update", "post-update", "post-index-change", "pre-auto-gc", "post-rewrite",
)  # fmt: skip
SCREEN = (
    "\x1b[2J\x1b]52;c;ZXZpbA==\x07\x1b[c\x1b[21t\x1bP$qm\x1b\\\x1b]9;coding-agents: enter your password\x07"
    "\x1b]777;notify;coding-agents;x\x07\x9b31m\u202etext\u2066\r\n"
)
SUBJECT = "subject \x1b[31m \x1b]52;c;ZXZpbA==\x07 \u202eevil\u200b\nand a line"


def git(*arguments: str) -> tuple[int, str]:
    """Exit status and what git said, in the work tree; no hook of it runs in here."""
    argv = ("git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", *arguments)
    done = subprocess.run(argv, cwd=WORKSPACE, capture_output=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")[-2000:]


def push_as_git(refspecs: list[str]) -> dict[str, str]:
    """What becomes of pushing each refspec: empty when it was taken, else what git said."""
    found = {}
    for refspec in refspecs:
        status, said = git("push", "local", refspec)
        found[refspec] = said if status else ""
    return found


def fetch_by_id(oids: list[str], versions: str) -> dict[str, str]:
    """What becomes of fetching each object by its id, by each version of the protocol: empty when it is here then."""
    found = {}
    for oid in oids:
        for version in versions:
            fetched, said = git("-c", f"protocol.version={version}", "fetch", "local", oid)
            here = git("cat-file", "-e", oid)[0] == 0
            found[f"{oid} v{version}"] = "" if here or fetched == 0 else said or "refused"
    return found


def plant(cage: str) -> str:
    """Commit and push all that somebody's git or editor could run; the programs would make files in `cage`.

    Gives the commit's id. Also the settings and hooks of this repository itself name them.
    """
    os.chdir(WORKSPACE)
    for directory in (".husky", ".git/hooks"):
        os.makedirs(directory, exist_ok=True)
        for hook in HOOKS:
            _program(f"{directory}/{hook}", f": > '{cage}/{hook}'")
    _program("run.sh", f": > '{cage}/run'; cat")
    _write(".gitattributes", "* filter=evil diff=evil merge=evil ident\n")
    _write(".gitmodules", f'[submodule "x"]\n\tpath = x\n\turl = {cage}\n\tupdate = checkout\n')
    _write(".gitconfig", f"[core]\n\tfsmonitor = {WORKSPACE}/run.sh\n")
    _write(".envrc", f": > '{cage}/direnv'\n")
    _write("\x1b]0;pwned\x07.txt", "v\n")
    _write("\u202egpj.exe.txt", "v\n")
    _write("--upload-pack=x", "v\n")
    _write("screen.txt", SCREEN)
    os.symlink("/etc/passwd", "link")
    for key, value in (("core.fsmonitor", "./run.sh"), ("core.hooksPath", ".husky"), ("diff.external", "./run.sh"),
                       ("filter.evil.clean", "./run.sh"), ("filter.evil.smudge", "./run.sh"),
                       ("core.sshCommand", "./run.sh"), ("gpg.program", "./run.sh"), ("core.pager", "./run.sh"),
                       ("uploadpack.packObjectsHook", "./run.sh"), ("include.path", f"{cage}/config"),
                       ("core.alternateRefsCommand", "./run.sh")):  # fmt: skip
        git("config", key, value)
    safe = ("-c", "filter.evil.clean=cat", "-c", "filter.evil.smudge=cat")
    git(*safe, "add", "--all")
    git(*safe, "-c", "commit.gpgSign=false", "commit", "--quiet", "--no-verify", "-m", SUBJECT)
    status, said = git(*safe, "push", "--quiet", "local", "HEAD")
    if status:
        raise OSError(f"the work could not be pushed: {said}")
    tip = git("rev-parse", "HEAD")[1].strip()
    os.makedirs(".git/objects/info", exist_ok=True)
    _write(".git/objects/info/alternates", f"{cage}/objects\n")  # from here on git complains of it
    return tip


def rewrite() -> str:
    """Push a commit, and then another history in its place by force; the id of the commit that was pushed first."""
    git("commit", "--quiet", "--no-verify", "--allow-empty", "-m", "to be lost")
    git("push", "--quiet", "local", "HEAD")
    first = git("rev-parse", "HEAD")[1].strip()
    git("commit", "--quiet", "--no-verify", "--amend", "--allow-empty", "-m", "instead of it")
    status, said = git("push", "--quiet", "--force", "local", "HEAD")
    if status:
        raise OSError(f"the branch could not be rewritten: {said}")
    return first


def works() -> str:
    """Empty when a new commit can still be pushed, as after an attack on what saves, else what git said."""
    _write(f"{WORKSPACE}/still-here", str(os.getpid()))
    git("add", "still-here")
    git("commit", "--quiet", "--no-verify", "-m", "still here")
    status, said = git("push", "--quiet", "local", "HEAD")
    return said if status else ""


def _program(path: str, code: str) -> None:
    _write(path, f"#!/bin/sh\n{code}\n")
    os.chmod(path, 0o755)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
