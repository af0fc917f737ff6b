"""What every test starts from: no network, one thread, the same random numbers."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's library, which reads it once

import pytest
import torch
from hypothesis import settings

# The models in these tests are a few dozen channels wide: waking threads costs more than the products they would share.
# One thread also fixes the order of every sum, so bit-for-bit comparisons do not depend on the machine's core count.
torch.set_num_threads(1)

# The same examples on every machine, no time limit per example (machines differ), and no folder of remembered failures.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
