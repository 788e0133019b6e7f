"""AppArmor and cgroup v2, which the machines of the tests have not, in an emulated guest: tests/emulated/inside."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.product import ROOT


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_what_needs_another_kernel_holds_in_a_guest(pytestconfig: pytest.Config) -> None:
    guest = pytestconfig.getoption("--guest")
    if not guest:
        pytest.skip("needs --guest=DIRECTORY: ./dev guest and ./dev test --full make one")
    argv = (sys.executable, ROOT / "tools/emulated_guest.py", "run", str(guest))
    ended = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False)
    assert ended.returncode == 0, "see above what the guest said"
