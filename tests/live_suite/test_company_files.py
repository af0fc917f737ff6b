"""The files for the cases beside other extensions: LoRAs as WebUIs load them, and a copy for ControlNet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_faceid.weights.adapter import load_adapter

from ..live import fixtures

ATTENTION = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the fixtures for a small SD1.5 checkpoint."""
    folder = tmp_path_factory.mktemp("models")
    wanted = {"ip-adapter", "Lora", "ControlNet"}
    for path, make in fixtures.files(folder, 8).items():
        if path.relative_to(folder).parts[0] in wanted and "sd15" in path.name and "-faceid-plus" not in path.name:
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)
    return folder


def lora(models: Path, kind: str) -> dict[str, torch.Tensor]:
    return load_file(models / "Lora" / f"{fixtures.lora_name(kind, 'sd15', narrow=True)}.safetensors")


def test_the_companion_is_the_lora_of_the_adapter(models: Path) -> None:
    embedded = load_adapter(models / "ip-adapter" / fixtures.adapter_name("faceid", "sd15", narrow=True)).file
    found = lora(models, "companion")
    assert len(found) == 2 * 128
    for part in ("down", "up"):
        name = f"ip_adapter.1.to_q_lora.{part}.weight"  # the first cross-attention
        assert torch.equal(found[f"{ATTENTION}.lora_{part}.weight"], dict(embedded.load_many([name]))[name])


def test_the_style_changes_the_same_layers_and_has_an_alpha(models: Path) -> None:
    style, companion = lora(models, "style"), lora(models, "companion")
    assert {name.partition(".")[0] for name in style} == {name.partition(".")[0] for name in companion}
    assert style[f"{ATTENTION}.alpha"] == 4
    assert style[f"{ATTENTION}.lora_down.weight"].shape == (4, 8)
    delta = style[f"{ATTENTION}.lora_up.weight"].float() @ style[f"{ATTENTION}.lora_down.weight"].float()
    assert 0.05 < float(delta.norm(dim=1).mean()) < 1


def test_controlnet_gets_the_adapter_under_a_name_it_knows_the_kind_by(models: Path) -> None:
    (copy,) = (models / "ControlNet").iterdir()
    assert copy.name == "faceid-live-ip-adapter-faceid_sd15_narrow.bin"
    assert copy.read_bytes() == (models / "ip-adapter/faceid-live-faceid_sd15_narrow.bin").read_bytes()


def test_an_adapter_without_a_lora_is_refused(models: Path, tmp_path: Path) -> None:
    """Somebody else's file of that name is not overwritten, so it may be anything."""
    portrait = models / "ip-adapter" / fixtures.adapter_name("portrait", "sd15", narrow=True)
    other = tmp_path / "ip-adapter" / fixtures.adapter_name("faceid", "sd15", narrow=True)
    other.parent.mkdir()
    other.write_bytes(portrait.read_bytes())
    path = tmp_path / "Lora" / f"{fixtures.lora_name('style', 'sd15', narrow=True)}.safetensors"
    with pytest.raises(ValueError, match="has no LoRA; remove it"):
        fixtures.files(tmp_path, 8)[path](path)
