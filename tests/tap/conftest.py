"""A UNet and somebody to draw with it."""

from __future__ import annotations

import pytest

from .. import unets
from ..adapters import make_adapter


@pytest.fixture
def unet():
    return unets.sd15_unet()


@pytest.fixture
def identity(tmp_path):
    return make_adapter(tmp_path, "faceid").identity()
