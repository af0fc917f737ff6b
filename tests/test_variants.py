"""Where tensors leave a choice: digest, file name, the user, and what is asked when none of them tells."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lib_faceid.errors import AmbiguousWeights, UnsupportedAdapter, WrongWeights
from lib_faceid.weights.detect import Recognised, recognise
from lib_faceid.weights.variants import KNOWN_FILES, KNOWN_LORAS, NAME_MARKS, UNSUPPORTED, VARIANTS, choices

from .meta_file import find, meta_file, narrow, unasked

PLUS_V1 = "252fb53e0d018489d9e7f9b9e2001a52ff700e491894011ada7cfb471e0fadf2"
PLUS_V2 = "26d0d86a1d60d6cc811d3b8862178b461e1eeb651e6fe2b72ba17aa95411e313"
PLUS_V2_SDXL = "c6945d82b543700cc3ccbb98d363b837e9c596281607857c74b713a876daf5fb"
UNNORM = "220bb86e205393a3d0411631cb473caddbf35fd371be2905ca9008818170db55"
PLUS_FACE = "1c9edc21af6f737dc1d6e0e734190e976cfacf802d6b024b77aa3be922f7569b"


# ---- FaceID Plus v1 or v2


@pytest.mark.parametrize(("digest", "key"), [(PLUS_V1, "faceid-plus"), (PLUS_V2, "faceid-plusv2")])
def test_a_known_digest_beats_a_wrong_name(digest: str, key: str) -> None:
    for name in ("ip-adapter-faceid-plus_sd15.bin", "ip-adapter-faceid-plusv2_sd15.bin", "renamed.bin"):
        found = find(narrow("faceid-plus"), name, digest.upper())
        assert (found.variant.key, found.how) == (key, "by its sha256")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("ip-adapter-faceid-plusv2_sd15.bin", "faceid-plusv2"),
        ("FaceID-Plus-V2.safetensors", "faceid-plusv2"),
        ("my faceid plus v2.bin", "faceid-plusv2"),
        ("faceid_plus_v2_fp16.bin", "faceid-plusv2"),
        ("ip-adapter-faceid-plus_sd15.bin", "faceid-plus"),
        ("IP-Adapter-FaceIDPlus.safetensors", "faceid-plus"),
        ("plus.bin", "faceid-plus"),
        ("faceid-plus-v1_sd15.bin", "faceid-plus"),
    ],
)
def test_the_file_name_tells_plus_v1_from_v2(name: str, key: str) -> None:
    found = find(narrow("faceid-plus"), name)
    assert (found.variant.key, found.how) == (key, "by its file name")


@pytest.mark.parametrize("name", ["face.bin", "faceid_v2.bin", "faceid-plus_sd15_v2.bin", "surplus.bin", "plus2.bin"])
def test_a_name_that_does_not_tell_is_a_question(name: str) -> None:
    with pytest.raises(AmbiguousWeights) as error:
        find(narrow("faceid-plus"), name)
    assert "FaceID Plus v1 or FaceID Plus v2" in str(error.value)
    assert "'faceid-plus' or 'faceid-plusv2'" in str(error.value) and f"'{name}'" in str(error.value)


def test_folders_are_not_part_of_the_name() -> None:
    with pytest.raises(AmbiguousWeights):
        find(narrow("faceid-plus"), "models/plusv2/faceid.bin")
    assert find(narrow("faceid-plus"), "models/plusv2/faceid-plus.bin").variant.key == "faceid-plus"


def test_the_users_choice_beats_the_name_and_loses_to_the_digest() -> None:
    shapes = narrow("faceid-plus")
    chosen = find(shapes, "ip-adapter-faceid-plusv2_sd15.bin", variant="faceid-plus")
    assert (chosen.variant.key, chosen.how) == ("faceid-plus", "as you chose")
    with pytest.raises(WrongWeights, match=r"by its sha256 it is ip-adapter-faceid-plusv2_sd15\.bin"):
        find(shapes, digest=PLUS_V2, variant="faceid-plus")
    assert find(shapes, digest=PLUS_V2, variant="faceid-plusv2").how == "by its sha256"


def test_sdxl_has_v2_alone_unless_the_user_says_otherwise() -> None:
    shapes = narrow("faceid-plus", "sdxl")
    default = recognise(meta_file(shapes, "ip-adapter-faceid-plus_sdxl.bin"), digest=unasked)
    assert (default.variant.key, default.how) == ("faceid-plusv2", "by its tensors")
    assert find(shapes, variant="faceid-plus").variant.key == "faceid-plus"
    with pytest.raises(WrongWeights, match="by its sha256"):
        find(shapes, digest=PLUS_V2_SDXL, variant="faceid-plus")


# ---- FaceID or Portrait


@pytest.mark.parametrize(
    ("tokens", "lora", "key"),
    [(4, True, "faceid"), (4, False, "faceid"), (16, False, "portrait"), (16, True, "faceid")],
)
def test_portrait_is_sixteen_tokens_without_a_lora(tokens: int, lora: bool, key: str) -> None:
    shapes = narrow("faceid", tokens=tokens, lora=lora)
    found = recognise(meta_file(shapes, "misleading-plusv2-portrait.bin"), digest=unasked)
    assert (found.variant.key, found.how, found.tokens) == (key, "by its tensors", tokens)


def test_the_users_choice_beats_what_tensors_merely_suggest() -> None:
    found = find(narrow("portrait"), variant="faceid")
    assert (found.variant.key, found.tokens, found.how) == ("faceid", 16, "as you chose")
    assert recognise(meta_file(narrow("portrait")), variant="portrait", digest=unasked).variant.key == "portrait"


# ---- InstantID or Portrait unnorm


def half_but_image_proj(name: str) -> torch.dtype:
    return torch.float32 if name.startswith("image_proj") else torch.float16


def test_unnorm_is_told_by_digest_or_name_or_choice() -> None:
    shapes = narrow("portrait-unnorm", "sdxl")
    for how, found in {
        "by its sha256": find(shapes, "instant.bin", UNNORM, dtype=half_but_image_proj),
        "by its file name": find(shapes, "portrait_sdxl_unnorm.bin", dtype=half_but_image_proj),
        "as you chose": find(shapes, variant="portrait-unnorm"),
    }.items():
        assert (found.variant.key, found.how) == ("portrait-unnorm", how)


def test_instantid_is_told_by_float32_or_name_or_choice() -> None:
    shapes = narrow("instantid", "sdxl")
    ways: dict[str, Callable[[], Recognised]] = {
        "by its tensors": lambda: find(shapes, "ip-adapter.bin", dtype=torch.float32),
        "by its file name": lambda: find(shapes, "instant_id.safetensors"),
        "as you chose": lambda: find(shapes, variant="instantid"),
    }
    for how, way in ways.items():
        with pytest.raises(UnsupportedAdapter, match=f"InstantID \\({how}\\)") as error:
            way()
        assert ("choose 'portrait-unnorm'" in str(error.value)) == (how != "as you chose")


def test_float32_is_a_hint_that_name_and_user_overrule() -> None:
    """Anyone can save Portrait (unnorm) in float32; nobody would call InstantID "unnorm"."""
    shapes = narrow("portrait-unnorm", "sdxl")
    assert find(shapes, "unnorm-fp32.bin", dtype=torch.float32).how == "by its file name"
    found = find(shapes, dtype=torch.float32, variant="portrait-unnorm")
    assert (found.variant.key, found.how) == ("portrait-unnorm", "as you chose")


def test_without_any_sign_it_is_a_question() -> None:
    with pytest.raises(AmbiguousWeights, match="'portrait-unnorm' or 'instantid'"):
        find(narrow("instantid", "sdxl"), dtype=half_but_image_proj)


# ---- Plus, Plus Face, Composition


@pytest.mark.parametrize(
    ("name", "key", "how"),
    [
        ("ip-adapter-plus_sd15.safetensors", "plus", "by its file name"),
        ("ip-adapter-plus-face_sd15.safetensors", "plus-face", "by its file name"),
        ("ip_plus_composition_sd15.safetensors", "composition", "by its file name"),
        ("renamed.safetensors", "plus", "by its tensors"),
    ],
)
def test_resamplers_of_clip_features_are_told_by_name(name: str, key: str, how: str) -> None:
    found = find(narrow("plus"), name)
    assert (found.variant.key, found.how) == (key, how)


def test_resamplers_of_clip_features_are_told_by_digest_and_choice() -> None:
    assert find(narrow("plus"), "composition.bin", PLUS_FACE).variant.key == "plus-face"
    assert find(narrow("plus"), "plus-face.bin", variant="composition").how == "as you chose"


# ---- choices that cannot be


@pytest.mark.parametrize("kind", ["plus", "base", "full-face", "faceid-plus", "portrait-unnorm"])
def test_a_choice_the_tensors_exclude_is_refused_with_what_they_are(kind: str) -> None:
    with pytest.raises(
        WrongWeights, match=r"cannot be used as FaceID: its tensors are those of .+ for SD1\.5"
    ) as error:
        recognise(meta_file(narrow(kind)), variant="faceid", digest=unasked)
    assert VARIANTS[kind].title in str(error.value)


def test_a_variant_that_does_not_exist_is_refused_with_the_list() -> None:
    with pytest.raises(WrongWeights, match=r"no variant 'plus-v2'.*faceid-plusv2"):
        recognise(meta_file(narrow("faceid")), variant="plus-v2", digest=unasked)


@pytest.mark.parametrize("kind", ["base", "full-face", "faceid", "portrait", "pulid-v1"])
def test_the_digest_is_left_alone_where_tensors_decide(kind: str) -> None:
    file = meta_file(narrow(kind, "sdxl"))
    if kind in UNSUPPORTED:
        with pytest.raises(UnsupportedAdapter):
            recognise(file, digest=unasked)
    else:
        assert recognise(file, digest=unasked).how == "by its tensors"


def test_a_digest_that_contradicts_the_tensors_is_no_witness() -> None:
    """The list of digests is a third party's; tensors are what will be computed with."""
    found = find(narrow("faceid-plus"), "ip-adapter-faceid-plus_sd15.bin", PLUS_FACE)
    assert (found.variant.key, found.how) == ("faceid-plus", "by its file name")


# ---- the tables


def test_what_each_variant_is_fed() -> None:
    fed = {key: (row.vector, row.clip, row.several) for key, row in VARIANTS.items()}
    assert fed == {
        "faceid": ("normed", "none", "mean"),
        "faceid-plus": ("normed", "hidden", "mean"),
        "faceid-plusv2": ("normed", "hidden", "mean"),
        "portrait": ("normed", "none", "concat"),
        "portrait-unnorm": ("raw", "none", "together"),
        "base": ("none", "pooled", "mean"),
        "plus": ("none", "hidden", "mean"),
        "plus-face": ("none", "hidden", "mean"),
        "composition": ("none", "hidden", "mean"),
        "full-face": ("none", "hidden", "mean"),
    }
    assert [key for key, row in VARIANTS.items() if row.shortcut] == ["faceid-plusv2"]


def test_the_tables_speak_of_each_other() -> None:
    assert {known.variant for known in KNOWN_FILES.values()} <= VARIANTS.keys()
    assert all(known.base in known.name for known in KNOWN_FILES.values())
    assert all(len(digest) == 64 and int(digest, 16) for digest in (*KNOWN_FILES, *KNOWN_LORAS))
    assert not VARIANTS.keys() & UNSUPPORTED.keys()
    for family, marks in NAME_MARKS.items():
        assert {key for _, key in marks} <= set(choices(family))


def test_known_files_are_named_like_their_variant() -> None:
    marks = {key: mark for family in NAME_MARKS.values() for mark, key in family}
    for known in KNOWN_FILES.values():
        assert known.variant not in marks or marks[known.variant].search(known.name.lower())
        assert ("portrait" in known.name) == known.variant.startswith("portrait")
