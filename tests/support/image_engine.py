"""An engine for image tests: keeps what it was given instead of building it, and fails when told to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coding_agents.errors import EngineError

_counter = itertools.count(1)


@dataclass(frozen=True)
class Row:
    """An image of `ImageEngineStub`."""

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    size_bytes: int = 1000


@dataclass
class ImageEngineStub:
    """See `images.api.ImageEngine`. `contexts` holds, by tag, every file of the last build and its mode."""

    registry: frozenset[str] = frozenset()
    fail_build_of: str = ""
    fail_tag_of: str = ""
    says: list[str] = field(default_factory=lambda: ["npm ERR! self signed certificate in certificate chain"])
    in_use: frozenset[str] = frozenset()
    rows: dict[str, Row] = field(default_factory=dict)
    contexts: dict[str, dict[str, tuple[bytes, int]]] = field(default_factory=dict)
    arguments: dict[str, Mapping[str, str]] = field(default_factory=dict)
    built: list[str] = field(default_factory=list)
    during_build: Callable[[], None] = lambda: None

    def add(self, tag: str, labels: Mapping[str, str]) -> str:
        """A finished image; the one that had the tag loses it."""
        for row in list(self.rows.values()):
            if tag and tag in row.tags:
                self.rows[row.id] = Row(row.id, tuple(one for one in row.tags if one != tag), row.labels)
        image = f"sha256:{next(_counter):064x}"
        self.rows[image] = Row(image, (tag,) if tag else (), labels)
        return image

    def image_id(self, ref: str) -> str | None:
        return next((row.id for row in self.rows.values() if ref == row.id or ref in row.tags), None)

    def find_image(self, ref: str) -> Row | None:
        image = self.image_id(ref)
        return self.rows[image] if image else None

    def list_images(self, label: str) -> Sequence[Row]:
        key, _, value = label.partition("=")
        return [row for row in self.rows.values() if key in row.labels and value in ("", row.labels[key])]

    def pull(self, ref: str, *, on_line: Callable[[str], None]) -> bool:
        if ref in self.registry:
            self.add(ref, {})
        return ref in self.registry

    def import_image(self, tar: Path, *, tag: str, changes: Sequence[str] = ()) -> str:
        self.built.append(tag)
        self.contexts[tag] = {"root.tar": (tar.read_bytes(), 0)}
        labels = [change.removeprefix("LABEL ") for change in changes if change.startswith("LABEL ")]
        return self.add(tag, dict(label.split("=", 1) for label in labels))

    def build(
        self,
        context: Path,
        *,
        tag: str,
        dockerfile: str = "Dockerfile",
        build_args: Mapping[str, str] = {},
        labels: Mapping[str, str] = {},
        on_line: Callable[[str], None],
    ) -> str:
        assert (context / dockerfile).is_file()
        self.contexts[tag] = {
            path.relative_to(context).as_posix(): (path.read_bytes(), path.stat().st_mode & 0o777)
            for path in context.rglob("*")
            if path.is_file()
        }
        self.arguments[tag] = dict(build_args)
        on_line(f"Step 1 : {tag}")
        self.during_build()
        if "BUILD" in build_args:
            self.add("", {"coding-agents.stage": build_args["BUILD"]})
        if tag == self.fail_build_of:
            for line in self.says:
                on_line(line)
            said = "\n".join(self.says[-5:])  # as a real engine's error, which shows the end of its output
            raise EngineError(
                f"cannot build {tag}", details=f"docker build\nexit status 1 after 0.1 s\n{said}"
            )
        self.built.append(tag)
        return self.add(tag, labels)

    def find_images(self, refs: Sequence[str]) -> Sequence[Row | None]:
        return [self.find_image(ref) for ref in refs]

    def tag(self, image: str, ref: str) -> None:
        if ref == self.fail_tag_of:
            raise EngineError(f"cannot tag {image} as {ref}")
        for row in list(self.rows.values()):
            others = tuple(tag for tag in row.tags if tag != ref)
            mine = (ref,) if row.id == image else ()
            self.rows[row.id] = Row(row.id, (*others, *mine), row.labels)

    def remove_image(self, ref: str) -> None:
        image = self.image_id(ref)
        if image in self.in_use:
            raise EngineError(f"cannot remove image {ref}", details="a container uses it")
        if image is not None:
            row = self.rows[image]
            others = tuple(tag for tag in row.tags if tag != ref)
            if others and ref != image:
                self.rows[image] = Row(image, others, row.labels)
            else:
                del self.rows[image]
