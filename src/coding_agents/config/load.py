"""Reading settings: where the files are, and how their mistakes are told.

All mistakes of a file are reported together, with their lines, and what they break with its file and line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from coding_agents.config.environ import HostEnvironment
from coding_agents.config.merge import Layer, Mistake, merge, parse_layer, unknown_key
from coding_agents.config.reading import read_settings_file
from coding_agents.errors import ConfigError, UntrustedSettingError, UsageError
from coding_agents.model.settings import BY_KEY, SETTINGS, Origin, Settings, Source
from coding_agents.model.values import Value

ORGANISATION_FILE = Path("/etc/coding-agents/config.toml")
PROJECT_FILE = ".coding-agents.toml"

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
        text = read_settings_file(path, source=source, uid=env.uid)
        if text is not None:
            texts[str(path)] = text
            layers.append(_file_layer(path, source, text))
    layers.append(_environment_layer(env.environ))
    layers.append(_flag_layer(flags or {}))
    settings, refused = merge(layers)
    _report(refused, texts)
    return _name_origins(settings)


def require_allowed(path: Path, text: str, *, organisation_file: Path = ORGANISATION_FILE) -> None:
    """Raise ConfigError when `text` as the user's file `path` breaks a rule of the organisation, or has mistakes."""
    layers = [_file_layer(path, Source.USER, text)]
    texts = {str(path): text}
    organisation = read_settings_file(organisation_file, source=Source.ORGANISATION, uid=0)
    if organisation is not None:
        texts[str(organisation_file)] = organisation
        layers.append(_file_layer(organisation_file, Source.ORGANISATION, organisation))
    _report(merge(layers)[1], texts)


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
    mistakes = [
        replace(mistake, message=mistake.message + _place(mistake, texts))
        for other, mistake in refused
        if other is layer
    ]
    headline = _headline(_where(layer, mistakes), mistakes)
    details = _listing(mistakes, texts.get(layer.where, ""))
    if layer.source is Source.PROJECT:
        hint = f"Set it in your own settings instead, or remove the line from {PROJECT_FILE}."
        raise UntrustedSettingError(headline, details=details, hint=hint)
    if layer.source is Source.COMMAND_LINE:
        raise UsageError(headline, details=details, hint="Leave the flag out.")
    hint = "Remove it: what your organisation has decided, " + (
        "its own file says once." if layer.source is Source.ORGANISATION else "you can tighten at most."
    )
    raise ConfigError(headline, details=details, hint=hint)


def _where(layer: Layer, mistakes: list[Mistake]) -> str:
    """What to name as the place of `mistakes`: the file, or the variable or flag when it is but one."""
    if layer.source not in (Source.ENVIRONMENT, Source.COMMAND_LINE) or len(mistakes) > 1:
        return layer.where
    return _name(Origin(layer.source), mistakes[0].key)


def _place(mistake: Mistake, texts: Mapping[str, str]) -> str:
    """The file and line, variable or flag that a mistake breaks, in brackets."""
    against = mistake.against
    if against is None:
        return ""
    if against.source is Source.DEFAULT:
        return " (the default)"
    if against.where not in texts:
        return f" ({_name(against, mistake.other)})"
    line = line_of(texts[against.where], mistake.other)
    return f" ({against.where}{f', line {line}' if line else ''})"


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
    origins = {key: replace(origin, where=_name(origin, key)) for key, origin in settings.origins.items()}
    return replace(settings, origins=origins)


def _name(origin: Origin, key: str) -> str:
    """Where a value of `key` stands: its file, or the very variable or flag."""
    if origin.source is Source.ENVIRONMENT:
        return "$" + BY_KEY[key].variable
    if origin.source is Source.COMMAND_LINE:
        return BY_KEY[key].flag or key
    return origin.where
