"""The one place that imports cv2: on first use, and with a sentence when it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import MissingPackage


def load_cv2() -> Any:
    """The module ``cv2``. Raises MissingPackage; a missing libGL on a server is the usual second reason."""
    try:
        return import_module("cv2")
    except ImportError as error:
        raise MissingPackage(
            f"The package opencv-python cannot be imported ({error}). Install it with 'pip install opencv-python', or "
            "the system library it names."
        ) from error
