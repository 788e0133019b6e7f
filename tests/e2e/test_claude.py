"""The real Claude Code, walled in and without a network, at work for a scripted model on the host's loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_stub.server import ModelStub, serving
from support.product import Product, git, wait_for

pytestmark = pytest.mark.engine

# From agents/claude.toml: what the agent holds instead of a key.
DUMMY_KEY = "replaced-by-coding-agents-on-the-host"
HOST_SECRET = "a-real-key-of-the-host"
# What Claude Code asks at a first start: its theme, whose account, whose key, whether the folder and the mode are
# trusted. Each would stop a start that nobody watches.
QUESTIONS = (
    "text style",
    "login method",
    "custom API key",
    "trust this folder",
    "trust the files",
    "Bypass Permissions mode,",
    "Press Enter to continue",
    "Yes, I accept",
)


def launch_claude(product: Product, repo: Path, model: ModelStub, *args: str) -> str:
    """Launch with the host's loopback as the model's upstream; returns what the user read on standard error."""
    product.extra |= {
        "CODING_AGENTS_MODEL_UPSTREAM": model.url,
        "ANTHROPIC_API_KEY": HOST_SECRET,
        "ANTHROPIC_AUTH_TOKEN": HOST_SECRET,
        "CANARY": HOST_SECRET,
    }
    command = ("launch", str(repo), "--agent", "claude", "--network-proxy", "restricted")
    return product.run(*command, *args).err


def test_headless_task_comes_back_as_a_commit(product: Product, repo: Path) -> None:
    with serving("commit") as model:
        shown = launch_claude(product, repo, model, "-p", "make the app speak")
    asked = model.conversation
    assert [one.problem for one in asked] == ["", "", ""]
    assert "make the app speak" in asked[0].question.user_text
    assert git(repo, "log", "--format=%s", "main..claude/session-1") == "Let the agent speak"
    assert "made by the agent" in git(repo, "show", "claude/session-1:src/app.py")
    assert git(repo, "status", "--porcelain") == ""
    assert "1 commit(s) on branch claude/session-1" in shown

    # Every request, also those beside the conversation, carries the dummy; the host's key is nowhere inside.
    assert {tuple(one.credentials.items()) for one in model.asked} == {(("x-api-key", DUMMY_KEY),)}
    surroundings = asked[1].question.last_result
    assert f"ANTHROPIC_API_KEY={DUMMY_KEY}" in surroundings
    for host_only in (HOST_SECRET, "CANARY=", str(product.home), "CODING_AGENTS_MODEL_UPSTREAM", model.url):
        assert host_only not in surroundings


def test_without_an_upstream_the_guest_reaches_no_model(product: Product, repo: Path) -> None:
    with serving("hello") as model:
        product.extra["ANTHROPIC_BASE_URL"] = model.url  # of the host: nothing of the kind goes in
        reach = "curl -sS -m 5 $ANTHROPIC_BASE_URL http://127.0.0.1:8099/ || echo closed"
        result = product.launch(repo, "--agent", "claude", "--", "sh", "-c", reach)
        assert result.out == "closed\n"
    assert model.asked == []


def test_interactive_start_asks_nothing_and_answers(product: Product, repo: Path) -> None:
    def screen() -> str:
        return product.exec(name, "tmux capture-pane -p -t agent").out

    with serving("hello") as model:
        launch_claude(product, repo, model, "-d")
        name = f"claude-{repo.name}-session-1"
        wait_for(lambda: "bypass permissions on" in screen(), "the prompt line of Claude Code")
        before = screen()
        assert [question for question in QUESTIONS if question.lower() in before.lower()] == []
        product.exec(name, "tmux send-keys -t agent -l 'say hello' && tmux send-keys -t agent Enter")
        wait_for(lambda: "Hello from the scripted model." in screen(), "the model's answer on the screen")
        assert any("say hello" in one.question.user_text for one in model.conversation)
        product.run("remove", "--force", name)
    assert product.leftovers() == []
