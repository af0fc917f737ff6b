"""Small random people, made without any adapter, and comparisons that look at every tensor."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lib_faceid.core.tokens import LayerKV, Tokens
from lib_faceid.core.unet_map import layers
from lib_faceid.library.identity import Identity
from lib_faceid.library.parts import Origin, Part
from lib_faceid.library.person import SavedPerson
from lib_faceid.library.store import Store

TIME = "2024-05-01T10:00:00+00:00"
ORIGIN = Origin("faceid-plusv2", "FaceID Plus v2 for SD1.5", "a.bin", "ab" * 32, True, 2, TIME, "cd" * 32)


def make_part(base: str, seed: int, tokens: int = 4) -> Part:
    """Every size another, so that nothing fits by chance: text of 10, layers of 3 + n channels."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    kv = {layer.n: LayerKV(draw(2, tokens, 3 + layer.n), draw(2, tokens, 3 + layer.n)) for layer in layers(base)}
    return Part(Tokens(draw(tokens, 10), draw(tokens, 10)), kv)


def make_one(base: str = "sd15", seed: int = 0, *, clip: bool = False, **values: Any) -> Identity:
    """An identity; with ``clip`` it has a structure factor."""
    vectors = torch.randn(2, 512, generator=torch.Generator().manual_seed(seed + 50))
    parts = {"main": make_part(base, seed), "clip": make_part(base, seed + 100) if clip else None}
    return Identity(base, 10, ORIGIN, **{"structure": 0.4, "vectors": vectors, **parts, **values})


def make_someone(name: str = "anna", *bases: str, seed: int = 0, **values: Any) -> SavedPerson:
    identities = tuple(make_one(base, seed) for base in bases or ("sd15",))
    return SavedPerson(name, identities, created="2024-06-01T00:00:00+00:00", **values)


def same(a: Identity, b: Identity) -> bool:
    """Bit for bit, the name left out."""
    left, right = all_of(a), all_of(b)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def all_of(identity: Identity) -> dict[str, torch.Tensor]:
    """Every number of an identity under names of its own, not the file's."""
    found = {"structure": torch.tensor(identity.structure)}
    if identity.vectors is not None:
        found["vectors"] = identity.vectors
    for title, part in (("main", identity.main), ("clip", identity.clip)):
        if part is not None:
            found |= {f"{title} cond": part.tokens.cond, f"{title} uncond": part.tokens.uncond}
            found |= {f"{title} {n} keys": kv.k for n, kv in part.kv.items()}
            found |= {f"{title} {n} values": kv.v for n, kv in part.kv.items()}
    return found


def old_file(path: Path, identity: Identity, **changes: str) -> Path:
    """Format 1, written here from its description: one base, names without it, every value of the origin as JSON."""
    tensors = {"vectors": identity.vectors}
    for title, part in (("main", identity.main), ("clip", identity.clip)):
        if part is not None:
            tensors |= {f"{title}.cond": part.tokens.cond, f"{title}.uncond": part.tokens.uncond}
            for layer in layers(identity.base):
                tensors |= {f"{title}.{layer.n}.{kind}": getattr(part.kv[layer.n], kind) for kind in "kv"}
    origin = {key: json.dumps(value) for key, value in asdict(identity.origin).items() if key != "lora_sha256"}
    plain = {"format": "faceid-identity-1", "base": identity.base, "structure": "0.4", "name": "old anna"}
    save_file(tensors, path, {**plain, **origin, **changes})
    return path


def rewrite_header(path: Path, change: Any, data: bytes | None = None) -> Path:
    """Change a safetensors file's header in place, as nobody's library would write it."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    changed = change(header)
    text = json.dumps(header if changed is None else changed).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + (content[8 + length :] if data is None else data))
    return path


def contents(store: Store) -> dict[str, bytes]:
    """Every file of the folder."""
    return {path.name: path.read_bytes() for path in store.folder.iterdir()}
