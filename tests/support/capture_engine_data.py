"""Captures what a real engine says about itself and our containers, for the files in tests/unit/data/engine.

    PYTHONPATH=src:tests python -m support.capture_engine_data docker IMAGE

Only the keys that `engine.inspect` reads are kept: the rest names machines and registries.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from coding_agents.engine.find import find_engine
from coding_agents.sandbox.plan import plan_session
from coding_agents.sandbox.seccomp import profile
from coding_agents.sandbox.spec import Network, SandboxSpec
from support.specs import plan_input

_TARGET = Path(__file__).parent.parent / "unit" / "data" / "engine"
_KEEP = {
    "container": {
        "Id", "Name", "Image", "Path", "Args", "Mounts", "State", "Config", "HostConfig", "NetworkSettings",
        "BoundingCaps", "EffectiveCaps", "AppArmorProfile",
    },
    "docker-info": {
        "ServerVersion", "SecurityOptions", "CgroupVersion", "Runtimes", "DefaultRuntime", "DockerRootDir",
        "OSType", "Architecture", "NCPU", "MemTotal", "MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsQuota",
        "ID", "ClientInfo",
    },
    "podman-info": {"host", "store", "version"},
    "image": {"Id", "RepoTags", "Size", "Created", "Config", "Labels"},
}  # fmt: skip


def main(name: str, ref: str) -> None:
    engine = find_engine(name, os.environ)
    image = engine.image_id(ref)
    assert image is not None, ref
    facts = replace(plan_input(), image=image, base_image=image)
    plan = plan_session(facts)
    assert plan.holder is not None
    assert plan.network is not None
    info = "{{json .}}" if name == "docker" else "json"
    _write(f"{name}-info", engine.run("ask", ("info", f"--format={info}")).stdout, _KEEP[f"{name}-info"])
    _write(f"{name}-image", engine.run("ask", ("image", "inspect", ref)).stdout, _KEEP["image"])
    engine.create_network(plan.network.name, labels={})
    try:
        holder = engine.create(plan.holder)
        sandbox = engine.create(plan.sandbox.joined_to(holder))
        alone = engine.create(_alone(plan.sandbox))
        for what, container in (("holder", holder), ("sandbox", sandbox), ("restricted", alone)):
            document = engine.run("ask", ("container", "inspect", container)).stdout
            _write(f"{name}-{what}", document, _KEEP["container"])
    finally:
        for what in (plan.sandbox.name, f"{plan.sandbox.name}-alone", plan.holder.name):
            engine.remove(what, force=True)
        engine.remove_network(plan.network.name)
        for volume in (plan.workspace.name, plan.home.name, plan.guest_volume):
            engine.remove_volume(volume)


def _alone(spec: SandboxSpec) -> SandboxSpec:
    restricted = plan_session(plan_input(network=Network.RESTRICTED)).sandbox
    return replace(restricted, image=spec.image, name=f"{spec.name}-alone")


def _write(name: str, document: bytes, keep: Iterable[str]) -> None:
    parsed = json.loads(document)
    one = parsed[0] if isinstance(parsed, list) else parsed
    kept = {key: value for key, value in one.items() if key in set(keep)}
    kept.get("Config", {}).pop("CreateCommand", None)
    (kept.get("Config", {}).get("Annotations") or {}).pop(
        "io.podman.annotations.seccomp", None
    )  # a path of ours
    host = kept.get("HostConfig", {})
    if "SecurityOpt" in host:
        host["SecurityOpt"] = [_profile_left_out(option) for option in host["SecurityOpt"]]
    _TARGET.mkdir(parents=True, exist_ok=True)
    (_TARGET / f"{name}.json").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def _profile_left_out(option: str) -> str:
    """A profile by its name: where it lies, and its 34 kB, are of this checkout alone."""
    for one in ("agent", "ptrace", "holder"):
        for form in ("text", "path"):
            if option == f"seccomp={getattr(profile(one), form)}":
                return f"seccomp=@{form} {one}@"
    return option


def profile_put_back(option: str) -> str:
    """What `_profile_left_out` took out."""
    found = re.fullmatch(r"seccomp=@(text|path) (\w+)@", option)
    return f"seccomp={getattr(profile(found[2]), found[1])}" if found is not None else option


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
