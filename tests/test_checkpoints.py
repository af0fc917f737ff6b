"""From checkpoints on disk to pipelines: folder, .safetensors and .ckpt alike, without network and pickles."""

from __future__ import annotations

import gzip
import json
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lib_faceid.errors import BrokenWeights, FaceIDError, WrongBase, WrongWeights
from lib_faceid.hosts.checkpoint_layout import recognise_checkpoint
from lib_faceid.hosts.checkpoints import choose_device, load_pipeline, open_checkpoint
from lib_faceid.hosts.clip_tokenizer import find_tokenizer, load_tokenizers, unpack_vocabulary

from . import pipelines
from .containers import save_safetensors


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def draw(pipe, **kwargs):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    size = {} if "image" in kwargs and "mask_image" not in kwargs else {"height": 64, "width": 64}
    return pipe(
        "an!", negative_prompt="bad", num_inference_steps=2, generator=generator, output_type="np", **size, **kwargs
    ).images


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_folder_and_single_files_give_the_same_picture(tmp_path, base):
    """To the last bit: every weight, and every setting that is not in a shape."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    paths = [
        pipelines.save_folder(tmp_path / "a", base),
        pipelines.save_file(tmp_path / "b", base),
        pipelines.save_file(tmp_path / "c", base, suffix=".ckpt"),
    ]
    folder, plain, pickled = [draw(load_pipeline(path, "txt2img", "cpu")) for path in paths]
    assert folder.std() > 0.01
    assert np.array_equal(folder, plain)
    assert np.array_equal(folder, pickled)


def test_what_is_known_before_loading(tmp_path):
    for base, width in (("sd15", 64), ("sdxl", 128)):
        (tmp_path / base).mkdir()
        for path in (pipelines.save_folder(tmp_path / base, base), pipelines.save_file(tmp_path / base, base)):
            found = open_checkpoint(path)
            assert (found.base, found.context_width, found.channels) == (base, width, 4)


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
@pytest.mark.parametrize("task", ["img2img", "inpaint"])
def test_other_tasks(tmp_path, base, task):
    pipe = load_pipeline(pipelines.save_file(tmp_path, base), task, "cpu")
    image = torch.rand(1, 3, 64, 64)
    mask = {"mask_image": torch.ones(1, 1, 64, 64)} if task == "inpaint" else {}
    assert draw(pipe, image=image, strength=1.0, **mask).shape == (1, 64, 64, 3)
    assert task in type(pipe).__name__.lower()


def test_an_inpainting_checkpoint(tmp_path):
    path = pipelines.save_file(tmp_path, channels=9)
    with pytest.raises(WrongBase, match=r"inpainting checkpoint \(9 input channels, expected 4\)"):
        load_pipeline(path, "txt2img", "cpu")
    pipe = load_pipeline(path, "inpaint", "cpu")
    assert pipe.unet.config.in_channels == 9
    draw(pipe, image=torch.rand(1, 3, 64, 64), mask_image=torch.ones(1, 1, 64, 64))


def test_half_precision_in_the_file_and_single_precision_on_the_cpu(tmp_path):
    pipe = pipelines.pipeline(tmp_path / "tokenizer")
    tensors = {name: tensor.half() for name, tensor in pipelines.single_file_tensors(pipe, "sd15").items()}
    tensors |= {f"model_ema.{number}": torch.zeros(1) for number in range(120)}
    found = load_pipeline(save_safetensors(tmp_path / "half.safetensors", tensors), "txt2img", "cpu")
    assert {part.dtype for part in (found.unet, found.vae, found.text_encoder)} == {torch.float32}
    assert torch.equal(found.unet.conv_in.weight, pipe.unet.conv_in.weight.half().float())


def test_velocity_prediction_is_told_by_a_marker(tmp_path):
    pipe = pipelines.pipeline(tmp_path / "tokenizer", "sdxl")
    tensors = {**pipelines.single_file_tensors(pipe, "sdxl"), "v_pred": torch.zeros(0)}
    found = load_pipeline(save_safetensors(tmp_path / "v.safetensors", tensors), "txt2img", "cpu")
    assert found.scheduler.config.prediction_type == "v_prediction"


def test_names_of_old_merges(tmp_path):
    """Before transformers 4 the text encoder had no ``text_model`` in its names."""
    pipe = pipelines.pipeline(tmp_path / "tokenizer")
    tensors = pipelines.single_file_tensors(pipe, "sd15")
    old = {name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in tensors.items()}
    found = load_pipeline(save_safetensors(tmp_path / "old.safetensors", old), "txt2img", "cpu")
    assert np.array_equal(draw(found), draw(pipe))


class TestRefused:
    @pytest.fixture
    def tensors(self, tmp_path):
        return pipelines.single_file_tensors(pipelines.pipeline(tmp_path / "tokenizer"), "sd15")

    @pytest.mark.parametrize(
        ("extra", "sentence"),
        [
            ("cond_stage_model.model.positional_embedding", "is a Stable Diffusion 2 checkpoint"),
            ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "is a Flux checkpoint"),
        ],
    )
    def test_another_base(self, tmp_path, tensors, extra, sentence):
        path = save_safetensors(tmp_path / "other.safetensors", {**tensors, extra: torch.zeros(1)})
        with pytest.raises(WrongBase, match=rf"other\.safetensors {sentence}; expected a whole Stable Diffusion 1\.5"):
            open_checkpoint(path)

    @pytest.mark.parametrize(
        ("part", "sentence"),
        [("cond_stage_model", "no text encoder"), ("first_stage_model", "no VAE"), ("model.d", "no Stable Diffusion")],
    )
    def test_a_part_is_missing(self, tmp_path, tensors, part, sentence):
        rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(part)}
        with pytest.raises(WrongWeights, match=sentence):
            open_checkpoint(save_safetensors(tmp_path / "part.safetensors", rest))

    def test_one_tensor_is_missing(self, tmp_path, tensors):
        del tensors["model.diffusion_model.out.2.bias"]
        with pytest.raises(WrongWeights, match=r"hole\.safetensors lacks tensors of its unet"):
            load_pipeline(save_safetensors(tmp_path / "hole.safetensors", tensors), "txt2img", "cpu")

    def test_one_tensor_has_another_shape(self, tmp_path, tensors):
        tensors["model.diffusion_model.out.2.bias"] = torch.zeros(5)
        with pytest.raises(WrongWeights, match=r"hole\.safetensors cannot be loaded as a checkpoint"):
            load_pipeline(save_safetensors(tmp_path / "hole.safetensors", tensors), "txt2img", "cpu")

    def test_no_file(self, tmp_path):
        with pytest.raises(BrokenWeights, match="There is no file"):
            open_checkpoint(tmp_path / "gone.safetensors")

    def test_a_folder_of_something_else(self, tmp_path):
        with pytest.raises(WrongWeights, match=r"is no diffusers folder: model_index\.json is missing"):
            open_checkpoint(tmp_path)
        (tmp_path / "unet").mkdir()
        (tmp_path / "unet" / "config.json").write_text("{}")
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
        with pytest.raises(WrongBase, match="is a diffusers folder for FluxPipeline"):
            open_checkpoint(tmp_path)

    def test_a_folder_with_pickled_weights(self, tmp_path):
        """Only safetensors are read; a .bin would be unpickled by the library."""
        folder = pipelines.save_folder(tmp_path)
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        torch.save(load_file(weights), weights.with_suffix(".bin"))
        weights.unlink()
        with pytest.raises(WrongWeights, match="model cannot be loaded as a checkpoint"):
            load_pipeline(folder, "txt2img", "cpu")

    def test_a_device_that_is_not_there(self):
        with pytest.raises(FaceIDError, match="There is no device called 'gpu'; choose cuda, mps or cpu"):
            choose_device("gpu")
        if not torch.cuda.is_available():
            with pytest.raises(FaceIDError, match="offers no cuda device"):
                choose_device("cuda")


class TestTokenizer:
    def test_none_anywhere(self, tmp_path, monkeypatch):
        path = pipelines.save_file(tmp_path)
        (tmp_path / "tokenizer").rename(tmp_path / "words")
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(FaceIDError, match=r"Put vocab\.json and merges\.txt of openai/clip-vit-large-patch14 into"):
            load_pipeline(path, "txt2img", "cpu")
        load_pipeline(path, "txt2img", "cpu", tokenizer=tmp_path / "words")

    def test_a_chosen_folder_without_one(self, tmp_path):
        with pytest.raises(FaceIDError, match=r"has no tokenizer: expected vocab\.json and merges\.txt, or tokenizer"):
            find_tokenizer(tmp_path / "model.safetensors", tmp_path, tmp_path)

    def test_one_for_a_larger_vocabulary(self, tmp_path):
        pipe = pipelines.pipeline(tmp_path / "tokenizer")
        tensors = pipelines.single_file_tensors(pipe, "sd15")
        name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
        tensors[name] = tensors[name][:50]
        with pytest.raises(FaceIDError, match=r"knows 191 words, and the checkpoint's text encoder has 50"):
            load_pipeline(save_safetensors(tmp_path / "small.safetensors", tensors), "txt2img", "cpu")

    def test_the_vocabulary_as_openai_wrote_it(self, tmp_path):
        """Bytes, bytes that end a word, merges, markers; only as many merges as CLIP uses."""
        letters = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))]
        pairs = [f"{a} {b}{end}" for end in ("", "</w>") for a in letters for b in letters if (a, b) != ("a", "n")]
        merges = ["#version: 0.2", "a n", "an n</w>", *pairs]
        packed = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
        packed.write_bytes(gzip.compress("\n".join(merges).encode()))
        folder = unpack_vocabulary(packed, tmp_path / "words")
        words = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        assert len(words) == 49408
        assert [words[word] for word in ("!", "!</w>", "an", "ann</w>", "<|startoftext|>")] == [0, 256, 512, 513, 49406]
        (tokenizer,) = load_tokenizers(folder, [7])
        assert tokenizer("Ann !", padding="max_length")["input_ids"] == [49406, 513, 256, *[49407] * 4]

    def test_the_second_tokenizer_pads_with_an_exclamation_mark(self, tmp_path):
        first, second = load_tokenizers(pipelines.save_tokenizer(tmp_path / "words"), [5, 5])
        assert first("an", padding="max_length")["input_ids"][-1] == 190
        assert second("an", padding="max_length")["input_ids"][-1] == 0

    def test_in_the_cache(self, tmp_path, monkeypatch):
        import huggingface_hub

        folder = pipelines.save_tokenizer(tmp_path / "cached")

        def cached(repository: str, name: str) -> str | None:
            return str(folder / name) if (repository, name) == ("openai/clip-vit-large-patch14", "vocab.json") else None

        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
        assert find_tokenizer(tmp_path / "model.safetensors", None, tmp_path / "scratch") == Path(folder)


SD15 = {
    "unet": {"block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "attention_head_dim": 8},
    "text_encoder": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
}
SDXL = {
    "unet": {
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "text_encoder": SD15["text_encoder"],
    "text_encoder_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
}


@pytest.mark.parametrize(("base", "published"), [("sd15", SD15), ("sdxl", SDXL)])
def test_true_sizes_give_the_published_settings(base, published):
    """Nothing is allocated: shapes alone tell what the configuration files of the two bases say."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    narrow = pipelines.unet(base).config
    with torch.device("meta"):
        parts = SimpleNamespace(
            unet=UNet2DConditionModel(**{**without_private(narrow), "norm_num_groups": 32, **published["unet"]}),
            vae=AutoencoderKL(
                block_out_channels=[128, 256, 512, 512],
                down_block_types=["DownEncoderBlock2D"] * 4,
                up_block_types=["UpDecoderBlock2D"] * 4,
                layers_per_block=2,
            ),
            text_encoder=CLIPTextModel(CLIPTextConfig(**published["text_encoder"])),
        )
        if base == "sdxl":
            parts.text_encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(**published["text_encoder_2"]))
    file = SimpleNamespace(path=Path("true.safetensors"), tensors=pipelines.single_file_tensors(parts, base))
    layout = recognise_checkpoint(file)
    for part, expected in published.items():
        assert {key: layout.configs[part][key] for key in expected} == expected
    assert layout.configs["vae"]["block_out_channels"] == [128, 256, 512, 512]


def without_private(config):
    unwanted = {"addition_time_embed_dim", "projection_class_embeddings_input_dim"}
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in unwanted}
