"""`config set`: change one key of the user's settings file and keep everything else in it as it is."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Table

from coding_agents.config.load import ORGANISATION_FILE, require_allowed
from coding_agents.config.merge import parse_layer, unknown_key
from coding_agents.errors import ConfigError, UsageError
from coding_agents.model.settings import BY_KEY, Setting, Source
from coding_agents.store.files import locked, make_dir, read_record, write_atomic


def set_setting(
    path: Path, key: str, words: Sequence[str], *, organisation_file: Path = ORGANISATION_FILE
) -> str:
    """Set `key` in the settings file `path` (made when missing) and return the value as written.

    `words` is the value as typed: one TOML value or bare text, or the items of a list. Raises UsageError
    for an unknown key or a bad value, ConfigError when the file is broken or the organisation's does not
    allow it; then the file is unchanged.
    """
    setting = BY_KEY.get(key)
    if setting is None:
        raise UsageError(unknown_key(key), hint="`coding-agents config show` lists all keys.")
    value = _typed_value(setting, words)
    document_value = dict.fromkeys(value, True) if key == "require" and isinstance(value, list) else value
    make_dir(path.parent)
    with locked(path.parent / f".{path.name}.lock"):
        edited = _edited(path, key, document_value)
        require_allowed(path, edited, organisation_file=organisation_file)
        write_atomic(path.resolve(), edited.encode())
    return tomlkit.item(document_value).as_string()


def _edited(path: Path, key: str, value: object) -> str:
    try:
        text = read_record(path.resolve()).decode("utf-8")
    except FileNotFoundError:
        text = ""
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text", details=str(error), hint="Save the file as UTF-8 text."
        ) from error
    try:
        document = tomlkit.parse(text)
        section, _, name = key.rpartition(".")
        table = document.setdefault(section, tomlkit.table()) if section else document
        if isinstance(table, Table) or table is document:
            table[name] = value
        edited = tomlkit.dumps(document)
        # tomlkit writes what it was told; what the launcher will read is what counts.
        _, mistakes = parse_layer(tomllib.loads(edited), Source.USER)
    except (TOMLKitError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{path} is not valid TOML: {error}", hint="Correct the file by hand first."
        ) from error
    if mistakes:
        raise ConfigError(
            f"{path}: {mistakes[0].message}",
            details="\n".join(mistake.message for mistake in mistakes[1:]),
            hint="Correct the file by hand first.",
        )
    return edited


def _typed_value(setting: Setting, words: Sequence[str]) -> object:
    """The first reading of what was typed that the setting accepts: TOML (`4`, `["a"]`), then text."""
    if len(words) == 1:
        readings: list[object] = [_scalar(words[0]), words[0]]
    else:
        readings = [list(words)]
    if isinstance(setting.default, tuple):
        readings = [item if isinstance(item, list) else [str(item)] for item in readings]
    problems: list[str] = []
    for reading in readings:
        try:
            setting.parse(reading)
        except ValueError as error:
            problems.append(str(error))
        else:
            return reading
    raise UsageError(
        f"{setting.key}: {problems[0]}",
        hint=f"Write it like: coding-agents config set {setting.key} {setting.word()}",
    )


def _scalar(word: str) -> object:
    try:
        value: object = tomllib.loads(f"value = {word}").get("value")
    except ValueError:
        return word
    return value if isinstance(value, bool | int | float | list | str) else word
