"""A fresh user of the product for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import EngineUnderTest
from support.faults import ordinary_user
from support.product import Product, make_repo, user_of


@pytest.fixture
def product(engine: EngineUnderTest, tmp_path: Path) -> Iterator[Product]:
    with user_of(engine.name, tmp_path) as user:
        yield user


@pytest.fixture
def repo(product: Product) -> Path:
    """A repository whose name no other test has: sessions are named after it, and tests share the engine."""
    return make_repo(product.home / f"p{uuid.uuid4().hex[:8]}")


@pytest.fixture
def ordinary(engine: EngineUnderTest) -> Iterator[Product]:
    """A fresh user who is not root."""
    with ordinary_user(engine.name) as user:
        yield user
