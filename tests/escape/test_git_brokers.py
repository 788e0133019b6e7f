"""G29, G31, G33. A hostile guest asks the host for more than its git may have: credentials, signatures, pushes, keys.

One person with a forge account, a key of GnuPG and one of OpenSSH; one session, which has used all of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from coding_agents.attacks import git_brokers, suite
from coding_agents.verify.checks_git import CREDENTIALS, SIGNATURES
from coding_agents.verify.scene import ORIGIN_FETCHES, ORIGIN_PUSHES
from support.engines import EngineUnderTest
from support.escape import AGENT, Captive, capture
from support.forge_tricks import redirect
from support.material import files_below, found_in, text_secret
from support.person import PROJECT, RELEASED, SIBLING, STRANGERS, Person, person
from support.product import Product, git
from support.searched import in_memory, in_the_engine, on_the_host

pytestmark = [pytest.mark.engine, pytest.mark.escape, pytest.mark.alike]

_PLACE, _HONEST = "the place itself", "honest"


@pytest.fixture(scope="module")
def user(
    engine: EngineUnderTest, owner: Product, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Person]:
    if engine.name != "docker":
        pytest.skip("on Docker only, to keep the run short")
    with person(owner, tmp_path_factory.mktemp("person")) as one:
        one.settings(f'[credentials]\nrelease = ["{one.forge.url(RELEASED)}"]\n')
        yield one


@pytest.fixture(scope="module")
def captive(user: Person) -> Iterator[Captive]:
    one = capture(user.product, user.repo)
    yield one
    one.stop()


def records(captive: Captive, kind: str) -> list[dict[str, object]]:
    return [one for one in captive.product.audit(captive.name) if one["type"] == kind]


def test_a_redirect_leads_nobodys_credential_elsewhere(captive: Captive, user: Person) -> None:
    forge = user.forge
    forge.trust(captive.product.home, user.account, host="evil.localhost")  # it would be given there, too
    evil = forge.url(STRANGERS, host="evil.localhost")
    forge.tricks[PROJECT] = redirect(evil)
    try:
        assert "fatal" in captive.product.exec(captive.name, "git fetch origin", status=128).err
    finally:
        del forge.tricks[PROJECT]
    assert not [one for one in forge.asked if one.host == "evil.localhost"]


def test_no_key_and_no_token_is_anywhere(captive: Captive, user: Person) -> None:
    product, name = captive.product, captive.name
    product.exec(
        name, "git commit -q --allow-empty -m signed && git fetch -q origin && git push -q local HEAD"
    )
    assert "gpgsig" in product.exec(name, "git cat-file commit HEAD").out
    planted = text_secret("what was planted", f"planted-{secrets.token_hex(12)}")
    words = ("exec", "-d", "-u", AGENT, "-e", f"X={planted.value.decode()}", name, "sleep", "600")
    product.engine_run(*words)
    product.exec(name, f"echo {planted.value.hex()} > /dev/shm/planted")
    looked = in_the_engine(product, name) | in_memory(product, name) | on_the_host(product, name)
    looked |= files_below(product.session_dir(name))  # the relay, the audit log, the supervisor's own
    assert found_in(looked, user.secrets) == []
    # The search itself: what is there is found, in memory, in a file and in the engine's account of the session.
    places = {hit.split(" is in ")[1].split(" of ")[0] for hit in found_in(looked, [planted])}
    assert {"environ", "memory", "files"} <= places
    assert found_in(looked, [text_secret("its id", product.session(name)["id"])])


def test_a_credential_is_for_what_was_released_and_nothing_beside_it(captive: Captive, user: Person) -> None:
    assert "can read" in captive.launched.err  # the banner says that this token can be taken away
    address = urlsplit(user.forge.url(RELEASED))
    told = captive.attack(git_brokers.ask_credentials, address.netloc, address.path.lstrip("/"))
    assert {name for _id, names, _tried in CREDENTIALS for name in names} == set(told)
    assert user.account.token in told.pop(_PLACE)
    assert {name: said for name, said in told.items() if said} == {}
    assert len(records(captive, "credential-released")) == 1
    assert len(records(captive, "credential-refused")) == len(told)


def test_origins_own_credential_is_worth_nothing_outside(captive: Captive, user: Person) -> None:
    for name in (PROJECT, SIBLING):
        assert user.account.token not in captive.attack(git_brokers.fill, user.forge.url(name))


def test_a_signature_is_for_one_honest_commit_of_this_session(captive: Captive, user: Person) -> None:
    before = len(records(captive, "signed"))
    made = captive.attack(git_brokers.ask_signatures, "openpgp")
    assert {name for _id, names, _tried in SIGNATURES for name in names} == {*made} - {_HONEST}
    assert "-----BEGIN PGP SIGNATURE-----" in made.pop(_HONEST)
    assert {name: said for name, said in made.items() if said} == {}
    assert len(records(captive, "signed")) == before + 1
    refused = records(captive, "signing-refused")
    assert all(len(str(one["detail"]["sha256"])) == 64 for one in refused)  # type: ignore[index]
    # What the host lacks is no refusal, and is not signed either.
    unknown = {name for id, names, _tried in SIGNATURES for name in names if id == "signing.unknown"}
    assert len(refused) == len({*made} - unknown)


def test_nothing_reaches_origin_that_nobody_has_approved(captive: Captive, user: Person) -> None:
    """By any of the words of git, also when git in the session is set up to call another place origin."""
    app, forge = user.forge.path(PROJECT), user.forge
    hidden = git(
        app, "-c", "user.name=x", "-c", "user.email=x@y", "commit-tree", "main^{tree}", "-m", "hidden"
    )
    git(app, "update-ref", "refs/pull/1/head", hidden)
    git(app, "update-ref", "refs/hidden/x", hidden)
    git(app, "update-ref", "refs/heads/other", "main")
    before = {name: forge.refs(name) for name in (PROJECT, SIBLING, RELEASED, STRANGERS)}
    known = {"branch": captive.branch, "hidden": hidden}
    theirs = {
        "a sibling's address": ("push", [forge.url(SIBLING), "HEAD:refs/heads/x"]),
        "a path beside origin": ("push", ["git://coding-agents/origin/../../team/private", "HEAD:refs/heads/x"]),
        "a redirected origin": (
            "push", [f"-curl.git://coding-agents/origin.insteadOf={forge.url(SIBLING)}", "HEAD:refs/heads/x"]
        ),
        "a stranger's address": ("fetch", [forge.url(STRANGERS), "main"]),
    }  # fmt: skip
    calls = [
        *([f"push {name}", "origin", "push_words", [[word.format(**known) for word in words]]]
          for name, words in ORIGIN_PUSHES.items()),
        *([f"fetch {name}", "origin", "fetch_words", [["origin", wanted.format(**known)]]]
          for name, wanted in ORIGIN_FETCHES.items()),
        *([name, "origin", f"{way}_words", [words]] for name, (way, words) in theirs.items()),
    ]  # fmt: skip
    told = {name: one["value"] for name, one in captive.attack(suite.run, calls, 8.0, 6).items()}
    assert [name for name, said in told.items() if said == ""] == ["fetch works"]
    assert {name: forge.refs(name) for name in before} == before
    asked = {str(one["subject"]).split()[-1] for one in records(captive, "origin-push-asked")}
    assert len(asked) <= 2  # a new branch, and a moved one; nobody was asked about anything else
    assert {one.path.split(".git")[0] for one in forge.asked} <= {f"/{PROJECT}", f"/{RELEASED}"}
