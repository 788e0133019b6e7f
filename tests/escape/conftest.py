"""A user of the product for each module of attacks; its sessions are shared by the tests that only look."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.engines import EngineUnderTest
from support.product import Product, user_of


@pytest.fixture(scope="module")
def owner(engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with user_of(engine.name, tmp_path_factory.mktemp("owner")) as user:
        yield user
