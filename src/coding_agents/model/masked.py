"""Frozen values that keep some of their fields out of what is shown of them: secrets, and whatever is long."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Masked(msgspec.Struct, frozen=True):
    """A value whose `repr`, as in a traceback, leaves out the fields that `MASKED` names."""

    MASKED: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        shown = (name for name in self.__struct_fields__ if name not in self.MASKED)
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"
