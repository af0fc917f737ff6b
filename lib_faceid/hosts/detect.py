"""Which WebUI this is, and what lives as long as its process."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

from ..engine.people import People

PEOPLE = People()
"""People made for earlier pictures. Kept over "Reload UI", gone with the process."""

logger = logging.getLogger("faceid")


@cache
def is_supported() -> bool:
    """False in the Forge family, whose UNet is another one; said once in the log."""
    if find_spec("modules_forge") is None:
        return True
    logger.warning("FaceID: this version works in AUTOMATIC1111 1.10; Forge is not supported yet, so it stays away.")
    return False
