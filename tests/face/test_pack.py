"""Which files of a folder are the pack, and what is said when they are not there or damaged."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from lib_faceid.errors import BrokenWeights, WrongWeights
from lib_faceid.face.onnx_file import read_model_shape
from lib_faceid.face.pack import find_pack, pack_for

from ..face_packs import Habits, detector, make_pack, recogniser, save, side_model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("packs") / "buffalo_l")


@pytest.fixture
def pack(original: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(original, tmp_path / "buffalo_l"))


def test_models_are_known_by_shape_whatever_they_are_called(pack: Path) -> None:
    for number, path in enumerate(sorted(pack.iterdir(), reverse=True)):
        path.rename(pack / f"{number}.ONNX")
    found = find_pack(pack)
    assert (found.detector_side, found.crop, found.normalises) == (None, 112, False)
    assert len(read_model_shape(found.detector).outputs) == 9
    assert read_model_shape(found.recogniser).outputs[0].dims == (1, 512)


def test_shapes_are_read_from_the_file(original: Path) -> None:
    shape = read_model_shape(original / "det_10g.onnx")
    assert [port.dims for port in shape.inputs] == [(1, 3, None, None)]
    assert [port.dims for port in shape.outputs] == [(None, 1)] * 3 + [(None, 4)] * 3 + [(None, 10)] * 3
    assert len(shape.first_nodes) == 8
    assert read_model_shape(original / "2d106det.onnx").inputs[0].dims == (None, 3, 192, 192)


def test_weights_listed_as_inputs_are_not_inputs(tmp_path: Path) -> None:
    model = recogniser()
    for weight in model.graph.initializer:  # as files of ONNX before version 1.3 have it
        model.graph.input.append(helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, list(weight.dims)))
    assert [port.name for port in read_model_shape(save(model, tmp_path / "old.onnx")).inputs] == ["data"]


def test_a_recogniser_that_normalises_itself_is_told_by_its_nodes(pack: Path) -> None:
    save(recogniser(normalises=True), pack / "w600k_r50.onnx")
    assert find_pack(pack).normalises


def test_a_detector_of_one_size_is_told(pack: Path) -> None:
    save(detector(Habits(side=320)), pack / "det_10g.onnx")
    assert find_pack(pack).detector_side == 320


def test_an_archive_that_unpacked_into_a_folder_of_its_own(tmp_path: Path, original: Path) -> None:
    shutil.copytree(original, tmp_path / "antelopev2" / "antelopev2")
    (tmp_path / "antelopev2" / "__MACOSX").mkdir()
    assert find_pack(tmp_path / "antelopev2").folder == tmp_path / "antelopev2" / "antelopev2"


def test_a_single_subfolder_of_another_name(tmp_path: Path, original: Path) -> None:
    shutil.copytree(original, tmp_path / "buffalo_l" / "unpacked")
    assert find_pack(tmp_path / "buffalo_l").folder == tmp_path / "buffalo_l" / "unpacked"


def test_a_folder_of_several_packs_is_asked_about(tmp_path: Path, original: Path) -> None:
    for name in ("antelopev2", "buffalo_l"):
        shutil.copytree(original, tmp_path / name)
    with pytest.raises(WrongWeights, match=r"several face packs \(antelopev2, buffalo_l\)"):
        find_pack(tmp_path)


def test_a_missing_folder_is_named_with_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(WrongWeights) as caught:
        find_pack(tmp_path / "models" / "buffalo_l")
    assert f"The face pack folder {tmp_path / 'models' / 'buffalo_l'} does not exist." in str(caught.value)
    assert "det_10g.onnx" in str(caught.value)
    assert not (tmp_path / "models").exists()


def test_a_file_and_an_empty_folder_are_not_packs(tmp_path: Path) -> None:
    file = tmp_path / "buffalo_l.zip"
    file.write_bytes(b"PK")
    with pytest.raises(WrongWeights, match=r"buffalo_l\.zip is a file"):
        find_pack(file)
    with pytest.raises(WrongWeights, match=r"has no \.onnx file"):
        find_pack(tmp_path)


@pytest.mark.parametrize(
    ("missing", "words"), [("det_10g.onnx", "no face detector with five points"), ("w600k_r50.onnx", "no recogniser")]
)
def test_what_is_missing_is_said_with_what_was_found(pack: Path, missing: str, words: str) -> None:
    (pack / missing).unlink()
    with pytest.raises(WrongWeights, match=words) as caught:
        find_pack(pack)
    assert "genderage.onnx" in str(caught.value)


def test_lookalikes_are_not_recognisers(pack: Path) -> None:
    # Same inputs as a recogniser and other outputs; a landmark model's 192 px are a multiple of 16 as well.
    save(recogniser(width=256), pack / "w600k_r50.onnx")
    save(side_model(112, 3), pack / "a.onnx")
    save(side_model(192, 512 * 2), pack / "b.onnx")
    with pytest.raises(WrongWeights, match="no recogniser"):
        find_pack(pack)


HTML = b"\n<!DOCTYPE html><html><body>Not found</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 16923827\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (HTML, "is a web page"),
        (LFS, "git-lfs pointer"),
        (bytes(4096), "is damaged or was cut off"),
        (b"PK\x03\x04" + bytes(range(200)), "is damaged or was cut off"),
        (b"\x08\x07", "holds no ONNX graph"),
    ],
)
@pytest.mark.parametrize("name", ["det_10g.onnx", "w600k_r50.onnx"])
def test_a_file_that_is_no_model_is_named(pack: Path, name: str, content: bytes, words: str) -> None:
    (pack / name).write_bytes(content)
    with pytest.raises(BrokenWeights, match=words) as caught:
        find_pack(pack)
    assert str(pack / name) in str(caught.value)


@pytest.mark.parametrize("kept", [1, 3, 40, 0.5, 0.99, -1])
def test_a_download_that_was_cut_off_is_named(pack: Path, kept: float) -> None:
    path = pack / "w600k_r50.onnx"
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(BrokenWeights, match=r"w600k_r50\.onnx is damaged or was cut off"):
        find_pack(pack)


def test_a_damaged_file_that_is_not_needed_does_no_harm(pack: Path) -> None:
    (pack / "genderage.onnx").write_bytes(HTML)
    (pack / "1k3d68.onnx").write_bytes(b"")
    assert find_pack(pack).detector.name == "det_10g.onnx"


def test_a_file_that_may_not_be_read_is_named(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BrokenWeights, match=r"2d106det\.onnx cannot be read: Permission denied"):
        find_pack(pack)


SMALL = side_model(96, 3).SerializeToString(deterministic=True)


@given(at=st.integers(0, len(SMALL) - 1), byte=st.integers(0, 255), end=st.integers(1, len(SMALL)))
def test_no_damage_gives_another_error(at: int, byte: int, end: int) -> None:
    data = bytearray(SMALL)
    data[at] = byte
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(data[:end])
        try:
            read_model_shape(path)
        except BrokenWeights as error:
            assert "model.onnx" in str(error)


def test_each_family_gets_the_pack_it_was_trained_with(tmp_path: Path) -> None:
    for key in ("faceid", "faceid-plusv2", "portrait-unnorm", "something-new"):
        assert pack_for(key, tmp_path) == tmp_path / "buffalo_l"
    for key in ("instantid", "pulid-v1", "pulid-v1.1", "kolors-faceid-plus"):
        assert pack_for(key, tmp_path) == tmp_path / "antelopev2"
    assert pack_for("faceid", tmp_path, choice="auraface") == tmp_path / "auraface"


def test_packs_are_also_looked_for_where_insightface_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "models" / "buffalo_l").mkdir(parents=True)
    assert pack_for("faceid", tmp_path) == tmp_path / "models" / "buffalo_l"


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "/etc", "a/b", "a\\b"])
def test_a_choice_is_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(WrongWeights, match="by the name of its folder"):
        pack_for("faceid", tmp_path, choice=name)
