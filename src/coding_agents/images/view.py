"""A throw-away image in which npm has answered questions about packages: built with the way out of all our builds."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
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
    stage = secrets.token_hex(8)
    try:
        yield _build(engine, specs, settings, stage)
    finally:
        drop_builder_stages(engine, stage)


def _build(engine: ImageEngine, specs: Sequence[str], settings: BuildSettings, stage: str) -> str:
    tree = read_tree(data_dir("images") / "view")
    builder = {"view.sh": tree["view.sh"], "specs": "".join(f"{spec}\n" for spec in specs).encode()}
    if settings.host_ca and (host_ca := host_certificates(settings.environment)):
        builder["host-ca.crt"] = host_ca
    tag = f"coding-agents-view:{stage}"
    make_dir(settings.work_dir)
    log = BuildLog(settings.work_dir / "coding-agents-view.log", settings.on_line)
    with log.of(tag), scratch_dir(settings.environment) as scratch:
        write_tree({"Dockerfile": tree["Dockerfile"]}, scratch / "context")
        write_tree(builder, scratch / "context" / BUILDER_DIR)
        return engine.build(
            scratch / "context",
            tag=tag,
            build_args={"NPM": NPM_REF, "BUILD": stage, **npm_arguments(settings)},
            labels={BUILDER_LABEL: stage},
            on_line=log,
        )
