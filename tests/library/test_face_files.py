"""Face files of other extensions, written as those write them, and files that only look like it."""

from __future__ import annotations

import json
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file

from lib_faceid.errors import BadIdentity
from lib_faceid.library.face_files import read_face_file

from .people import make_someone

VECTOR = 20 * np.random.default_rng(3).normal(size=512).astype(np.float32)


def reactor(path, **changes):
    """What ReActor's save_face_model writes of an insightface face."""
    tensors = {
        "bbox": torch.tensor([1.0, 2.0, 3.0, 4.0]),
        "kps": torch.zeros(5, 2),
        "det_score": torch.tensor(0.9),
        "landmark_3d_68": torch.zeros(68, 3),
        "pose": torch.zeros(3),
        "landmark_2d_106": torch.zeros(106, 2),
        "embedding": torch.from_numpy(VECTOR.copy()),
        "gender": torch.tensor(0),
        "age": torch.tensor(34),
    }
    save_file({**tensors, **changes}, path)
    return path


def faceswaplab(path, **changes):
    """What FaceSwapLab's save_face writes; the mean of several faces is float64."""
    tensors = {
        "embedding": torch.from_numpy(VECTOR.astype(np.float64)),
        "gender": torch.tensor(1),
        "age": torch.tensor(50),
    }
    save_file({**tensors, **changes}, path)
    return path


def test_reactor(tmp_path):
    face = read_face_file(reactor(tmp_path / "anna.safetensors"))
    assert face.vector.dtype == np.float32
    assert np.array_equal(face.vector, VECTOR[None])
    assert face.note == "Imported from a face file of ReActor (its estimate: female, age 34)."


def test_faceswaplab(tmp_path):
    face = read_face_file(str(faceswaplab(tmp_path / "bob.safetensors")))
    assert np.array_equal(face.vector, VECTOR[None])
    assert face.vector.dtype == np.float32
    assert face.note == "Imported from a face file of FaceSwapLab (its estimate: male, age 50)."


@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
def test_kinds_of_number(tmp_path, kind):
    vector = torch.from_numpy(VECTOR).to(kind)
    face = read_face_file(faceswaplab(tmp_path / "a.safetensors", embedding=vector[None]))
    assert np.array_equal(face.vector, vector[None].float().numpy())


def test_without_estimates(tmp_path):
    save_numpy({"embedding": VECTOR}, tmp_path / "a.safetensors")
    assert read_face_file(tmp_path / "a.safetensors").note == "Imported from a face file of another program."
    odd = faceswaplab(tmp_path / "b.safetensors", gender=torch.zeros(3), age=torch.tensor(float("nan")))
    assert read_face_file(odd).note == "Imported from a face file of FaceSwapLab."


@pytest.mark.parametrize(
    "content",
    [{"embedding": VECTOR.tolist(), "gender": 1, "age": 7}, {"embedding": [VECTOR.tolist()]}, VECTOR.tolist()],
)
def test_json(tmp_path, content):
    path = tmp_path / "anna.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    assert np.allclose(read_face_file(path).vector, VECTOR[None], rtol=1e-6)
    assert read_face_file(path).vector.shape == (1, 512)


def test_a_header_that_begins_like_a_pickle(tmp_path):
    """640 bytes are 80 02 in the file, which is also how pickles of protocol 2 begin."""
    path = reactor(tmp_path / "anna.safetensors")
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    assert length <= 640
    path.write_bytes(struct.pack("<Q", 640) + content[8 : 8 + length].ljust(640) + content[8 + length :])
    assert np.array_equal(read_face_file(path).vector, VECTOR[None])


class Trap:
    def __reduce__(self):
        return pytest.fail, ("the pickle was opened",)


@pytest.mark.parametrize("name", ["anna.pkl", "anna.PICKLE", "anna.pt", "anna.ipadpt", "anna.safetensors", "anna.json"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_are_never_opened(tmp_path, name, protocol):
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"embedding": Trap()}, protocol))
    with pytest.raises(BadIdentity, match="is a pickled file, in which code can hide, so it was not opened") as caught:
        read_face_file(path)
    assert ("Let FaceSwapLab load it once" in str(caught.value)) == (name == "anna.pkl")


def test_a_pickle_of_the_oldest_protocol(tmp_path):
    """It is text, and only its name tells."""
    (tmp_path / "anna.pkl").write_bytes(pickle.dumps({"embedding": Trap()}, 0))
    with pytest.raises(BadIdentity, match="code can hide"):
        read_face_file(tmp_path / "anna.pkl")


def test_files_of_torch_are_never_opened(tmp_path):
    torch.save({"embedding": torch.ones(512)}, tmp_path / "anna.safetensors")
    with pytest.raises(BadIdentity, match="code can hide"):
        read_face_file(tmp_path / "anna.safetensors")


@pytest.mark.parametrize(
    ("vector", "sentence"),
    [
        (torch.ones(511), r"float32 \(511,\), expected 512 numbers"),
        (torch.ones(2, 512), r"float32 \(2, 512\), expected 512 numbers"),
        (torch.ones(512, dtype=torch.bool), "bool"),
        (torch.zeros(512), "zeros or of values that are no numbers"),
        (torch.full((512,), float("nan")), "zeros or of values that are no numbers"),
        (torch.full((512,), 1e300, dtype=torch.float64), "zeros or of values that are no numbers"),
    ],
)
def test_vectors_that_are_none(tmp_path, vector, sentence):
    with pytest.raises(BadIdentity, match=rf"^a\.safetensors has a face vector of .*{sentence}"):
        read_face_file(faceswaplab(tmp_path / "a.safetensors", embedding=vector))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty: it has 0 bytes"),
        ("hello", "is not readable as JSON"),
        ("[" * 100_000, "is not readable as JSON"),
        ('{"embedding": ' + "1" * 5000 + "}", "is not readable as JSON"),
        ('{"face": [1]}', r"holds no face vector \('embedding'\); found face"),
        ("{}", "found nothing"),
        ("null", "has a face vector of object"),
        ('["a", "b"]', "has a face vector of <U1"),
        ("[[1], [2, 3]]", "has a face vector that is no list of numbers|has a face vector of object"),
        ('{"embedding": {"a": 1}}', "has a face vector of object"),
        (json.dumps([10**400] * 512), "has a face vector of object"),
    ],
)
def test_json_that_is_none(tmp_path, text, sentence):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadIdentity, match=rf"^a\.json .*({sentence})"):
        read_face_file(tmp_path / "a.json")


def test_other_files(tmp_path):
    with pytest.raises(BadIdentity, match="There is no face file"):
        read_face_file(tmp_path / "none.safetensors")
    with pytest.raises(BadIdentity, match="cannot be read"):
        read_face_file(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(BadIdentity, match=r"is not a readable \.safetensors file"):
        read_face_file(tmp_path / "a.safetensors")
    (tmp_path / "large.json").write_bytes(b" " * (1 << 20) + b"[1]")
    with pytest.raises(BadIdentity, match="has more than 1 MB, which no face file has"):
        read_face_file(tmp_path / "large.json")
    path = make_someone().write(tmp_path / "anna.safetensors")
    with pytest.raises(BadIdentity, match=r"holds no face vector .'embedding'.; found sd15"):
        read_face_file(path)
    save_file({"embedding": torch.ones(512, dtype=torch.bfloat16)}, tmp_path / "b.safetensors")
    with pytest.raises(BadIdentity, match=r"is not a readable|has a face vector of"):
        read_face_file(tmp_path / "b.safetensors")
