"""The image verbs of an engine, through its command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from coding_agents.engine.api import ImageState, OnLine
from coding_agents.engine.failures import failure
from coding_agents.engine.inspect import image_digest, parse_image
from coding_agents.engine.program import SLOW_S, EngineProgram, label_flags
from coding_agents.errors import EngineError

BUILD_S = 3600.0


class ImageVerbs(EngineProgram):
    """Images by reference or id; ids always with `sha256:`."""

    def image_id(self, ref: str) -> str | None:
        """The id of a local image, None when there is none."""
        image = self.find_image(ref)
        return None if image is None else image.id

    def find_image(self, ref: str) -> ImageState | None:
        """A local image, None when there is none."""
        document = self.inspect_one("image", ref)
        return None if document is None else parse_image(document)

    def find_images(self, refs: Sequence[str]) -> tuple[ImageState | None, ...]:
        """`find_image` of each of `refs`."""
        documents = self.inspect_all("image", refs)
        if len(documents) == len(refs):  # in the order in which they were asked for
            return tuple(parse_image(document) for document in documents)
        return tuple(self.find_image(ref) for ref in refs)

    def list_images(self, label: str) -> tuple[ImageState, ...]:
        """All images with `label` (`key` or `key=value`); in Podman also the untagged steps of builds."""
        args = ("image", "ls", "--no-trunc", f"--filter=label={label}", "--format={{.ID}}")
        out = self.run("list images", args).text()
        ids = tuple(dict.fromkeys(out.split()))
        return tuple(parse_image(document) for document in self.inspect_all("image", ids))

    def tag(self, image: str, ref: str) -> None:
        """Give an image one more name."""
        self.run(f"tag {image} as {ref}", ("image", "tag", image, ref))

    def remove_image(self, ref: str) -> None:
        """Remove a name, and the image with its last one. Raises EngineError while a container uses it."""
        self.look_up(f"remove image {ref}", ("image", "rm", ref))

    def build(
        self,
        context: Path,
        *,
        tag: str,
        dockerfile: str = "Dockerfile",
        build_args: Mapping[str, str] = {},
        labels: Mapping[str, str] = {},
        on_line: OnLine,
    ) -> str:
        """Build `context` as `tag`; its id. Raises EngineError with the end of the log."""
        args = (
            "build",
            "--force-rm",  # a container that failed would keep its stage, with all that only the builder may see
            f"--tag={tag}",
            f"--file={context / dockerfile}",
            *(f"--build-arg={name}={value}" for name, value in build_args.items()),
            *label_flags(labels),
            str(context),
        )
        from coding_agents.engine.lines import follow  # with asyncio: a tenth of a launch that builds nothing

        command = self.build_command(args, timeout_s=BUILD_S, env=self.features.build_env)
        outcome = follow(command, on_line)
        if not outcome.ok:
            raise failure(f"build {tag}", outcome, self.features)
        return self._made(tag)

    def import_image(self, tar: Path, *, tag: str, changes: Sequence[str] = ()) -> str:
        """One layer from a root file system; `changes` are Dockerfile instructions. The id."""
        args = ("import", *(f"--change={change}" for change in changes), str(tar), tag)
        self.run(f"import {tag}", args, timeout_s=SLOW_S)
        return self._made(tag)

    def pull(self, ref: str, *, on_line: OnLine) -> bool:
        """Fetch an image. False when the registry cannot be reached or does not have it."""
        from coding_agents.engine.lines import follow

        outcome = follow(self.command(("pull", ref), timeout_s=SLOW_S), on_line)
        return outcome.ok

    def _made(self, tag: str) -> str:
        made = self.image_id(tag)
        if made is None:
            raise EngineError(f"the engine reported success but has no image {tag}")
        return image_digest(made)
