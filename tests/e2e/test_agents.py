"""The real agents, walled in and without a network, at work for a scripted model on the host's loopback."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coding_agents.images.manifests import load_manifest
from model_stub.server import ModelStub, serving
from support.autostart import MARKERS, add_autostart
from support.engines import EngineUnderTest
from support.product import Product, git, wait_for
from support.ptys import on_terminal

pytestmark = pytest.mark.engine

HOST_SECRET = "a-real-key-of-the-host"
KEYS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CODEX_API_KEY",
    "COPILOT_PROVIDER_API_KEY",
    "GEMINI_API_KEY",
    "OPENAI_API_KEY",
)
# What agents ask at a first start, as seen on their screens when one line of their seeds is missing.
QUESTIONS = (
    "Choose the text style",
    "Do you want to use this API key?",
    "Yes, I trust this folder",
    "Yes, I accept",
    "Do you trust",
    "Trust this folder",
    "How would you like to authenticate",
    "Sign in with",
)


@dataclass(frozen=True)
class Agent:
    """One agent: the header that its key arrives in, and what its screen shows when it waits for a task."""

    name: str
    credential: tuple[str, str]
    ready: str


AGENTS = (
    Agent("claude", ("x-api-key", HOST_SECRET), "bypass permissions on"),
    Agent("codex", ("authorization", f"Bearer {HOST_SECRET}"), "OpenAI Codex"),
    Agent("copilot", ("authorization", f"Bearer {HOST_SECRET}"), "/ commands"),
    Agent("gemini", ("x-goog-api-key", HOST_SECRET), "Type your message"),
    Agent("opencode", ("x-api-key", HOST_SECRET), "Ask anything"),
)


@pytest.fixture(params=AGENTS, ids=lambda agent: agent.name)
def agent(request: pytest.FixtureRequest, engine: EngineUnderTest) -> Agent:
    """Each agent on Docker; Podman has Claude Code alone, to keep the run short."""
    one: Agent = request.param
    if engine.name == "podman" and one.name != "claude":
        pytest.skip("on Docker only")
    return one


def launch(product: Product, repo: Path, model: ModelStub, agent: Agent, *args: str) -> str:
    """Launch with the host's loopback as the model's upstream; returns what the user read on standard error."""
    product.extra |= {"CODING_AGENTS_MODEL_UPSTREAM": model.url, "CANARY": HOST_SECRET}
    product.extra |= dict.fromkeys(KEYS, HOST_SECRET)
    command = ("launch", str(repo), "--agent", agent.name, "--network-proxy", "restricted")
    return product.run(*command, *args).err


def test_headless_task_comes_back_as_a_commit(product: Product, repo: Path, agent: Agent) -> None:
    with serving("commit") as model:
        shown = launch(product, repo, model, agent, "-p", "make the app speak")
    asked = model.conversation
    assert [one.problem for one in asked] == ["", "", ""]
    first, second = (one.question for one in asked[:2])
    assert first is not None
    assert second is not None
    assert "make the app speak" in first.user_text
    branch = f"{agent.name}/session-1"
    assert git(repo, "log", "--format=%s", f"main..{branch}") == "Let the agent speak"
    assert "made by the agent" in git(repo, "show", f"{branch}:src/app.py")
    assert git(repo, "status", "--porcelain") == ""
    assert f"1 commit(s) on branch {branch}" in shown

    # Its hook has said what it was about to do; nothing but its word, and in none of the host's records.
    name = f"{agent.name}-{repo.name}-session-1"
    told = [one for one in product.audit(name) if one["type"] == "tool-call"]
    assert {one["source"] for one in told} == {"guest"}
    assert ["git commit" in one["detail"]["about"] for one in told] == [False, True]
    assert "git commit" in product.run("logs", "--tools", "--tail", "1", name).out

    # Every request, also those beside the conversation, arrives with the host's key, which is nowhere inside.
    assert {tuple(one.credentials.items()) for one in model.asked} == {(agent.credential,)}
    assert HOST_SECRET not in shown
    for host_only in (HOST_SECRET, "CANARY=", str(product.home), "CODING_AGENTS_MODEL_UPSTREAM", model.url):
        assert host_only not in second.last_result


@pytest.mark.alike
@pytest.mark.parametrize("agent", AGENTS[:2], ids=lambda agent: agent.name, indirect=True)
def test_a_model_in_trouble_delays_a_task_and_does_not_end_it(
    product: Product, repo: Path, agent: Agent
) -> None:
    """A refusal, an error, an answer that breaks off, and slow ones, all by way of the broker.

    Copilot and OpenCode get through the same, in 25 s together; Gemini CLI gives up when an answer breaks off.
    """
    with serving("recover") as model:
        launch(product, repo, model, agent, "-p", "go on whatever comes")
    asked = model.conversation
    assert [one.question.assistant_turns for one in asked if one.question] == [0, 0, 0, 0, 1]
    assert [one.problem for one in asked] == [""] * 5
    assert asked[1].at - asked[0].at >= 1  # what retry-after asks for; of themselves they try sooner
    assert git(repo, "log", "--format=%s", f"main..{agent.name}/session-1") == "Recover"
    records = product.audit(f"{agent.name}-{repo.name}-session-1")
    assert len([one for one in records if one["type"] == "model-request"]) == len(model.asked)


@pytest.mark.alike
def test_only_the_agents_own_api_leads_to_its_model(product: Product, repo: Path) -> None:
    probe = "curl -s -m 5 -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8099"
    with serving("hello") as model:
        product.extra |= {"CODING_AGENTS_MODEL_UPSTREAM": model.url, "ANTHROPIC_API_KEY": HOST_SECRET}
        # An agent without a model has no way to one.
        refused = 7  # curl's status when nobody listens
        assert product.launch(repo, "--", "sh", "-c", f"{probe}/", status=refused).out == "000\n"
        asked = f"{probe}/v1/files; {probe}/v1/models"
        done = product.run("launch", str(repo), "--agent", "claude", "--", "sh", "-c", asked)
        assert done.out == "404\n404\n"
    assert [one.path for one in model.asked] == ["/v1/models"]


@pytest.mark.alike
def test_an_interactive_start_asks_nothing_and_a_later_one_goes_on(
    product: Product, repo: Path, agent: Agent
) -> None:
    if agent.name == "opencode":  # it works in a thread of its own then
        add_autostart(repo)
    name = f"{agent.name}-{repo.name}-session-1"

    def settled() -> str:
        shown = product.screen(name)
        return shown if any(text in shown for text in (agent.ready, *QUESTIONS)) else ""

    def say(text: str, answer: str) -> None:
        product.run("tell", name, text)
        wait_for(lambda: answer in product.screen(name), f"{answer!r} on the screen of {agent.name}")

    with serving("resume") as model:
        product.extra["CODING_AGENTS_NOTIFY_TERMINAL"] = "osc9"
        launch(product, repo, model, agent, "-d")
        first = wait_for(settled, f"the first screen of {agent.name}")
        assert [question for question in QUESTIONS if question in first] == []
        say("say hello", "Hello from the scripted model.")
        assert product.exec(name, f"ls {MARKERS} 2>&1", status=None).status != 0, "something has started"
        told = product.exec(name, f"cat ~/{load_manifest(agent.name).instructions}").out
        assert f"on the branch `{agent.name}/session-1`" in told
        product.run("stop", name)
        product.run("start", name)
        # Its prompt is there before: what is typed then is lost when the conversation takes its place.
        earlier = "Hello from the scripted model."
        wait_for(lambda: earlier in product.screen(name), f"the earlier conversation of {agent.name}")
        if agent is AGENTS[0]:
            with on_terminal(product, "connect", name) as shown:
                shown.sees("[agent]")  # tmux's own line
                say("say it again", "Hello again from the scripted model.")
                shown.sees(f"\x1b]9;coding-agents: {name}: waiting: the agent waits for you\x07\x07")
                product.run("stop", name)
                shown.sees(f"\x1b]9;coding-agents: {name}: f")  # finished or failed
                shown.ends()
        else:
            say("say it again", "Hello again from the scripted model.")
        asked = [one.question for one in model.conversation if one.question is not None]
        assert any(one.assistant_turns == 1 and "say hello" in one.user_text for one in asked)
        product.run("remove", "--force", name)
    assert product.leftovers() == []


def test_nothing_of_the_repository_starts_by_itself(product: Product, repo: Path, agent: Agent) -> None:
    add_autostart(repo)
    model: Any
    with serving("markers") as model:
        launch(product, repo, model, agent, "-p", "look around")
    assert [one.problem for one in model.conversation] == ["", ""]
    listed = model.conversation[1].question.last_result
    assert "no marker" in listed, listed
    # And nothing of it keeps root's hook from telling of that.
    records = product.audit(f"{agent.name}-{repo.name}-session-1")
    assert [one["type"] for one in records].count("tool-call") == 1


@pytest.mark.parametrize("agent", AGENTS[2:3], ids=lambda agent: agent.name, indirect=True)
def test_copilot_asks_as_githubs_own_client_for_an_account(
    product: Product, repo: Path, agent: Agent
) -> None:
    """And then, too, nothing of the repository starts, though it is not offline any more."""
    add_autostart(repo)
    product.extra["COPILOT_GITHUB_TOKEN"] = HOST_SECRET
    model: Any
    with serving("markers") as model:
        shown = launch(product, repo, model, agent, "-p", "look around")
    assert "by COPILOT_GITHUB_TOKEN" in shown
    assert [one.problem for one in model.conversation] == ["", ""]
    assert {one.path for one in model.conversation} == {"/capi/chat/completions"}
    assert {one.headers["copilot-integration-id"] for one in model.conversation} == {"copilot-developer-cli"}
    assert "/copilot_internal/user" in {one.path for one in model.asked}
    assert {tuple(one.credentials.items()) for one in model.asked} == {(agent.credential,)}
    assert "no marker" in model.conversation[1].question.last_result
    records = product.audit(f"{agent.name}-{repo.name}-session-1")
    assert [one["type"] for one in records].count("tool-call") == 1
