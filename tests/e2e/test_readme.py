"""The session that README.md shows can be had again."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

from support.product import ROOT, Product

pytestmark = [pytest.mark.engine, pytest.mark.alike]


def test_the_recorded_session_is_what_the_product_prints(product: Product, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("record_session", ROOT / "tools/record_session.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    recorded = "".join(tool.record(product.home / "reader", {**product.env, "PATH": path}))
    shown = (ROOT / "README.md").read_text("utf-8").partition(tool.BEGIN)[2].partition(tool.END)[0]
    assert _kinds(recorded) == _kinds(shown)


def _kinds(session: str) -> list[str]:
    """What stays the same from machine to machine: the commands, and the first word of what they print."""
    text = re.sub(r"\b[0-9a-f]{7,64}\b", "id", re.sub(r"\d{4}-\d\d-\d\dT\S+", "time", session))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [line if line.startswith("$ ") else line.split(" ")[0] for line in lines]
