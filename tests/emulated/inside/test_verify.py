"""The attacks of `verify`, where AppArmor and cgroup v2 are among what stops them."""

from __future__ import annotations

import pytest

from support.product import Product

pytestmark = pytest.mark.engine


def test_all_that_verify_tries_is_stopped(product: Product) -> None:
    done = product.run("verify", "--quick", "--json", status=None)
    told = done.json
    assert [one for one in told["checks"] if one["status"] != "passed"] == []
    assert (done.status, told["score"]) == (0, 100)
