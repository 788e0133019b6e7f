"""Reading settings: where the files are, who may have written them, and how their mistakes are told.

All mistakes of a file are reported together, with their lines. The repository's file is hostile: it is
read bounded and never through a link, and can only tighten (config.merge).
"""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from coding_agents.config.environ import HostEnvironment
from coding_agents.config.merge import Layer, Mistake, merge, parse_layer, unknown_key
from coding_agents.errors import ConfigError, StoreError, UntrustedSettingError, UsageError
from coding_agents.model.settings import BY_KEY, SETTINGS, Origin, Settings, Source
from coding_agents.model.values import Value
from coding_agents.store.files import read_record

ORGANISATION_FILE = Path("/etc/coding-agents/config.toml")
PROJECT_FILE = ".coding-agents.toml"

_LIMIT = 64 * 1024
# Finding a line parses each prefix of the file, so a hostile file must not have too many of them.
_MOST_LINES = 1000
_PREFIX = "CODING_AGENTS_"
_TESTS = "CODING_AGENTS_TEST_"
# Variables of ours that are not settings: what a session and a terminal in it are told, and ./dev's own.
OTHER_VARIABLES = frozenset(
    _PREFIX + name for name in ("SESSION", "TERMINAL", "NO_SERVICES", "REQUIRE_ENGINES", "FUZZ_SECONDS")
)


def load_settings(
    env: HostEnvironment,
    *,
    project: Path | None = None,
    flags: Mapping[str, object] | None = None,
    organisation_file: Path = ORGANISATION_FILE,
) -> Settings:
    """The effective settings: defaults, organisation, user, project, environment, command line.

    `project` is the root of the repository, `flags` maps keys to what was given on the command line
    (None: not given). Raises ConfigError, UntrustedSettingError for the repository's file, UsageError
    for a flag.
    """
    files = [(Source.ORGANISATION, organisation_file), (Source.USER, env.user_config)]
    if project is not None:
        files.append((Source.PROJECT, project / PROJECT_FILE))
    texts: dict[str, str] = {}
    layers: list[Layer] = []
    for source, path in files:
        text = _read(path, source=source, uid=env.uid)
        if text is not None:
            texts[str(path)] = text
            layers.append(_file_layer(path, source, text))
    layers.append(_environment_layer(env.environ))
    layers.append(_flag_layer(flags or {}))
    settings, refused = merge(layers)
    _report(refused, texts)
    return _name_origins(settings)


def find_project(start: Path) -> Path | None:
    """The root of the repository around `start`, by its `.git`; None outside of any."""
    return next((directory for directory in (start, *start.parents) if (directory / ".git").exists()), None)


def line_of(text: str, key: str) -> int | None:
    """The line on which the statement that sets the dotted `key` begins, or None.

    tomllib gives no positions, but a TOML document is valid after each whole statement: the statement
    that brings a key in is the one between the last valid prefix without the key and the first with it.
    """
    lines = text.splitlines(keepends=True)
    if len(lines) > _MOST_LINES:
        return None
    begins = 1
    for count in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue
        if _has(document, key.split(".")):
            return begins
        begins = count + 1
    return None


def _has(document: object, path: list[str]) -> bool:
    for name in path:
        if not isinstance(document, dict) or name not in document:
            return False
        document = document[name]
    return True


def _read(path: Path, *, source: Source, uid: int) -> str | None:
    """The text of a settings file, None when there is none. Raises ConfigError."""
    try:
        data = read_record(path if source is Source.PROJECT else path.resolve(), limit=_LIMIT)
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except StoreError as error:
        raise ConfigError(error.message, hint="Settings are a regular file of at most 64 KiB.") from error
    trusted = {Source.ORGANISATION: (0,), Source.USER: (0, uid)}.get(source)
    if trusted is not None and (info.st_uid not in trusted or info.st_mode & stat.S_IWOTH):
        raise ConfigError(
            f"{path} can be changed by others than its user",
            hint=f"Make it owned by uid {trusted[-1]} and not writable for everybody.",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text", details=str(error), hint="Save the file as UTF-8 text."
        ) from error


def _file_layer(path: Path, source: Source, text: str) -> Layer:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # ValueError: also a number of more digits than Python converts.
        raise ConfigError(
            f"{path} is not valid TOML: {str(error) or 'it is nested too deeply'}",
            hint='Correct the file: a text stands in quotes, as in agent = "claude".',
        ) from error
    layer, mistakes = parse_layer(document, source, where=str(path))
    if mistakes:
        raise ConfigError(
            _headline(str(path), mistakes),
            details=_listing(mistakes, text),
            hint=_correction(mistakes[0].key),
        )
    return layer


def _environment_layer(environ: Mapping[str, str]) -> Layer:
    by_variable = {setting.variable: setting for setting in SETTINGS}
    values: dict[str, Value] = {}
    wrong: list[str] = []
    hint = ""
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or name.startswith(_TESTS) or name in OTHER_VARIABLES:
            continue
        setting = by_variable.get(name)
        try:
            if setting is None:
                # A mistyped CODING_AGENTS_NETWORK_MODE must not silently leave the network open.
                raise ValueError(unknown_key(name.removeprefix(_PREFIX).lower().replace("_", ".", 1)))
            values[setting.key] = setting.parse(environ[name])
        except ValueError as error:
            wrong.append(f"{name}: {error}")
            hint = hint or (
                f"Unset {name}, or write it like {name}={setting.word()}." if setting else f"Unset {name}."
            )
    if wrong:
        raise ConfigError(f"environment variable {wrong[0]}", details="\n".join(wrong[1:]), hint=hint)
    return Layer(Source.ENVIRONMENT, "environment", values)


def _flag_layer(flags: Mapping[str, object]) -> Layer:
    values: dict[str, Value] = {}
    for key, given in flags.items():
        if given is None:
            continue
        setting = BY_KEY[key]
        try:
            values[key] = setting.parse(given)
        except ValueError as error:
            flag = setting.flag or key
            raise UsageError(f"{flag}: {error}", hint=f"Write it like {flag} {setting.word()}.") from error
    return Layer(Source.COMMAND_LINE, "command line", values)


def _report(refused: tuple[tuple[Layer, Mistake], ...], texts: Mapping[str, str]) -> None:
    if not refused:
        return
    layer = refused[0][0]
    mistakes = [mistake for other, mistake in refused if other is layer]
    headline = _headline(layer.where, mistakes)
    details = _listing(mistakes, texts.get(layer.where, ""))
    if layer.source is Source.PROJECT:
        hint = f"Set it in your own settings instead, or remove the line from {PROJECT_FILE}."
        raise UntrustedSettingError(headline, details=details, hint=hint)
    if layer.source is Source.COMMAND_LINE:
        raise UsageError(headline, details=details, hint="Leave the flag out.")
    raise ConfigError(headline, details=details, hint="`coding-agents config show` names the managed keys.")


def _correction(key: str) -> str:
    """What to do about a wrong line of a settings file."""
    setting = BY_KEY.get(key)
    return (
        f"Write it like {key} = {setting.written()}."
        if setting
        else "`coding-agents config show` lists all keys."
    )


def _headline(where: str, mistakes: tuple[Mistake, ...] | list[Mistake]) -> str:
    return f"{where}: {mistakes[0].message if len(mistakes) == 1 else f'{len(mistakes)} mistakes'}"


def _listing(mistakes: tuple[Mistake, ...] | list[Mistake], text: str) -> str:
    """One line for each mistake in the order of the file; lines are unknown for environment and flags."""
    numbered = [(line_of(text, mistake.key) or 0, mistake.message) for mistake in mistakes]
    return "\n".join(f"line {line}: {message}" if line else message for line, message in sorted(numbered))


def _name_origins(settings: Settings) -> Settings:
    """`settings` whose origins name the very variable or flag; files are named by their layer."""
    origins = dict(settings.origins)
    for key, origin in settings.origins.items():
        if origin.source is Source.ENVIRONMENT:
            origins[key] = Origin(origin.source, "$" + BY_KEY[key].variable)
        elif origin.source is Source.COMMAND_LINE:
            origins[key] = Origin(origin.source, BY_KEY[key].flag or key)
    return replace(settings, origins=origins)
