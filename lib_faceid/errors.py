"""What can go wrong, by what the person can do about it.

Every message is one or two plain sentences: the file or thing, what was found, what was expected, what to do.
"""

import sys
import warnings


class FaceIDError(Exception):
    """Base of everything this package raises on purpose; ``str(error)`` is the sentence shown to the person."""


class WrongWeights(FaceIDError):
    """A weight file cannot be used; the subclasses say which remedy helps."""


class BrokenWeights(WrongWeights):
    """The file is damaged, incomplete or unsafe: get it again."""


class NotAnAdapter(WrongWeights):
    """The file is readable and is something else: choose another file."""


class AmbiguousWeights(WrongWeights):
    """Tensors cannot tell which variant this is: pass ``variant=``."""


class UnsupportedAdapter(WrongWeights):
    """A known family that this version does not run."""


class WrongBase(WrongWeights):
    """Adapter and UNet (or identity and UNet) belong to different base models."""


class WrongEncoder(WrongWeights):
    """The file is not a whole CLIP vision encoder: choose another file."""


class UnsupportedUNet(FaceIDError):
    """The model's cross-attention layers are not those of Stable Diffusion 1.x or XL."""


class BadIdentity(FaceIDError, ValueError):
    """An identity was asked for with inputs that do not fit the adapter, or an identity file is damaged."""


class RowsMismatch(FaceIDError, ValueError):
    """The UNet was called with rows that cannot be matched to prompt sides."""


class MaskMismatch(FaceIDError, ValueError):
    """A region mask cannot be brought to a layer's size."""


class FaceNotApplied(FaceIDError):
    """The UNet ran and the identity did not reach it."""


class MissingPackage(FaceIDError):
    """A Python package is not installed, or is installed and cannot be imported: install or repair it."""


class BadPhoto(FaceIDError, ValueError):
    """What was given is not a photo that can be searched: wrong type, shape or size. Give another one."""


class NoFaceFound(FaceIDError):
    """The photo was searched and the face asked for is not there: use another photo, or choose another face."""


class BadRequest(FaceIDError, ValueError):
    """A unit of a request has a field that is not known, or a value that makes no sense."""


class FaceIDWarning(UserWarning):
    """The picture is made, and something about it is not what was asked for."""


def warn_user(sentence: str) -> None:
    """Warn with the location of the caller's own code, so that Python shows it once for each place that causes it."""
    level, frame = 2, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("lib_faceid", "contextlib"):
        level, frame = level + 1, frame.f_back
    warnings.warn(sentence, FaceIDWarning, stacklevel=level)
