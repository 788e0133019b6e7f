"""What building images needs of a container engine, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

INPUTS_LABEL = "coding-agents.inputs"
"""Label of each image of ours: SHA-256 of everything that it was made from."""

BUILDER_LABEL = "coding-agents.stage"
"""Label of what a build leaves beside its result (stages with npm, the host's certificates): the build's own id."""

PACKAGES_LABEL = "coding-agents.packages"
"""Label of each image with packages of MCP servers: the digests of their locks, with commas between them."""

OnLine = Callable[[str], None]


class ImageRef(msgspec.Struct, frozen=True):
    """An image as it is used: by `id`, which a later build under the same `ref` does not change."""

    id: str
    ref: str


class ImageRow(Protocol):
    """One local image as the engine lists it; `tags` as the engine spells them, none for an untagged one."""

    @property
    def id(self) -> str: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


class ImageEngine(Protocol):
    """The part of `engine.Engine` that is used here; declared here, as siblings do not import each other.

    `image_id`, `find_image` and each of `find_images` are None for a missing image; a failing `build`, `import_image`
    or `remove_image` raises EngineError. `pull` is False when no registry has or answers for the image.
    `list_images` gives all images with the label KEY or KEY=VALUE, untagged ones included.
    """

    def image_id(self, ref: str) -> str | None: ...

    def find_image(self, ref: str) -> ImageRow | None: ...

    def find_images(self, refs: Sequence[str]) -> Sequence[ImageRow | None]: ...

    def list_images(self, label: str) -> Sequence[ImageRow]: ...

    def pull(self, ref: str, *, on_line: OnLine) -> bool: ...

    def import_image(self, tar: Path, *, tag: str, changes: Sequence[str] = ()) -> str: ...

    def build(
        self,
        context: Path,
        *,
        tag: str,
        dockerfile: str = "Dockerfile",
        build_args: Mapping[str, str] = ...,
        labels: Mapping[str, str] = ...,
        on_line: OnLine,
    ) -> str: ...

    def remove_image(self, ref: str) -> None: ...


class TaggingEngine(ImageEngine, Protocol):
    """An ImageEngine that gives an image one more name."""

    def tag(self, image: str, ref: str) -> None: ...
