"""Layers of settings laid over each other. Pure: files, environment and flags come in already parsed.

Two rules protect the user. A repository's own file may only tighten what the user allows. A key that
the organisation manages may only be tightened by anybody else. Whatever breaks a rule is a `Mistake`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from coding_agents.model.settings import BY_KEY, SETTINGS, Origin, Setting, Settings, Source, Tighten
from coding_agents.model.suggest import close_to
from coding_agents.model.values import Value

_SECTIONS = {key.split(".")[0] for key in BY_KEY if "." in key}


class Mistake(msgspec.Struct, frozen=True):
    """One thing wrong in a layer. `widens` marks an attempt to allow more than the layers below."""

    key: str
    message: str
    widens: bool = False


class Layer(msgspec.Struct, frozen=True):
    """The values that one source sets; `where` names its file, and `managed` the keys it binds."""

    source: Source
    where: str = ""
    values: Mapping[str, Value] = msgspec.field(default_factory=dict)
    managed: frozenset[str] = frozenset()


def parse_layer(
    document: Mapping[str, object], source: Source, *, where: str = ""
) -> tuple[Layer, tuple[Mistake, ...]]:
    """The layer that a parsed TOML document describes, and all that is wrong with the document."""
    values: dict[str, Value] = {}
    mistakes: list[Mistake] = []
    managed: frozenset[str] = frozenset()
    for key, raw in _flatten(document):
        if key == "managed" and source is Source.ORGANISATION:
            managed, wrong = _parse_managed(raw)
            mistakes.extend(wrong)
        elif (setting := BY_KEY.get(key)) is None:
            mistakes.append(Mistake(key, unknown_key(key)))
        else:
            try:
                values[key] = setting.parse(raw)
            except ValueError as error:
                mistakes.append(Mistake(key, f"{key}: {error}"))
    return Layer(source, where, values, managed), tuple(mistakes)


def merge(layers: Iterable[Layer]) -> tuple[Settings, tuple[tuple[Layer, Mistake], ...]]:
    """Lay `layers` over the defaults in the order of their sources. What breaks a rule is left out."""
    values: dict[str, Value] = {setting.key: setting.default for setting in SETTINGS}
    origins = {setting.key: Origin(Source.DEFAULT) for setting in SETTINGS}
    bounds: dict[str, Value] = {}
    mistakes: list[tuple[Layer, Mistake]] = []
    for layer in sorted(layers, key=lambda layer: layer.source):
        for key, given in layer.values.items():
            setting = BY_KEY[key]
            value = _union(values[key], given)
            problem = _refusal(setting, value, layer=layer, current=values[key], bound=bounds.get(key))
            if problem:
                mistakes.append((layer, Mistake(key, problem, widens=True)))
            else:
                values[key] = value
                origins[key] = Origin(layer.source, layer.where)
        bounds.update({key: values[key] for key in layer.managed})
    # The table and the fields of Settings are the same set, which a test holds; mypy cannot see it.
    fields: dict[str, Any] = {BY_KEY[key].field: value for key, value in values.items()}
    return Settings(**fields, origins=origins, managed=frozenset(bounds)), tuple(mistakes)


def unknown_key(key: str) -> str:
    """What to say about a key that is not in the table."""
    close = close_to(key, [*BY_KEY, *_SECTIONS])
    return f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def _refusal(setting: Setting, value: Value, *, layer: Layer, current: Value, bound: Value | None) -> str:
    """Why `layer` may not set `value`, or "" when it may."""
    direction = setting.tighten.value
    if bound is not None and not setting.is_tighter(value, bound):
        return f"{setting.key} is managed by your organisation and can be changed {direction}"
    if layer.source is Source.PROJECT:
        if setting.tighten is Tighten.NEVER:
            return f"{setting.key} cannot be set by a repository"
        if not setting.is_tighter(value, current):
            return f"{setting.key} can be changed by a repository only {direction}"
    return ""


def _union(below: Value, given: Value) -> Value:
    """Lists of several layers add up, so that no layer can drop a requirement of another one."""
    if isinstance(below, tuple) and isinstance(given, tuple):
        return tuple(dict.fromkeys((*below, *given)))
    return given


def _flatten(document: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    """Keys with their section in front; a section that is not ours stays whole, to be named as unknown."""
    for key, value in document.items():
        if key in _SECTIONS and isinstance(value, Mapping):
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def _parse_managed(raw: object) -> tuple[frozenset[str], list[Mistake]]:
    if not isinstance(raw, list) or not all(isinstance(key, str) for key in raw):
        return frozenset(), [Mistake("managed", "managed is not a list of keys")]
    wrong = [Mistake("managed", f"managed: {unknown_key(key)}") for key in raw if key not in BY_KEY]
    return frozenset(key for key in raw if key in BY_KEY), wrong
