#!/usr/bin/env python3
"""Record the terminal session that README.md shows, and put it there: `.venv/bin/python tools/record_session.py`.

Every line is what the product prints on a terminal: a real engine, the real Claude Code, a model whose words are
scripted (tests/model_stub). Needs an engine and npm's registry for the first build of the agent's image.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from coding_agents.terminal.escape import StreamEscaper
from model_stub.server import serving

README = ROOT / "README.md"
BEGIN, END = "<!-- recorded by tools/record_session.py -->\n```console\n", "```\n<!-- end of the record -->"
COMMANDS = (
    'coding-agents launch --agent claude --network-proxy restricted -b greet -p "Greet users by name, with a test"',
    "coding-agents review claude-app-greet",
    "git log --oneline main..claude/greet",
    "git diff --stat main claude/greet",
    "coding-agents audit query --session claude-app-greet --type model-request",
    "coding-agents remove claude-app-greet",
)


def record(home: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """Run the commands in a new repository below `home`; yields each with what it printed. Raises SystemExit."""
    app = home / "app"
    (app / "src").mkdir(parents=True)
    (app / "src/app.py").write_text('"""An app."""\n')
    env = {**environ, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat", "COLUMNS": "110"}
    for words in (
        ("init", "-q", "-b", "main"), ("config", "user.name", "You"), ("config", "user.email", "you@app.example"),
        ("add", "."), ("commit", "-qm", "An app"),
    ):  # fmt: skip
        subprocess.run(("git", *words), cwd=app, env=env, check=True)
    with serving("readme") as model:
        env |= {
            "CODING_AGENTS_MODEL_UPSTREAM": model.url,
            "ANTHROPIC_API_KEY": "sk-a-key-that-stays-on-the-host",
        }
        for command in COMMANDS:
            yield f"$ {command}\n{_on_terminal(command, app, env)}"


def _on_terminal(command: str, directory: Path, env: Mapping[str, str]) -> str:
    """What a shell's command prints on a terminal, made plain. Raises SystemExit when it fails."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(directory)
        os.execvpe("sh", ("sh", "-c", f"stty cols 110; {command}"), {**env})
    shown = b""
    try:
        while data := os.read(terminal, 65536):
            shown += data
    except OSError:  # so does Linux say that nobody has the other side open any more
        pass
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    escaper = StreamEscaper(colours=False)
    text = (escaper.feed(shown.replace(b"\r\n", b"\n").replace(b"\a", b"")) + escaper.finish()).decode()
    if status != 0:
        raise SystemExit(f"{command}: status {os.waitstatus_to_exitcode(status)}\n{text}")
    return re.sub(r"\bhttp://127\.0\.0\.1:\d+", "a scripted model", text.replace(str(directory.parent), "~"))


def main() -> None:
    """Record, and write the record into README.md."""
    with TemporaryDirectory() as home:
        recorded = "".join(record(Path(home), os.environ))
    text = README.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    if not after:
        raise SystemExit(f"{README} has no place for the record")
    README.write_text(before + BEGIN + recorded + END + after, "utf-8")
    print(recorded, end="")


if __name__ == "__main__":
    main()
