"""Adapters with one thing wrong: each is refused, and each sentence says what, where, and with which numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from lib_faceid.errors import BrokenWeights, UnsupportedAdapter, WrongWeights
from lib_faceid.weights.detect import recognise

from .layouts import NARROW, Layout, layout
from .meta_file import meta_file

Edit = Callable[[Layout], Layout]


def drop(*parts: str) -> Edit:
    """Without the tensors whose names contain one of these."""
    return lambda shapes: {name: shape for name, shape in shapes.items() if not any(part in name for part in parts)}


def resize(name: str, *shape: int) -> Edit:
    return lambda shapes: {**shapes, _present(name, shapes): shape}


def resize_all(part: str, change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Edit:
    return lambda shapes: {name: change(shape) if part in name else shape for name, shape in shapes.items()}


def add(name: str, *shape: int) -> Edit:
    return lambda shapes: {**shapes, name: shape}


def both(*edits: Edit) -> Edit:
    def edit(shapes: Layout) -> Layout:
        for one in edits:
            shapes = one(shapes)
        return shapes

    return edit


def renumber(change: Callable[[int], int]) -> Edit:
    def rename(name: str) -> str:
        group, number, rest = name.split(".", 2)
        return f"{group}.{change(int(number))}.{rest}" if group == "ip_adapter" else name

    return lambda shapes: {rename(name): shape for name, shape in shapes.items()}


def only_self_attention_lora(shapes: Layout) -> Layout:
    return {name: shape for name, shape in shapes.items() if "_lora" not in name or int(name.split(".")[1]) % 2 == 0}


def _present(name: str, shapes: Layout) -> str:
    assert name in shapes, f"the test resizes {name}, which the layout does not have"
    return name


@dataclass(frozen=True)
class Case:
    edit: Edit
    says: str
    kind: str = "faceid-plusv2"
    base: str = "sd15"
    error: type[WrongWeights] = BrokenWeights


R = "image_proj.perceiver_resampler."
# Narrow SD1.5: levels 32, 64, 128; context 64; rank 4. Narrow SDXL: context 128, resampler 64 wide.
CASES = {
    # layers
    "a K is missing": Case(drop("ip_adapter.7.to_k_ip"), "1 of 344 tensors missing (ip_adapter.7.to_k_ip.weight)"),
    "a V is missing": Case(drop("ip_adapter.31.to_v_ip"), "missing (ip_adapter.31.to_v_ip.weight)"),
    "every V is missing": Case(
        drop("to_v_ip"),
        "16 of 38 tensors missing (ip_adapter.1.to_v_ip.weight, ip_adapter.3.to_v_ip.weight, "
        "ip_adapter.5.to_v_ip.weight and 13 more)",
        "portrait",
    ),
    "a layer is missing": Case(drop("ip_adapter.9."), "for 15 layers (number 9 is missing)"),
    "two layers are missing": Case(
        drop("ip_adapter.9.", "ip_adapter.11."), "for 14 layers; an adapter for SD1.5 has 16"
    ),
    "a layer too many": Case(
        both(add("ip_adapter.33.to_k_ip.weight", 32, 64), add("ip_adapter.33.to_v_ip.weight", 32, 64)), "for 17 layers;"
    ),
    "SDXL with 71 layers": Case(
        both(add("ip_adapter.141.to_k_ip.weight", 128, 128), add("ip_adapter.141.to_v_ip.weight", 128, 128)),
        "for 71 layers; an adapter for SD1.5 has 16 and one for SDXL 70",
        "portrait",
        "sdxl",
    ),
    "SDXL with 69 layers": Case(drop("ip_adapter.139."), "for 69 layers (number 139 is missing)", "faceid", "sdxl"),
    "no K and V at all": Case(drop("to_k_ip", "to_v_ip"), "for 0 layers"),
    "numbers shifted by one": Case(renumber(lambda n: n + 1), "numbers one of its 16 layers 2;", "portrait"),
    "numbers without gaps": Case(renumber(lambda n: n // 2), "numbers one of its 16 layers 0;", "portrait"),
    "numbers with leading zeros": Case(
        lambda shapes: {name.replace("adapter.", "adapter.0"): shape for name, shape in shapes.items()},
        "for 0 layers;",
        "portrait",
    ),
    "order of execution": Case(
        renumber(lambda n: {31: 13}.get(n, n + 2 if n >= 13 else n)),
        "ip_adapter.19.to_k_ip.weight is 128 x 64 instead of 64 x 64",
        "portrait",
    ),
    # their shapes
    "a K is transposed": Case(
        resize("ip_adapter.29.to_k_ip.weight", 64, 32),
        "1 tensor of the wrong shape (ip_adapter.29.to_k_ip.weight is 64 x 32",
    ),
    "a V takes another context": Case(
        resize("ip_adapter.3.to_v_ip.weight", 32, 96), "ip_adapter.3.to_v_ip.weight is 32 x 96 instead of 32 x 64"
    ),
    "K and V disagree": Case(
        resize("ip_adapter.31.to_v_ip.weight", 64, 64), "ip_adapter.31.to_v_ip.weight is 64 x 64 instead of 128 x 64"
    ),
    "a layer has another level's channels": Case(
        both(resize("ip_adapter.11.to_k_ip.weight", 32, 64), resize("ip_adapter.11.to_v_ip.weight", 32, 64)),
        "2 tensors of the wrong shape (ip_adapter.11.to_k_ip.weight is 32 x 64 instead of 128 x 64",
        "portrait",
    ),
    "blocks of one SDXL attention differ": Case(
        resize("ip_adapter.41.to_k_ip.weight", 64, 128), "ip_adapter.41.to_k_ip.weight is 64 x 128", "portrait", "sdxl"
    ),
    "a K without a second axis": Case(
        resize("ip_adapter.1.to_k_ip.weight", 32), "has the shape 32, expected 2 numbers"
    ),
    "all layers take another context": Case(
        resize_all("_ip.weight", lambda shape: (shape[0], 96)),
        "makes tokens of 64 numbers and the layers of ip_adapter take 96",
        "portrait",
    ),
    # the LoRA
    "one LoRA tensor is missing": Case(
        drop("ip_adapter.4.to_out_lora.up"), "missing (ip_adapter.4.to_out_lora.up.weight)"
    ),
    "the LoRA of cross-attention is missing": Case(
        only_self_attention_lora, "128 of 344 tensors missing (ip_adapter.1.to_q_lora"
    ),
    "the LoRA has q alone": Case(drop("to_k_lora", "to_v_lora", "to_out_lora"), "192 of 344 tensors missing"),
    "the LoRA has no ups": Case(drop("lora.up"), "128 of 344 tensors missing (ip_adapter.0.to_q_lora.up.weight"),
    "the LoRA has no downs": Case(drop("lora.down"), "128 of 344 tensors missing (ip_adapter.0.to_q_lora.down.weight"),
    "one LoRA pair has another rank": Case(
        both(resize("ip_adapter.6.to_q_lora.down.weight", 8, 64), resize("ip_adapter.6.to_q_lora.up.weight", 64, 8)),
        "ip_adapter.6.to_q_lora.down.weight is 8 x 64 instead of 4 x 64",
    ),
    "a LoRA up is transposed": Case(
        resize("ip_adapter.8.to_v_lora.up.weight", 4, 128),
        "ip_adapter.8.to_v_lora.up.weight is 4 x 128 instead of 128 x 4",
    ),
    "a cross-attention LoRA reads channels": Case(
        resize("ip_adapter.15.to_k_lora.down.weight", 4, 128),
        "ip_adapter.15.to_k_lora.down.weight is 4 x 128 instead of 4 x 64",
    ),
    "a LoRA of another make": Case(
        add("ip_adapter.0.to_q_lora.alpha"), "1 tensor too many (ip_adapter.0.to_q_lora.alpha)"
    ),
    # the projection
    "latents are missing": Case(drop("latents"), "image_proj.latents is missing, and the sizes", "plus"),
    "latents lost an axis": Case(
        resize("image_proj.latents", 16, 128), "image_proj.latents is 16 x 128 instead of 1 x 128 x 128", "plus"
    ),
    "proj_in is missing": Case(drop("proj_in.weight"), "image_proj.proj_in.weight is missing", "plus"),
    "the norm is narrow": Case(
        both(resize("image_proj.norm.weight", 32), resize("image_proj.norm.bias", 32)),
        "makes tokens of 32 numbers and the layers of ip_adapter take 64",
        "faceid",
    ),
    "the norm does not divide": Case(
        resize("image_proj.norm.weight", 60),
        "image_proj.proj.2.weight has 256 rows, expected a whole number of tokens of 60",
        "faceid",
    ),
    "norm's bias is short": Case(
        resize("image_proj.norm.bias", 63), "image_proj.norm.bias is 63 instead of 64", "base"
    ),
    "the linear does not divide": Case(
        resize("image_proj.proj.weight", 250, 80), "image_proj.proj.weight has 250 rows", "base"
    ),
    "a bias is missing": Case(
        drop("image_proj.proj.2.bias"), "1 of 38 tensors missing (image_proj.proj.2.bias)", "full-face"
    ),
    "the first linear is not square": Case(
        resize("image_proj.proj.0.weight", 64, 80),
        "image_proj.proj.0.weight is 64 x 80 instead of 80 x 80",
        "full-face",
    ),
    "a perceiver block is missing": Case(
        drop(f"{R}layers.2."), f"11 of 344 tensors missing ({R}layers.2.0.norm1.weight"
    ),
    "the first perceiver block is missing": Case(drop(f"{R}layers.0."), f"{R}layers.0.0.to_q.weight is missing"),
    "a perceiver norm is missing": Case(drop(f"{R}layers.1.0.norm2.weight"), f"missing ({R}layers.1.0.norm2.weight)"),
    "keys and values of the perceiver are halved": Case(
        resize(f"{R}layers.3.0.to_kv.weight", 64, 64), f"{R}layers.3.0.to_kv.weight is 64 x 64 instead of 128 x 64"
    ),
    "heads are cut": Case(
        resize(f"{R}layers.0.0.to_q.weight", 100, 64),
        "to_q.weight has 100 rows, expected a whole number of heads of 64",
    ),
    "a feed-forward is wider than the first": Case(
        resize(f"{R}layers.2.1.1.weight", 300, 64), f"{R}layers.2.1.1.weight is 300 x 64 instead of 256 x 64"
    ),
    "the perceiver ends in another width": Case(
        both(
            resize(f"{R}proj_out.weight", 128, 64),
            resize(f"{R}proj_out.bias", 128),
            resize(f"{R}norm_out.weight", 128),
            resize(f"{R}norm_out.bias", 128),
        ),
        "are 64, 64 and 128 wide",
    ),
    "a positional embedding": Case(
        add("image_proj.pos_emb.weight", 257, 80), "1 tensor too many (image_proj.pos_emb", "plus"
    ),
    "vectors of another recogniser": Case(
        resize("image_proj.proj.0.weight", 96, 768),
        "vectors of 768 numbers, and face",
        "faceid",
        error=UnsupportedAdapter,
    ),
    # the numbers themselves
    "an empty tensor": Case(resize("image_proj.norm.bias", 0), "image_proj.norm.bias has the impossible shape 0"),
    "an endless tensor": Case(resize("image_proj.norm.bias", 2**40), "impossible shape 1099511627776"),
    "several things at once": Case(
        both(
            drop("ip_adapter.7.to_k_ip"),
            add("ip_adapter.7.to_k_ip.bias", 64),
            resize("ip_adapter.9.to_k_ip.weight", 1, 1),
        ),
        "1 of 38 tensors missing (ip_adapter.7.to_k_ip.weight); 1 tensor too many (ip_adapter.7.to_k_ip.bias); "
        "1 tensor of the wrong shape (ip_adapter.9.to_k_ip.weight is 1 x 1 instead of 128 x 64)",
        "portrait",
    ),
}


def refuse(case: Case) -> WrongWeights:
    shapes = case.edit(layout(case.kind, case.base, NARROW[case.base]))
    with pytest.raises(WrongWeights) as error:
        recognise(meta_file(shapes, f"ip-adapter-{case.kind}.bin"), digest=lambda: "")
    return error.value


@pytest.mark.parametrize("what", CASES)
def test_it_is_refused_with_the_reason(what: str) -> None:
    case = CASES[what]
    error = refuse(case)
    assert type(error) is case.error
    assert case.says in str(error)
    assert str(error).startswith(f"'ip-adapter-{case.kind}.bin' ")
    assert len(str(error)) < 420


def test_no_two_faults_are_told_in_the_same_words() -> None:
    sentences = [str(refuse(case)) for case in CASES.values()]
    assert len(set(sentences)) == len(sentences) >= 30


def test_whole_numbers_are_no_weights() -> None:
    file = meta_file(
        layout("faceid", "sd15", NARROW["sd15"]), dtype=lambda n: torch.int8 if "1.to_k_ip" in n else torch.float16
    )
    with pytest.raises(BrokenWeights, match=r"int8 numbers in ip_adapter\.1\.to_k_ip\.weight, expected floating point"):
        recognise(file, digest=lambda: "")


def test_numbers_in_names_cannot_ask_for_work() -> None:
    """A file may claim a billionth perceiver block or layer; counting is by tensors, and no digits are believed."""
    hostile = {
        f"{R}layers.{'9' * 5000}.0.to_q.weight": (64, 64),
        f"ip_adapter.{'9' * 5000}.to_k_ip.weight": (32, 64),
        "ip_adapter.٧٧.to_k_ip.weight": (32, 64),
    }
    with pytest.raises(BrokenWeights, match="3 tensors too many"):
        recognise(meta_file(layout("faceid-plusv2", "sd15", NARROW["sd15"]) | hostile, "plusv2.bin"), digest=lambda: "")
