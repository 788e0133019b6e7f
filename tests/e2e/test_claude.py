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
# What Claude Code asks at a first start, as seen on its screen when one line of [first_run] is missing.
QUESTIONS = (
    "Choose the text style",
    "Do you want to use this API key?",
    "Yes, I trust this folder",
    "Yes, I accept",
)
READY = "bypass permissions on"


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
    assert "; model: " in shown
    assert "by ANTHROPIC_API_KEY" in shown
    assert "model    3 request(s), 300 tokens read, 60 written" in shown
    assert HOST_SECRET not in shown

    # Every request, also those beside the conversation, arrives with the host's key, which is nowhere inside.
    assert {tuple(one.credentials.items()) for one in model.asked} == {(("x-api-key", HOST_SECRET),)}
    surroundings = asked[1].question.last_result
    assert f"ANTHROPIC_API_KEY={DUMMY_KEY}" in surroundings
    for host_only in (HOST_SECRET, "CANARY=", str(product.home), "CODING_AGENTS_MODEL_UPSTREAM", model.url):
        assert host_only not in surroundings


def test_only_the_agents_own_api_leads_to_its_model(product: Product, repo: Path) -> None:
    probe = "curl -s -m 5 -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8099"
    with serving("hello") as model:
        product.extra["CODING_AGENTS_MODEL_UPSTREAM"] = model.url
        # An agent without a model has no way to one.
        refused = 7  # curl's status when nobody listens
        assert product.launch(repo, "--", "sh", "-c", f"{probe}/", status=refused).out == "000\n"
        asked = f"{probe}/v1/files; {probe}/v1/models"
        done = product.run("launch", str(repo), "--agent", "claude", "--", "sh", "-c", asked)
        assert done.out == "404\n404\n"
    assert [one.path for one in model.asked] == ["/v1/models"]


def test_interactive_start_asks_nothing_and_answers(product: Product, repo: Path) -> None:
    def screen() -> str:
        return product.exec(name, "tmux capture-pane -p -t agent").out

    def settled() -> str:
        shown = screen()
        return shown if any(text in shown for text in (READY, *QUESTIONS)) else ""

    with serving("hello") as model:
        launch_claude(product, repo, model, "-d")
        name = f"claude-{repo.name}-session-1"
        first = wait_for(settled, "the first screen of Claude Code")
        assert [question for question in QUESTIONS if question in first] == []
        product.exec(name, "tmux send-keys -t agent -l 'say hello' && tmux send-keys -t agent Enter")
        wait_for(lambda: "Hello from the scripted model." in screen(), "the model's answer on the screen")
        assert any("say hello" in one.question.user_text for one in model.conversation)
        product.run("remove", "--force", name)
    assert product.leftovers() == []
