"""From what the user has chosen, or what is there, to one credential: read, judged by the clock, never renewed here."""

from __future__ import annotations

from pathlib import Path

import msgspec

from coding_agents.config.environ import HostEnvironment
from coding_agents.credentials.asking import ask_program
from coding_agents.credentials.formats import MOVED, Found, read_logins
from coding_agents.credentials.private import read_private
from coding_agents.credentials.sealing import Kept
from coding_agents.credentials.store import Choice, SecretStore
from coding_agents.credentials.tokens import Tokens, opened_tokens
from coding_agents.errors import CredentialError
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.masked import Masked
from coding_agents.model.provider import Login, LoginKind

_MARGIN_MS = 30_000  # a token that ends so soon counts as ended: a request takes its time


class Held(Masked, frozen=True, kw_only=True):
    """A credential of the user, and the kind of account that it is for."""

    MASKED = frozenset({"secret"})

    login: Login
    source: str
    secret: str
    expires_ms: int | None = None
    account: str = ""


def has_ended(expires_ms: int | None, *, now_ms: int) -> bool:
    """Whether a token with this end is good for no request any more; None never ends."""
    return expires_ms is not None and expires_ms - _MARGIN_MS <= now_ms


def chosen(manifest: AgentManifest, choice: Choice, env: HostEnvironment, *, now_ms: int) -> Held:
    """The credential that was chosen by `login`. Raises CredentialError when it cannot be had."""
    match choice.way:
        case "file":
            return _host_file(manifest, choice.kind, env, now_ms=now_ms)
        case "env":
            return _variable(manifest, choice, env)
        case "key" | "exec":
            return _kept(manifest, choice, env)
        case "tokens":
            return _tokens(manifest, choice, env, now_ms=now_ms)


def host_login(manifest: AgentManifest, env: HostEnvironment, *, now_ms: int) -> Held | None:
    """The login of the agent's own program on this host, of the first kind that it has; None without one.

    Raises CredentialError for a file that may not or cannot be read, and for a login that has expired.
    """
    for login in manifest.login:
        found = found_in_file(login, env)
        if found is not None:
            return _current(manifest, login, found, env, now_ms=now_ms)
    return None


def found_in_file(login: Login, env: HostEnvironment) -> Found | None:
    """The login of this kind in the file of the agent's own program. Raises CredentialError."""
    if not login.file or login.format is None:
        return None
    path = login_path(login, env)
    try:
        data = read_private(path, home=env.home, follow=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _found(login, data, source=shown_path(path, env))


def login_path(login: Login, env: HostEnvironment) -> Path:
    """Where the agent's own program keeps a login of this kind on this host."""
    variable, directory = MOVED.get(login.format, ("", "")) if login.format is not None else ("", "")
    moved = env.environ.get(variable, "") if variable else ""
    if moved.startswith("/") and login.file.startswith(f"{directory}/"):
        return Path(moved) / login.file.removeprefix(f"{directory}/")
    return env.home / login.file


def shown_path(path: Path, env: HostEnvironment) -> str:
    """For people: a path, short where it is below the home directory."""
    return f"~/{path.relative_to(env.home)}" if path.is_relative_to(env.home) else str(path)


def found_in(manifest: AgentManifest, path: Path, env: HostEnvironment) -> tuple[Login, Found]:
    """The account in another file of the same layout. Raises CredentialError when there is none in it."""
    try:
        data = read_private(path, home=env.home, follow=True)
    except FileNotFoundError as error:
        raise CredentialError(f"there is no file {path}", hint="Name the file of a login.") from error
    return found_in_content(manifest, data, source=str(path))


def found_in_content(manifest: AgentManifest, data: bytes, *, source: str) -> tuple[Login, Found]:
    """The account in what a program wrote at a login, told of as `source`. Raises CredentialError without one."""
    for login in manifest.login:
        if login.format is not None and login.kind == "oauth":
            found = _found(login, data, source=source)
            if found is not None:
                return login, found
    raise CredentialError(
        f"{source} holds no login of an account for {manifest.title}",
        hint="It is to be the file that the agent's own program writes at a login.",
    )


def login_of(manifest: AgentManifest, kind: LoginKind, name: str = "") -> Login:
    """The manifest's login of a kind, that of the variable `name` if there is one. Raises CredentialError."""
    fitting = [login for login in manifest.login if login.kind == kind]
    named = [login for login in fitting if name in login.env]
    for login in (*named, *fitting):
        return login
    what = "API key" if kind == "api-key" else "account"
    raise CredentialError(
        f"{manifest.title} knows no login by {what}", hint=f"`coding-agents login {manifest.name} --help`"
    )


def _found(login: Login, data: bytes, *, source: str) -> Found | None:
    if login.format is None:
        raise AssertionError("a file has a format: the manifest was checked")
    try:
        found = read_logins(login.format, data, login.entry)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # without the cause, which may hold what is in the file
        raise CredentialError(
            f"{source} is not what {login.format} writes at a login",
            hint="Log in anew with the agent's own program, or choose another credential: `coding-agents login`.",
        ) from None
    return next((one for one in found if one.kind == login.kind), None)


def _current(
    manifest: AgentManifest, login: Login, found: Found, env: HostEnvironment, *, now_ms: int
) -> Held:
    source = shown_path(login_path(login, env), env)
    if has_ended(found.expires_ms, now_ms=now_ms):
        raise CredentialError(
            f"the login in {source} has expired, and only {manifest.title} itself renews it",
            hint=f"Run `{manifest.command.interactive[0]}` once on this host, "
            f"or give coding-agents a login of its own: `coding-agents login {manifest.name} --help`.",
        )
    return Held(
        login=login,
        source=source,
        secret=found.secret,
        expires_ms=found.expires_ms,
        account=found.account,
    )


def _host_file(manifest: AgentManifest, kind: LoginKind, env: HostEnvironment, *, now_ms: int) -> Held:
    for login in manifest.login:
        found = found_in_file(login, env) if login.kind == kind else None
        if found is not None:
            return _current(manifest, login, found, env, now_ms=now_ms)
    raise CredentialError(
        f"the login of {manifest.title} on this host is gone",
        hint=f"Log in with it, or choose anew: `coding-agents login {manifest.name}`.",
    )


def _variable(manifest: AgentManifest, choice: Choice, env: HostEnvironment) -> Held:
    secret = env.environ.get(choice.name, "")
    if not secret:
        raise CredentialError(
            f"{choice.name}, which the login of {manifest.title} names, is not set",
            hint=f"Set {choice.name}, or choose anew: `coding-agents login {manifest.name}`.",
        )
    login = login_of(manifest, choice.kind, choice.name)
    return Held(login=login, source=choice.name, secret=secret)


def _kept(manifest: AgentManifest, choice: Choice, env: HostEnvironment) -> Held:
    kept, login = _what_is_kept(manifest, choice), login_of(manifest, choice.kind)
    if kept.argv:
        secret = ask_program(kept.argv, env.environ, env.home)
    else:
        secret = SecretStore(env).opened(kept, what=f"the login of {manifest.title}")
    return Held(login=login, source=source_of(manifest, choice), secret=secret)


def _tokens(manifest: AgentManifest, choice: Choice, env: HostEnvironment, *, now_ms: int) -> Held:
    """As they are: that they have ended is no error while they can be renewed, which is not done here."""
    tokens = opened_tokens(SecretStore(env), manifest, _what_is_kept(manifest, choice))
    renewable = bool(tokens.refresh) and login_of(manifest, "oauth").renewal is not None
    return of_tokens(manifest, choice, tokens, now_ms=0 if renewable else now_ms)


def of_tokens(manifest: AgentManifest, choice: Choice, tokens: Tokens, *, now_ms: int) -> Held:
    """What a request carries of tokens that are coding-agents' own. Raises CredentialError when they have ended."""
    if has_ended(tokens.expires_ms, now_ms=now_ms):
        raise CredentialError(
            f"the login of {manifest.title} has expired",
            hint=f"Log in anew: `coding-agents login {manifest.name}`.",
        )
    return Held(
        login=login_of(manifest, "oauth"),
        source=source_of(manifest, choice),
        secret=tokens.access,
        expires_ms=tokens.expires_ms,
        account=tokens.account,
    )


def _what_is_kept(manifest: AgentManifest, choice: Choice) -> Kept:
    if choice.kept is None:
        raise CredentialError(
            f"the login of {manifest.title} is empty",
            hint=f"Choose anew: `coding-agents login {manifest.name}`.",
        )
    return choice.kept


def source_of(manifest: AgentManifest, choice: Choice) -> str:
    """For people: where a credential is that is kept here, or by a program."""
    if choice.kept is not None and choice.kept.argv:
        return f"the program {Path(choice.kept.argv[0]).name}"
    return f"coding-agents login {manifest.name}"
