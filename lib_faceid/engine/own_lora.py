"""Finding the LoRA that belongs to an identity, and saying so when it cannot be found."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import FaceIDError, WrongWeights
from ..library.identity import Identity
from ..weights.adapter import Adapter, load_adapter
from ..weights.lora import Lora
from .acts import Act


def find_lora(act: Act, tell: Callable[[str], None]) -> Lora | None:
    """The LoRA inside the adapter the act's identity was made with; None where there is none or it is switched off.

    Raises FaceIDError when a strength was asked for and there is no LoRA, or when ``act.adapter`` is another file than
    the identity's. ``tell`` hears that a LoRA is missing.
    """
    if act.lora == 0.0:
        return None
    origin = act.identity.origin
    if not origin.has_lora:
        _refuse_strength(
            act, f"{origin.adapter_name} ({origin.title}) carries no LoRA: leave lora out, or set it to 0."
        )
        return None
    adapter = act.adapter or _own_adapter(act.identity)
    if adapter is None:
        missing = f"the LoRA inside {origin.adapter_name} (sha256 {origin.adapter_sha256[:12]}) is not at hand"
        remedy = "Pass adapter=, the loaded file, or lora=0.0 to do without."
        _refuse_strength(act, f"lora={act.lora} was asked for, but {missing}. {remedy}")
        tell(f"This identity is used without its LoRA, so the likeness will be weaker: {missing}. {remedy}")
        return None
    if adapter.digest != origin.adapter_sha256:
        raise FaceIDError(
            f"adapter= is {adapter.path.name} (sha256 {adapter.digest[:12]}), but this identity was made with "
            f"{origin.adapter_name} (sha256 {origin.adapter_sha256[:12]}). Pass that file, or lora=0.0."
        )
    return adapter.lora()


def _own_adapter(identity: Identity) -> Adapter | None:
    """The file the identity was made with, if this process made it and the file is still the same."""
    if identity.adapter_path is None:
        return None
    try:
        adapter = load_adapter(identity.adapter_path, variant=identity.origin.variant)
    except WrongWeights:
        return None
    return adapter if adapter.digest == identity.origin.adapter_sha256 else None


def _refuse_strength(act: Act, sentence: str) -> None:
    if act.lora is not None:
        raise FaceIDError(sentence)
