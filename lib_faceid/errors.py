"""What can go wrong, by what the person can do about it.

Every message is one or two plain sentences: the file or thing, what was found, what was expected, what to do.
"""


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


class FaceIDWarning(UserWarning):
    """The picture is made, and something about it is not what was asked for."""
