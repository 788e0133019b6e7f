"""Judge a request's body by its structure: what a provider's service would act on, as opposed to what it only reads.

A provider can be asked to fetch an address, to run code or to call a server: through it, a container without a network
would have one. So each API has a description of its bodies (anthropic.py, openai.py, gemini.py), in which everything
has a kind. What a kind does not know is refused where it says so; elsewhere it is searched for references. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from coding_agents.policy.matrix import Operation

MAX_NODES = 500_000
"""So many values of a body are looked at; a conversation that fills a model's context has some thousands."""

# Names under which the APIs take something by its address, or by the name of something that is kept elsewhere.
_REFERENCE = re.compile(r"(?i)(^|[_a-z])(url|uri|file_?id|file_?ids|connector_?id|container_?id)$")
_EMBEDDED = "data:"


class Finding(msgspec.Struct, frozen=True):
    """Something that asks for more than an answer. `what` names it, `where` is its place in the body."""

    operation: Operation
    what: str
    where: str


class Kind(msgspec.Struct, frozen=True):
    """One kind of object.

    `opaque` fields hold what the client or the model has written: nothing acts on it. `inside` fields hold objects
    of a family. `refused` fields are findings of their own. Any other field is a finding of `closed`, or, without
    one, searched for references.
    """

    opaque: frozenset[str] = frozenset()
    inside: Mapping[str, str] = {}
    refused: Mapping[str, tuple[Operation, str]] = {}
    closed: Operation | None = None


class Family(msgspec.Struct, frozen=True):
    """Objects that stand in one place, told apart by the field `tag` ("" for one kind only).

    `default` is the kind of an object without the tag. What has no kind is a finding of `otherwise`.
    """

    kinds: Mapping[str, Kind]
    otherwise: Operation = Operation.MODEL_UNKNOWN
    tag: str = "type"
    default: str = ""

    def kind_of(self, node: Mapping[str, Any]) -> tuple[str, Kind | None]:
        """The tag of an object, and its kind. A kind's name that ends in `*` stands for all that begin so."""
        tag = node.get(self.tag, self.default) if self.tag else ""
        if not isinstance(tag, str):
            return repr(tag)[:40], None
        for name in (tag, *(name for name in self.kinds if name.endswith("*") and tag.startswith(name[:-1]))):
            if name in self.kinds:
                return tag, self.kinds[name]
        return tag[:80], None


class TooLargeError(Exception):
    """A body with more values than are looked at."""


def judge(body: Mapping[str, Any], root: Kind, families: Mapping[str, Family]) -> Iterator[Finding]:
    """What there is to find in `body`. Raises TooLargeError."""
    left = MAX_NODES
    todo: list[tuple[Any, Family | None, str]] = []
    yield from _fields(body, root, families, "", todo)
    while todo:
        left -= 1
        if left < 0:
            raise TooLargeError
        value, family, where = todo.pop()
        if isinstance(value, list):
            todo += [(item, family, f"{where}[{number}]") for number, item in enumerate(value)]
        elif isinstance(value, dict):
            yield from _object(value, family, families, where, todo)


def _object(
    node: Mapping[str, Any],
    family: Family | None,
    families: Mapping[str, Family],
    where: str,
    todo: list[tuple[Any, Family | None, str]],
) -> Iterator[Finding]:
    if family is None:
        yield from _references(node, where)
        todo += [(value, None, f"{where}.{name}") for name, value in node.items()]
        return
    tag, kind = family.kind_of(node)
    if kind is None:
        yield Finding(family.otherwise, tag or "an object without a type", where)
        return
    yield from _fields(node, kind, families, where, todo)


def _fields(
    node: Mapping[str, Any],
    kind: Kind,
    families: Mapping[str, Family],
    where: str,
    todo: list[tuple[Any, Family | None, str]],
) -> Iterator[Finding]:
    for name, value in node.items():
        place = f"{where}.{name[:80]}" if where else name[:80]
        if name in kind.opaque or value is None:
            continue
        if name in kind.inside:
            todo.append((value, families[kind.inside[name]], place))
        elif name in kind.refused:
            operation, what = kind.refused[name]
            yield Finding(operation, what, place)
        elif kind.closed is not None:
            yield Finding(kind.closed, name[:80], place)
        else:
            yield from _references({name: value}, where)
            todo.append((value, None, place))


def _references(node: Mapping[str, Any], where: str) -> Iterator[Finding]:
    for name, value in node.items():
        if _REFERENCE.search(name) and not _is_embedded(value):
            yield Finding(Operation.MODEL_REFERENCE, name[:80], f"{where}.{name[:80]}")


def _is_embedded(value: object) -> bool:
    """Whether a reference carries what it names; an object below it is looked at by itself."""
    if isinstance(value, str):
        return value[:5].lower() == _EMBEDDED
    return value is None or isinstance(value, dict)
