"""Value classes that are quick to define: what we use of `dataclasses`, without its price at every start.

`dataclasses` imports `inspect` and compiles three functions for each class: a third of the time in which the
bridge, the entry point and the holder load our code, and a tenth of a launch's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["asdict", "dataclass", "replace"]

if TYPE_CHECKING:
    from dataclasses import asdict, dataclass, replace
else:

    def dataclass(*, frozen):
        """As `dataclasses.dataclass`: fields by annotation, values compared and hashed by fields.

        A default is one object for all; there are no `field`, `InitVar` or `__post_init__`.
        """

        def make(cls):
            names, defaults = _fields(cls)
            cls.__match_args__ = names
            cls.__init__ = _init(cls.__name__, names, defaults)
            cls.__eq__, cls.__hash__, cls.__repr__ = _equal, (_hash if frozen else None), _shown
            if frozen:
                cls.__setattr__, cls.__delattr__ = _refuse, _refuse
            return cls

        return make

    def replace(value, **changes):
        """A copy with `changes`. Raises TypeError for a field that does not exist."""
        return type(value)(**{**_values(value), **changes})

    def asdict(value):
        """The fields by name, those of values inside likewise."""
        return {
            name: asdict(one) if hasattr(one, "__match_args__") else one
            for name, one in _values(value).items()
        }


def _fields(cls: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    annotations: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        annotations.update(getattr(base, "__annotations__", {}))
    names = tuple(name for name, kind in annotations.items() if not str(kind).startswith("ClassVar"))
    return names, {name: getattr(cls, name) for name in names if hasattr(cls, name)}


def _init(kind: str, names: tuple[str, ...], defaults: dict[str, Any]) -> Any:
    needed = max((at for at, name in enumerate(names, 1) if name not in defaults), default=0)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        if not kwargs and needed <= len(args) <= len(names):  # rules are made so, a hundred thousand at once
            self.__dict__.update(defaults)
            self.__dict__.update(zip(names, args))
            return
        values = {**defaults, **dict(zip(names, args)), **kwargs}
        if len(args) > len(names) or not set(kwargs).isdisjoint(names[: len(args)]):
            raise TypeError(f"{kind} takes {', '.join(names)}, each once")
        if len(values) != len(names) or not values.keys() >= set(names):
            wrong = ", ".join(sorted(set(names) ^ values.keys()))
            raise TypeError(f"{kind} takes {', '.join(names)}; missing or unknown: {wrong}")
        self.__dict__.update(values)

    return __init__


def _values(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__match_args__}


def _equal(self: Any, other: object) -> bool:
    return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(tuple(_values(self).values()))


def _shown(self: Any) -> str:
    return f"{type(self).__name__}({', '.join(f'{name}={one!r}' for name, one in _values(self).items())})"


def _refuse(self: Any, name: str, *_value: object) -> None:
    raise AttributeError(f"cannot change {name} of a {type(self).__name__}")
