"""The reference page of the checks: `python -m coding_agents.verify.describe > docs/reference/verify.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from coding_agents.model.limits import Limits
from coding_agents.verify.catalogue import all_checks
from coding_agents.verify.report import GROUPS
from coding_agents.verify.scene import Scene

_HEAD = """\
# Checks of `verify`
Made by `python -m coding_agents.verify.describe` from the checks themselves. `mode` is the kind of session that is
attacked: `restricted`, `allow-all`, or `small`, which only the full run has. What is marked with * is also tried with
`--baseline`.
"""
SCENE = Scene(
    secret="", decoy="", foreign={"commit": "", "blob": "", "unreachable": ""}, branch="verify/restricted", cage="",
    markers=(), limits=Limits(),
)  # fmt: skip
"""No scene of anybody's: for what checks say of themselves."""


def reference_page() -> str:
    """The page, with a table for each attack class."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD.rstrip()
    checks = all_checks(SCENE)
    for group, title in GROUPS.items():
        yield f"\n## {title}\nClass `{group}`.\n\n| check | mode | tried | stopped by |\n| --- | --- | --- | --- |"
        for one in checks:
            if one.group == group:
                star = " *" if one.baseline and "allow-all" in one.modes else ""
                modes = ", ".join(f"`{mode}`" for mode in one.modes)
                yield f"| `{one.id}`{star} | {modes} | {one.tried} | {one.stopped_by} |"


if __name__ == "__main__":
    sys.stdout.write(reference_page())
