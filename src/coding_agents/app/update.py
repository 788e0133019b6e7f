"""`images update`: a newer version of what an agent's image is made of, checked end to end before anybody gets it.

The file of pins is what counts: it is replaced as a whole, once the new image has passed its check, and an image
follows from it. Whatever fails before leaves pins and images as they were; sessions keep the image that they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from typing import Literal

import msgspec
from msgspec.structs import replace

from coding_agents.config.environ import HostEnvironment
from coding_agents.errors import EngineError, ImageUpdateError
from coding_agents.images.api import INPUTS_LABEL, ImageRef, TaggingEngine
from coding_agents.images.build import BuildSettings, build_recipes
from coding_agents.images.manifests import AgentSource, find_agent, pins_file
from coding_agents.images.newest import NpmView, newest
from coding_agents.images.recipes import CANDIDATE, PREVIOUS, Recipe, agent_recipes, agent_ref, base_recipe
from coding_agents.model.manifest import AgentManifest
from coding_agents.model.packages import Packages, release_key
from coding_agents.model.pins import PinFile, render_pins, with_pins
from coding_agents.store.files import locked, make_dir, remove_durably, write_atomic

Check = Callable[[AgentManifest, tuple[ImageRef, ImageRef]], None]
"""Tries an agent with the images of the base and of itself. Raises ImageUpdateError."""


class Updated(msgspec.Struct, frozen=True):
    """What became of one agent; versions by package before and after."""

    agent: str
    state: Literal["newest", "available", "updated", "rolled-back"]
    before: dict[str, str]
    after: dict[str, str]


class Updater(msgspec.Struct, frozen=True):
    """Updates for one user on one engine. `check` tries a candidate, `view` asks npm, `today` is the day of pins."""

    env: HostEnvironment
    engine: TaggingEngine
    builds: BuildSettings
    view: NpmView
    check: Check
    today: date

    def update(self, agent: str, *, version: str = "", only_look: bool = False) -> Updated:
        """Pin the newest packages of `agent`, or `version` of the one that it is named after.

        Raises ImageUpdateError, ManifestError and what builds raise; then nothing has changed.
        """
        with self._alone(agent):
            source = self._find(agent)
            found = self._candidates(source, version)
            before, after = _versions(source.manifest.packages), _versions(found)
            if before == after:
                if not only_look:
                    previous = source.pins.previous if source.pins is not None and not source.unused else {}
                    self._write(_pins(agent, found, previous))
                return Updated(agent, "newest", before, after)
            if not only_look:
                self._switch_to(source, found)
            return Updated(agent, "available" if only_look else "updated", before, after)

    def roll_back(self, agent: str) -> Updated:
        """Back to the pins before the latest update, and to their image. Raises ImageUpdateError without such."""
        with self._alone(agent):
            source = self._find(agent)
            shipped = find_agent(agent, self.env.agents_dir)
            earlier: PinFile | None = None
            if source.pins is not None and source.pins.previous:
                earlier = _pins(agent, source.pins.previous, {})
                earlier = None if with_pins(shipped.manifest, earlier)[1] else earlier
            target = earlier.packages if earlier is not None else shipped.manifest.packages
            before, after = _versions(source.manifest.packages), _versions(target)
            if before == after or not _in_force(source):
                raise ImageUpdateError(
                    f"agent {agent!r} has no earlier pins",
                    hint="An older version is pinned with `coding-agents images update --version V`.",
                )
            recipes = _recipes(source, target)
            kept = self.engine.find_image(agent_ref(agent, PREVIOUS))
            with self._candidate(recipes[-1]) as candidate:
                if kept is not None and kept.labels.get(INPUTS_LABEL) == candidate.inputs:
                    image = kept.id
                else:
                    image = build_recipes(self.engine, (*recipes[:-1], candidate), self.builds).id
                self._commit(agent, earlier, image)
            with suppress(EngineError):
                self.engine.remove_image(agent_ref(agent, PREVIOUS))
            return Updated(agent, "rolled-back", before, after)

    def _find(self, agent: str) -> AgentSource:
        source = find_agent(agent, self.env.agents_dir, self.env.pins_dir)
        if not source.manifest.packages:
            raise ImageUpdateError(
                f"agent {agent!r} pins no packages, so there is nothing to update",
                hint="`coding-agents agents list` shows what each agent is made of.",
            )
        return source

    def _candidates(self, source: AgentSource, version: str) -> Packages:
        """The packages that npm has now; never an older one unless it was asked for by `version`."""
        now = source.manifest.packages
        wanted = {_main(source.manifest): version} if version else {}
        found = dict(newest(now, self.view, today=self.today, wanted=wanted))
        for name, package in found.items():
            if package.version == now[name].version:
                if package.integrity != now[name].integrity:
                    raise ImageUpdateError(
                        f"npm now gives another integrity of {' '.join(package.shown)} than the pin",
                        hint="Do not trust that registry: the bytes of a published version never change.",
                    )
            elif _is_older(package.version, now[name].version):
                shown = f"{' '.join(package.shown)}, older than {now[name].shown[1]}"
                if name in wanted:
                    self.builds.on_line(f"going back to {shown}")
                else:
                    self.builds.on_line(f"npm's newest is {shown}, which stays")
                    found[name] = replace(now[name], pinned=self.today)
        return found

    def _switch_to(self, source: AgentSource, found: Packages) -> None:
        agent, manifest = source.manifest.name, replace(source.manifest, packages=found)
        recipes = _recipes(source, found)
        with self._candidate(recipes[-1]) as candidate:
            image = build_recipes(self.engine, (*recipes[:-1], candidate), self.builds)
            base = build_recipes(self.engine, recipes[:1], self.builds)
            self.builds.on_line(
                f"checking {agent} {', '.join(_versions(found).values())} in a session of its own"
            )
            self.check(manifest, (base, image))
            previous = source.manifest.packages if _in_force(source) else {}
            old = self.engine.image_id(agent_ref(agent))
            if old is not None:
                self.engine.tag(old, agent_ref(agent, PREVIOUS))
            self._commit(agent, _pins(agent, found, previous), image.id)

    def _commit(self, agent: str, pins: PinFile | None, image: str) -> None:
        """Put pins into force, then their image under its name. Where that fails, the pins are again what they were.

        Killed in between, the next launch builds from pins that have passed their check.
        """
        path = pins_file(self.env.pins_dir, agent)
        before = path.read_bytes() if path.exists() else None
        try:
            self._write(pins, agent)
            self.engine.tag(image, agent_ref(agent))
        except BaseException:
            if before is None:
                remove_durably(path)
            else:
                write_atomic(path, before)
            raise

    def _write(self, pins: PinFile | None, agent: str = "") -> None:
        if pins is None:
            remove_durably(pins_file(self.env.pins_dir, agent))
        else:
            write_atomic(pins_file(self.env.pins_dir, pins.agent), render_pins(pins))

    @contextmanager
    def _alone(self, agent: str) -> Iterator[None]:
        make_dir(self.env.pins_dir)
        with locked(self.env.pins_dir / f"{agent}.lock", timeout_s=0):
            yield

    @contextmanager
    def _candidate(self, recipe: Recipe) -> Iterator[Recipe]:
        """The recipe under the name of a candidate, which is gone after the block; its image lives on by another."""
        ref = recipe.ref.rpartition(":")[0] + f":{CANDIDATE}"
        try:
            yield replace(recipe, ref=ref)
        finally:
            with suppress(EngineError):
                self.engine.remove_image(ref)


def _recipes(source: AgentSource, packages: Packages) -> tuple[Recipe, ...]:
    base = base_recipe()
    return (base, *agent_recipes(replace(source, manifest=replace(source.manifest, packages=packages)), base))


def _in_force(source: AgentSource) -> bool:
    return source.pins is not None and not source.unused


def _pins(agent: str, packages: Packages, previous: Packages) -> PinFile:
    return PinFile(agent=agent, packages=packages, previous=previous)


def _main(manifest: AgentManifest) -> str:
    """The directory of the package that `--version` means."""
    if manifest.name in manifest.packages:
        return manifest.name
    if len(manifest.packages) == 1:
        return next(iter(manifest.packages))
    raise ImageUpdateError(
        f"agent {manifest.name!r} is made of several packages, and none is called as it is",
        hint="Update without --version.",
    )


def _versions(packages: Packages) -> dict[str, str]:
    return dict(package.shown for package in packages.values())


def _is_older(one: str, other: str) -> bool:
    first, second = release_key(one), release_key(other)
    return first is not None and second is not None and first < second
