"""An adapter file from end to end: every kind in every container, memory while reading, refusals of
``load_adapter``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from lib_faceid.core.unet_map import layers
from lib_faceid.errors import AmbiguousWeights, NotAnAdapter, UnsupportedAdapter, WrongWeights
from lib_faceid.weights.adapter import load_adapter

from .adapters import make_adapter
from .containers import save_flat_bin, save_nested_bin, save_safetensors, save_training_bin
from .fresh_python import run_code
from .layouts import KINDS, NARROW, layout, published_layout, random_tensors

WRITERS = {
    "nested.bin": save_nested_bin,
    "flat.bin": save_flat_bin,
    "training.bin": save_training_bin,
    "flat.safetensors": save_safetensors,
}
RUN = [kind for kind in KINDS if not kind.startswith(("instantid", "kolors", "pulid"))]


def mixed(name: str) -> torch.dtype:
    """portrait-unnorm is published so: projection in float32, keys and values in float16."""
    return torch.float32 if name.startswith("image_proj.") else torch.float16


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
@pytest.mark.parametrize("kind", RUN)
def test_every_container_tells_the_same(tmp_path, kind, base):
    tensors = random_tensors(layout(kind, base, NARROW[base]), dtype=mixed)
    variant = "faceid-plusv2" if kind.startswith("faceid-plus") else kind
    seen = []
    for ending, write in WRITERS.items():
        adapter = load_adapter(write(tmp_path / f"{kind}-{ending}", tensors), variant=variant)
        found = adapter.recognised
        seen.append((found.variant, found.base, found.context_width, found.projection, found.tokens, found.lora_rank))
        for name, tensor in adapter.projection().state_dict().items():
            assert torch.equal(tensor, tensors[f"image_proj.{name}"])
        for n, k, v in adapter.layer_weights():
            assert torch.equal(k, tensors[f"ip_adapter.{2 * n + 1}.to_k_ip.weight"])
            assert torch.equal(v, tensors[f"ip_adapter.{2 * n + 1}.to_v_ip.weight"])
        assert [n for n, _, _ in adapter.layer_weights()] == [layer.n for layer in layers(base)]
    assert all(one == seen[0] for one in seen)


def test_what_an_adapter_says_of_itself(tmp_path):
    made = make_adapter(tmp_path, "faceid-plusv2")
    adapter = made.load()
    assert (adapter.variant, adapter.base, adapter.tokens) == ("faceid-plusv2", "sd15", 4)
    assert (adapter.needs_clip, adapter.has_lora) == (True, True)
    assert adapter.title == "FaceID Plus v2 for SD1.5"
    assert adapter.recognised.how == "by its file name"
    assert adapter.digest == hashlib.sha256(made.path.read_bytes()).hexdigest()


def test_the_digest_follows_the_file(tmp_path):
    made = make_adapter(tmp_path, "faceid")
    before = made.load().digest
    save_nested_bin(made.path, {name: tensor + 1 for name, tensor in made.tensors.items()})
    assert made.load().digest != before


def test_projection_computes_in_float32_from_16_bit_weights(tmp_path):
    tensors = random_tensors(layout("faceid-plusv2", "sd15", NARROW["sd15"]), dtype=torch.float16)
    exact = {name: tensor.float() for name, tensor in tensors.items()}
    vectors, hidden = torch.randn(1, 512), torch.randn(1, 6, 80)
    results = []
    for folder, content in (("half", tensors), ("full", exact)):
        (tmp_path / folder).mkdir()
        adapter = load_adapter(save_nested_bin(tmp_path / folder / "plusv2.bin", content))
        with torch.no_grad():
            results.append(adapter.projection().parts(vectors, hidden))
    for half, full in zip(*results, strict=True):
        assert half.dtype == torch.float32
        assert torch.equal(half, full)


@pytest.mark.parametrize("kind", ["instantid", "kolors-plus", "kolors-faceid-plus", "pulid-v1", "pulid-v1.1"])
def test_families_of_later_are_named_and_refused(tmp_path, kind):
    small = NARROW["sdxl"]
    special = {"kolors-plus": {"heads": 1, "dim": 128}, "kolors-faceid-plus": {"token_width": 192}}
    path = save_safetensors(
        tmp_path / "model.safetensors", random_tensors(layout(kind, "sdxl", small, **special.get(kind, {})))
    )
    family = kind.partition("-")[0]
    with pytest.raises(UnsupportedAdapter, match=f"(?i){family}"):
        load_adapter(path, variant=None)


def test_between_what_to_choose(tmp_path):
    made = make_adapter(tmp_path, "faceid-plusv2")
    nameless = made.path.rename(tmp_path / "my face model.bin")
    with pytest.raises(AmbiguousWeights, match=r"faceid-plus.*faceid-plusv2|faceid-plusv2.*faceid-plus"):
        load_adapter(nameless)
    chosen = load_adapter(nameless, variant="faceid-plus")
    assert (chosen.variant, chosen.recognised.how) == ("faceid-plus", "as you chose")


def test_the_lora_instead_of_the_adapter(tmp_path):
    from lib_faceid.weights.lora import write_companion

    made = make_adapter(tmp_path, "faceid-plusv2")
    path = write_companion(made.load().lora(), tmp_path / "ip-adapter-faceid-plusv2_sd15_lora.safetensors")
    with pytest.raises(
        NotAnAdapter, match=r"the LoRA that belongs to ip-adapter-faceid-plusv2_sd15\.bin, not the adapter"
    ):
        load_adapter(path)


def test_a_saved_person_instead_of_the_adapter(tmp_path):
    path = make_adapter(tmp_path, "faceid").identity().save(tmp_path / "anna.safetensors")
    with pytest.raises(NotAnAdapter, match="a saved person"):
        load_adapter(path)


def test_a_variant_that_does_not_exist(tmp_path):
    with pytest.raises(WrongWeights, match="plusv3"):
        load_adapter(make_adapter(tmp_path, "faceid").path, variant="faceid-plusv3")


def write_sparse(path: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    """A safetensors file of float16 zeros that takes no disk space. Returns its size."""
    header, at = {}, 0
    for name, shape in shapes.items():
        count = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    return 8 + len(text) + at


MEASURE = """
import sys, torch
import lib_faceid
from lib_faceid.core.tokens import Tokens, project_kv
from lib_faceid.weights.adapter import load_adapter
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
tokens = Tokens(torch.zeros(4, 2048), torch.zeros(4, 2048))
tokens.cond @ torch.zeros(2048, 1280)
before = peak()
kv = project_kv([tokens], load_adapter(sys.argv[1], variant="faceid-plusv2").layer_weights())
print(len(kv[0]), peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc, Linux only")
def test_a_file_of_one_and_a_half_gigabytes_is_read_a_layer_at_a_time(tmp_path):
    """Keys and values of all 70 layers of SDXL Plus v2 at its published size; a layer's two matrices take 10 MB."""
    path = tmp_path / "ip-adapter-faceid-plusv2_sdxl.safetensors"
    size = write_sparse(path, published_layout("ip-adapter-faceid-plusv2_sdxl.bin"))
    assert size > 1.48e9
    count, megabytes = run_code(MEASURE, str(path)).split()
    assert int(count) == 70
    assert float(megabytes) < 80
