"""Network mode `squid` in use: rules change under a running session, budgets hold, and parts of it die."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.engines import EngineUnderTest
from support.inside import supervisor_of
from support.internet import COMPANY_PROXY, Internet, find_internet
from support.product import Product, git, make_repo, wait_for

pytestmark = pytest.mark.engine

CURL = "curl -sk -o /dev/null -w '%{http_code} %{http_connect}' -m 20"
WHY = "coding-agents-why"


@pytest.fixture(scope="module")
def world(engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    yield from find_internet(tmp_path_factory.mktemp("internet"))


@pytest.fixture
def repo(product: Product) -> Path:
    return make_repo(product.home / "shop", {"app.py": "print(1)\n"})


def launch(product: Product, repo: Path, *options: str) -> str:
    return product.launch_detached(repo, "sleep 3000", "--network-proxy", "squid", *options)


def code(product: Product, name: str, url: str, *words: str) -> str:
    """Status of the answer and of the tunnel, as curl tells them."""
    return product.exec(name, " ".join((CURL, *words, url)), status=None).out.strip()


def egress(product: Product, name: str) -> list[dict[str, Any]]:
    return [one for one in product.audit(name) if one["type"].startswith("egress")]


def docker_alone(product: Product) -> None:
    """For what the engine has no part in."""
    if product.engine != "docker":
        pytest.skip("shown on Docker: it is the proxy's own doing")


def test_rules_change_under_a_running_session(product: Product, repo: Path, world: Internet) -> None:
    name = launch(product, repo)
    assert product.exec(name, "stat -c %u /opt/coding-agents-door").out.strip() == "0"
    assert code(product, name, "https://good.example/") == "000 403"
    assert product.exec(name, f"{WHY} https://good.example/", status=1).out.startswith(
        "refused: no rule allows"
    )
    assert product.run("allowlist", "suggest", name, "--json").json == [
        {"rule": "https://good.example", "times": 1}
    ]
    assert (
        product.run("allowlist", "explain", "https://good.example", "--session", name, "--json").json[
            "reason"
        ]
        == "not-listed"
    )

    product.run("allowlist", "add", "--session", name, "https://good.example")
    began = time.monotonic()
    wait_for(lambda: code(product, name, "https://good.example/") == "200 200", "the new rule", timeout_s=4)
    assert product.exec(name, f"{WHY} https://good.example/").out.startswith(
        "allowed by session:https://good.example"
    )
    slow = product.start("exec", name, "--", "sh", "-c", f"{CURL} https://good.example/slow")
    time.sleep(1)
    product.run("allowlist", "remove", "--session", name, "https://good.example")
    wait_for(lambda: code(product, name, "https://good.example/") == "000 403", "the rule to go", timeout_s=4)
    out, _ = slow.communicate(timeout=30)
    assert out.strip() in ("200 200", b"200 200"), "what had begun was broken off"

    product.run("allowlist", "add", "other.example")  # of all sessions
    wait_for(
        lambda: code(product, name, "https://other.example/") == "200 200", "the user's rule", timeout_s=4
    )
    changes = [one["detail"] for one in egress(product, name) if one["subject"] == "changed"]
    assert [(one["added"], one["removed"]) for one in changes] == [
        ("session:https://good.example", ""), ("", "session:https://good.example"), ("user:other.example", ""),
    ]  # fmt: skip
    assert time.monotonic() - began < 60

    (product.home / ".config/coding-agents/network-allowlist.txt").write_text(
        "other.example\nnot a rule at all\n"
    )
    wait_for(
        lambda: any("not a rule" in str(one["detail"]) for one in egress(product, name)),
        "the record",
        timeout_s=4,
    )
    assert code(product, name, "https://other.example/") == "200 200"  # what was in force stays
    assert (
        "network-allowlist.txt:2"
        in product.launch(repo, "--network-proxy", "squid", "--", "true", status=None).err
    )


def test_what_is_sent_and_received_has_a_budget(product: Product, repo: Path, world: Internet) -> None:
    docker_alone(product)
    config = product.home / ".config/coding-agents/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    told = product.home / "told"
    notify = ["sh", "-c", f'echo "$3" >> {told}', "sh"]
    config.write_text(
        '[network]\nupload = "1m"\ndownload = "8m"\nrequest_download = "2m"\n'
        f"[notify]\ncommand = {json.dumps(notify)}\n"
    )
    name = launch(product, repo, "--allow", "good.example", "--allow", "http://elsewhere.example")
    product.exec(name, "head -c 3000000 /dev/zero > /tmp/large")
    assert code(product, name, "https://good.example/bytes/1000000") == "200 200"
    assert (
        "3000000"
        not in product.exec(
            name,
            "curl -sk -o /dev/null -w '%{size_download}' https://good.example/bytes/3000000",
            status=None,
        ).out
    )  # one request's own budget
    product.exec(name, f"{CURL} -T /tmp/large https://good.example/up", status=None)
    assert not world.arrived("http", method="PUT", body=3000000)
    assert code(product, name, "https://good.example/") == "000 403"
    assert code(product, name, "http://elsewhere.example/") == "403 000"
    reasons = [one["detail"]["reason"] for one in egress(product, name) if one["outcome"] == "denied"]
    assert reasons == ["budget"] * 4
    assert told.read_text().count("used up what it may send or receive") == 1
    (sent,) = (one["detail"]["up"] for one in egress(product, name) if one["detail"].get("up", 0) > 500_000)
    assert 900_000 < sent < 1_500_000


def test_parts_die_and_the_session_goes_on(product: Product, repo: Path, world: Internet) -> None:
    name = launch(product, repo, "--allow", "good.example")
    holder = f"{name}-holder"

    def squid() -> list[int]:
        listed = product.engine_run("top", holder, "-eo", "pid,comm") if product.engine == "docker" else ""
        return [int(line.split()[0]) for line in listed.splitlines()[1:] if line.split()[-1] == "squid"]

    def pid_of(container: str) -> int:
        return int(product.engine_run("inspect", "--format", "{{.State.Pid}}", container).strip())

    before = pid_of(holder)
    for process in squid() or [before]:
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: pid_of(holder) not in (0, before), "the proxy to be started again")
    wait_for(lambda: code(product, name, "https://good.example/") == "200 200", "the proxy to work again")
    assert [one for one in egress(product, name) if one["subject"] == "proxy started again"]
    rules = product.engine_run(
        "exec", "-u", "0:0", holder, "nft", "list", "table", "inet", "coding_agents_guard"
    )
    assert "policy drop" in rules

    supervisor = supervisor_of(product.session_dir(name))
    os.kill(supervisor, signal.SIGKILL)
    assert code(product, name, "https://good.example/?while-nobody-listens") == "200 200"
    told = len(
        [one for one in egress(product, name) if one["outcome"] == "allowed" and one["type"] == "egress"]
    )
    product.run("diff", name)  # any verb that needs the supervisor starts the next one

    def recorded() -> bool:
        found = [
            one for one in egress(product, name) if one["outcome"] == "allowed" and one["type"] == "egress"
        ]
        return len(found) > told

    wait_for(recorded, "the record of what happened meanwhile")
    assert code(product, name, "https://good.example/") == "200 200"

    product.exec(name, "echo work > new.txt")
    product.run("stop", name)
    product.run("start", name)
    assert code(product, name, "https://good.example/") == "200 200"
    product.run("stop", name)
    branch = product.session(name)["branch"]
    assert "new.txt" in git(repo, "ls-tree", "--name-only", branch)
    assert json.loads(product.run("list", "-a", "--json").out)


def test_where_the_host_has_a_proxy_the_session_goes_through_it(
    product: Product, repo: Path, world: Internet
) -> None:
    """A host behind a company's proxy, which alone reaches and resolves what is outside."""
    docker_alone(product)
    behind = replace(
        product, extra={"https_proxy": f"http://uma:s3cret@{COMPANY_PROXY}:3128", "no_proxy": "other.example"}
    )
    name = launch(behind, repo, "--allow", "inside.example", "--allow", "other.example")
    asked = len(world.arrived("dns"))
    assert code(behind, name, "https://inside.example/by-proxy") == "200 200"
    assert code(behind, name, "http://inside.example/plain") == "200 000"
    assert len(world.arrived("dns")) == asked
    told = [(one["method"], one["path"]) for one in world.arrived("proxy", told="Basic dW1hOnMzY3JldA==")]
    assert told == [("CONNECT", "inside.example:443"), ("GET", "http://inside.example/plain")]
    assert code(behind, name, "https://other.example/") == "200 200"  # named by NO_PROXY
    assert len(world.arrived("proxy")) == len(told)
    assert "s3cret" not in behind.engine_run("inspect", f"{name}-holder", name)
    refused = replace(product, extra={"https_proxy": "http://127.0.0.1:3128"}).launch(
        repo, "--network-proxy", "squid", "--", "true", status=None
    )
    assert "listens on loopback, which no container can reach" in refused.err
