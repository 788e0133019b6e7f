"""What of the user's own credentials goes into a session, by their settings alone: nothing where they say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from coding_agents.config.environ import HostEnvironment
from coding_agents.model.masked import Masked
from coding_agents.model.release import Given, parse_key_grant
from coding_agents.model.settings import Settings
from coding_agents.sandbox.guest import CONFIG_DIRECTORY
from coding_agents.supervisor.credential_settings import AUTH_DIRECTORY

_HOSTS = ".ssh/known_hosts"


class SessionCredentials(Masked, frozen=True):
    """`given` is what banner and records tell. By path: `volume` has contents for the configuration volume, `links` of
    the home lead there, `seeds` are files of the home. `problems` are for people: what was named and is not there."""

    MASKED = frozenset({"volume", "seeds"})

    given: Given = Given()
    volume: Mapping[str, tuple[bytes, bool]] = {}
    links: Mapping[str, str] = {}
    seeds: Mapping[str, bytes] = {}
    problems: tuple[str, ...] = ()


def session_credentials(env: HostEnvironment, settings: Settings) -> SessionCredentials:
    """What a new session gets. Raises CredentialError for a file of logins that others can read."""
    if not (settings.credentials_files or settings.credentials_ssh_agent or settings.credentials_release):
        return SessionCredentials()
    from coding_agents.credentials.authfiles import read_auth_files  # most sessions have none of it

    found = read_auth_files(env, settings.credentials_files)
    present = tuple(dict.fromkeys(one.name for one in found))
    problems = [
        f"credentials.files: this host has no file of {name}"
        for name in settings.credentials_files
        if name not in present
    ]
    seeds, unknown = _hosts_known(env, settings.credentials_ssh_agent)
    return SessionCredentials(
        given=Given(settings.credentials_release, settings.credentials_ssh_agent, present),
        volume={_in_volume(one.name, one.inside): (one.content, False) for one in found},
        links={one.inside: f"{CONFIG_DIRECTORY}/{_in_volume(one.name, one.inside)}" for one in found},
        seeds=seeds,
        problems=(*problems, *unknown),
    )


def renewed_files(
    env: HostEnvironment, settings: Settings, given: Given
) -> tuple[Given, Mapping[str, tuple[bytes, bool]]]:
    """At a later start: what is given now, and the files of the volume as they are now; what was taken back is empty.

    Files that the session was not given at its launch have no place inside. Raises CredentialError.
    """
    from coding_agents.credentials.authfiles import places_inside, read_auth_files

    kept = tuple(name for name in given.files if name in settings.credentials_files)
    volume = {
        _in_volume(name, inside): (b"", False) for name in given.files for inside in places_inside(name)
    }
    found = read_auth_files(env, kept)
    volume |= {_in_volume(one.name, one.inside): (one.content, False) for one in found}
    return Given(settings.credentials_release, settings.credentials_ssh_agent, kept), volume


def _hosts_known(env: HostEnvironment, grants: tuple[str, ...]) -> tuple[dict[str, bytes], list[str]]:
    """A known_hosts file for the session, and the hosts whose key the user has never accepted."""
    if not grants:
        return {}, []
    from coding_agents.brokers.sshagent.known import known_line
    from coding_agents.credentials.known_hosts import known_keys

    lines: dict[str, None] = {}
    unknown = []
    for grant in map(parse_key_grant, grants):
        keys = known_keys(env, grant.known_as)
        lines |= dict.fromkeys(known_line(grant.known_as, key) for key in keys)
        if not keys:
            unknown.append(
                f"credentials.ssh_agent: your known_hosts has no key of {grant.host}, so nobody can log in there; "
                f"connect once with ssh from this host"
            )
    return ({_HOSTS: "".join(lines).encode()} if lines else {}), unknown


def _in_volume(name: str, inside: str) -> str:
    return f"{AUTH_DIRECTORY}/{name}/{PurePosixPath(inside).name}"
