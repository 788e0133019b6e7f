"""A throw-away image in which npm has answered questions about packages: built with the way out of all our builds."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from coding_agents.images.api import BUILDER_LABEL, ImageEngine
from coding_agents.images.build import BuildSettings, drop_builder_stages, npm_arguments
from coding_agents.images.buildlog import BuildLog
from coding_agents.images.data import data_dir, read_tree, write_tree
from coding_agents.images.hostnet import host_certificates
from coding_agents.images.recipes import BUILDER_DIR, NPM_REF
from coding_agents.images.rootfs import scratch_dir
from coding_agents.store.files import make_dir


@contextmanager
def built_view(engine: ImageEngine, specs: Sequence[str], settings: BuildSettings) -> Iterator[str]:
    """The id of an image whose file `/answers` is what npm says of `specs`; it is gone after the block.

    Needs the image NPM_REF. Raises ImageBuildError, with the end of the log.
    """
    tree = read_tree(data_dir("images") / "view")
    builder = {"view.sh": tree["view.sh"], "specs": "".join(f"{spec}\n" for spec in specs).encode()}
    arguments = npm_arguments(settings)
    with built_answer(engine, tree["Dockerfile"], builder, settings, arguments, name="view") as image:
        yield image


@contextmanager
def built_answer(
    engine: ImageEngine,
    dockerfile: bytes,
    builder: Mapping[str, bytes],
    settings: BuildSettings,
    arguments: Mapping[str, str],
    *,
    name: str,
) -> Iterator[str]:
    """The id of an image that `dockerfile` makes of the files `builder` with NPM_REF; it is gone after the block.

    `arguments` are those of the index that it asks. Raises ImageBuildError, with the end of the log.
    """
    stage = secrets.token_hex(8)
    tag = f"coding-agents-{name}:{stage}"
    certificates = host_certificates(settings.environment) if settings.host_ca else b""
    files = {**builder, **({"host-ca.crt": certificates} if certificates else {})}
    make_dir(settings.work_dir)
    try:
        log = BuildLog(settings.work_dir / f"coding-agents-{name}.log", settings.on_line)
        with log.of(tag), scratch_dir(settings.environment) as scratch:
            write_tree({"Dockerfile": dockerfile}, scratch / "context")
            write_tree(files, scratch / "context" / BUILDER_DIR)
            image = engine.build(
                scratch / "context",
                tag=tag,
                build_args={"NPM": NPM_REF, "BUILD": stage, **arguments},
                labels={BUILDER_LABEL: stage},
                on_line=log,
            )
        yield image
    finally:
        drop_builder_stages(engine, stage)
