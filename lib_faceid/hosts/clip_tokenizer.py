"""CLIP's tokenizer without a network: from a folder, the Hugging Face cache, or the copy inside open_clip or clip.

A single-file checkpoint holds no tokenizer. All SD1.5 and SDXL checkpoints use the same one, that of
openai/clip-vit-large-patch14: vocab.json and merges.txt, or tokenizer.json.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import FaceIDError

_FILES = ("vocab.json", "merges.txt")
_WHOLE = "tokenizer.json"
_CACHED = (
    ("openai/clip-vit-large-patch14", ""),
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer/"),
    ("runwayml/stable-diffusion-v1-5", "tokenizer/"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer/"),
)
_CARRIERS = ("open_clip", "clip")  # packages that ship the same vocabulary as OpenAI wrote it
_CARRIED = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2  # the file has more lines than the vocabulary uses (openai/CLIP, simple_tokenizer.py:67)
_MARKERS = ("<|startoftext|>", "<|endoftext|>")


def find_tokenizer(checkpoint: Path, chosen: Path | None, scratch: Path) -> Path:
    """A folder with the tokenizer's files: ``chosen``, or "tokenizer" beside the checkpoint, or what is installed.

    ``scratch`` takes files that have to be rewritten. Raises FaceIDError, naming the files and where to put them.
    """
    if chosen is not None:
        if not _is_tokenizer(chosen):
            raise FaceIDError(f"{chosen} has no tokenizer: expected {' and '.join(_FILES)}, or {_WHOLE}, in it.")
        return chosen
    beside = checkpoint.parent / "tokenizer"
    for folder in (beside, *_cached_folders()):
        if _is_tokenizer(folder):
            return folder
    carried = next(_carried_files(), None)
    if carried is not None:
        return unpack_vocabulary(carried, scratch)
    raise FaceIDError(
        f"{checkpoint.name} holds no tokenizer and none is on this machine. Put {' and '.join(_FILES)} of "
        f"openai/clip-vit-large-patch14 into {beside}, or name their folder with --tokenizer."
    )


def load_tokenizers(folder: Path, lengths: Sequence[int]) -> list[Any]:
    """One CLIPTokenizer for each length in tokens; the second, of SDXL's larger encoder, pads with "!" (id 0).

    That is how stabilityai/stable-diffusion-xl-base-1.0 configures tokenizer_2. Raises FaceIDError.
    """
    from transformers import CLIPTokenizer

    pads: list[dict[str, Any]] = [{}, {"pad_token": "!"}]
    try:
        return [
            CLIPTokenizer.from_pretrained(str(folder), model_max_length=length, local_files_only=True, **pad)
            for length, pad in zip(lengths, pads, strict=False)
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise FaceIDError(f"The tokenizer in {folder} cannot be read ({reason}). Get its files again.") from error


def unpack_vocabulary(packed: Path, folder: Path) -> Path:
    """Write vocab.json and merges.txt from OpenAI's gzip file of merges. Returns ``folder``.

    Ids: 256 bytes, 256 bytes at the end of a word, merges in order, the two markers (openai/CLIP,
    simple_tokenizer.py:66-75).
    """
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")
    merges = [line for line in lines[1 : _MERGES + 1] if line]  # line 0 names the version
    letters = list(_byte_letters())
    words = [*letters, *(letter + "</w>" for letter in letters), *(line.replace(" ", "") for line in merges), *_MARKERS]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = json.dumps({word: number for number, word in enumerate(words)}, ensure_ascii=False)
    (folder / "vocab.json").write_text(vocabulary, encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return folder


def _byte_letters() -> Iterator[str]:
    """A visible letter for every byte, in CLIP's order: printable Latin-1 stands for itself, the rest follows."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    yield from map(chr, printable)
    yield from (chr(256 + n) for n in range(256 - len(printable)))


def _is_tokenizer(folder: Path) -> bool:
    return (folder / _WHOLE).is_file() or all((folder / name).is_file() for name in _FILES)


def _cached_folders() -> Iterator[Path]:
    from huggingface_hub import try_to_load_from_cache

    for repository, prefix in _CACHED:
        for name in (_FILES[0], _WHOLE):
            found = try_to_load_from_cache(repository, prefix + name)
            if isinstance(found, str):
                yield Path(found).parent


def _carried_files() -> Iterator[Path]:
    for package in _CARRIERS:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            file = Path(place) / _CARRIED
            if file.is_file():
                yield file
