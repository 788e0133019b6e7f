"""Layers of settings laid over each other. Pure: files, environment and flags come in already parsed.

Three rules protect the user. A repository's own file may only tighten what the user allows. A key that
the organisation manages may only be tightened by anybody else. What it requires nobody else may do without.
Whatever breaks a rule is a `Mistake`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from coding_agents.model.settings import (
    BY_KEY,
    SETTINGS,
    Origin,
    Setting,
    Settings,
    Source,
    Tighten,
    render_value,
)
from coding_agents.model.suggest import close_to
from coding_agents.model.values import Value

_LONGEST_SHOWN = 80  # characters of a refused value
_SECTIONS = {key.split(".")[0] for key in BY_KEY if "." in key}


class Mistake(msgspec.Struct, frozen=True):
    """One thing wrong in a layer. `widens` marks an attempt to allow more than the layers below.

    `against` is where the rule or the value stands that it breaks, by its layer and there under the key `other`.
    """

    key: str
    message: str
    widens: bool = False
    against: Origin | None = None
    other: str = ""


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
        elif key in values:  # in its table, and as one word in quotes
            mistakes.append(Mistake(key, f"{key} is given twice"))
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
    organisation = Layer(Source.ORGANISATION)
    bounds: dict[str, _Bound] = {}
    mistakes: list[tuple[Layer, Mistake]] = []
    for layer in sorted(layers, key=lambda layer: layer.source):
        if layer.source is Source.ORGANISATION:
            organisation = layer
        for key, given in layer.values.items():
            setting = BY_KEY[key]
            adds = setting.adds or (layer.source is Source.PROJECT and setting.tighten is Tighten.ADD)
            value = _union(values[key], given) if adds else given
            before = _Bound(values[key], origins[key])
            problem = _not_managed(setting, given, value, bounds.get(key)) or _not_demanded(
                key, given, organisation
            )
            if problem is None and layer.source is Source.PROJECT:
                problem = _not_tighter(setting, given, value, before)
            if problem is not None:
                mistakes.append((layer, problem))
            else:
                values[key] = value
                origins[key] = Origin(layer.source, layer.where)
        bounds.update({key: _Bound(values[key], origins[key], layer.where) for key in layer.managed})
    # The table and the fields of Settings are the same set, which a test holds; mypy cannot see it.
    fields: dict[str, Any] = {BY_KEY[key].field: value for key, value in values.items()}
    settings = Settings(
        **fields,
        origins=origins,
        managed=frozenset(bounds),
        organisation=organisation.where,
        demanded=_demanded(organisation),
    )
    return settings, tuple(mistakes)


def unknown_key(key: str) -> str:
    """What to say about a key that is not in the table."""
    close = close_to(key, [*BY_KEY, *_SECTIONS])
    return f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else "")


class _Bound(msgspec.Struct, frozen=True):
    """A value that later layers may only tighten, where it was set, and the file that says so."""

    value: Value
    origin: Origin
    managed_in: str = ""


def _not_managed(setting: Setting, given: Value, value: Value, bound: _Bound | None) -> Mistake | None:
    """What is wrong with giving a key that the organisation manages the `value`, of which `given` is new."""
    if bound is None or setting.is_tighter(value, bound.value):
        return None
    never = setting.tighten is Tighten.NEVER
    said = (
        f"{_assigned(setting, given)} is refused: your organisation manages {setting.key}, and it "
        f"{'cannot be changed' if never else f'can be changed {setting.tighten.value} only'}"
        f"; it is {render_value(setting, bound.value)}"
    )
    if bound.origin.source is Source.ORGANISATION:
        return Mistake(setting.key, said, widens=True, against=bound.origin, other=setting.key)
    managed_in = Origin(Source.ORGANISATION, bound.managed_in)
    return Mistake(setting.key, said, widens=True, against=managed_in, other="managed")


def _not_demanded(key: str, given: Value, organisation: Layer) -> Mistake | None:
    """What is wrong with doing without protections that the organisation requires."""
    if key != "best_effort" or not isinstance(given, tuple):
        return None
    refused = [name for name in given if name in _demanded(organisation)]
    if not refused:
        return None
    said = f"{_assigned(BY_KEY[key], given)} is refused: your organisation requires {', '.join(refused)}"
    against = Origin(Source.ORGANISATION, organisation.where)
    return Mistake(key, said, widens=True, against=against, other="require")


def _not_tighter(setting: Setting, given: Value, value: Value, current: _Bound) -> Mistake | None:
    """What is wrong with a repository's setting `value`, of which `given` is new."""
    assigned = _assigned(setting, given)
    if setting.tighten is Tighten.NEVER:
        return Mistake(
            setting.key, f"{assigned} is refused: a repository cannot set {setting.key}", widens=True
        )
    if setting.is_tighter(value, current.value):
        return None
    said = (
        f"{assigned} is refused: a repository can change {setting.key} {setting.tighten.value} only"
        f"; it is {render_value(setting, current.value)}"
    )
    return Mistake(setting.key, said, widens=True, against=current.origin, other=setting.key)


def _demanded(organisation: Layer) -> frozenset[str]:
    required = organisation.values.get("require", ())
    return frozenset(required) if isinstance(required, tuple) else frozenset()


def _assigned(setting: Setting, value: Value) -> str:
    shown = render_value(setting, value)
    return f"{setting.key} = {shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + '…'}"


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
