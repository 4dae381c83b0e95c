"""Sources: the embedded digits and their split, TFDS sets read without TensorFlow, and what is said of missing ones."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dlfx.data import sources
from dlfx.types import UserError


def test_digits_between_are_those_digits_numbered_anew():
    for split, whole in zip(sources.load("digits_6to9"), sources.load("digits"), strict=True):
        part, examples = sources.read_all(split), sources.read_all(whole)
        chosen = np.isin(examples["label"], [6, 7, 8, 9])
        np.testing.assert_array_equal(part["image"], examples["image"][chosen])
        np.testing.assert_array_equal(part["label"], examples["label"][chosen] - 6)
        assert (split.num_classes, split.size, split.mean) == (4, chosen.sum(), whole.mean)
    assert sources.load("digits_0to5")[0].num_classes == 6


def test_digits_are_scikit_learns_split_by_rule():
    from sklearn.datasets import load_digits

    train, test = sources.digits()
    assert (train.size, test.size, train.shape, train.num_classes) == (1442, 355, (8, 8, 1), 10)
    data = load_digits()
    held = [i for k in range(10) for i in [j for j in range(1797) if data.target[j] == k][4::5]]
    held.sort()
    examples = sources.read_all(test)
    np.testing.assert_array_equal(examples["label"], data.target[held])
    np.testing.assert_allclose(examples["image"][..., 0], data.images[held] / 16)
    assert min(np.bincount(examples["label"])) >= 34  # stratified
    pixels = sources.read_all(train)["image"]
    np.testing.assert_allclose((train.mean, train.std), (pixels.mean(), pixels.std()), atol=1e-3)


def test_validation_is_cut_from_training_stratified_and_disjoint():
    train, _ = sources.digits()
    rest, valid = sources.split_validation(train, 0.1)
    assert rest.size + valid.size == train.size and abs(valid.size - 144) < 10
    together = np.concatenate([sources.read_all(rest)["image"], sources.read_all(valid)["image"]])
    np.testing.assert_array_equal(
        np.sort(together.sum((1, 2, 3))), np.sort(sources.read_all(train)["image"].sum((1, 2, 3)))
    )
    with pytest.raises(UserError, match="validation fraction of 0.9"):
        sources.split_validation(train, 0.9)


def test_unknown_sets_are_refused_with_the_closest():
    with pytest.raises(UserError, match="unknown data set 'digit'; did you mean digits"):
        sources.load("digit")
    with pytest.raises(UserError, match="tfds:mnist"):
        sources.load("mnist")


def test_a_missing_tfds_set_is_reported_at_once_with_its_remedy(tmp_path):
    began = time.perf_counter()
    with pytest.raises(UserError, match="not prepared in .*; prepare it with: scripts/prepare_data mnist --data_dir="):
        sources.load("tfds:mnist", str(tmp_path))
    assert time.perf_counter() - began < 2


def make_tfds(root: Path, split_sizes: dict[str, int]) -> Path:
    """Prepares a small set in the layout of TFDS, with TFDS's own writer where that needs no TensorFlow."""
    import io
    import json

    from array_record.python import array_record_module
    from PIL import Image
    from tensorflow_datasets.core.proto import dataset_info_pb2  # noqa: F401 (fails early where TFDS is not whole)

    directory = root / "tiny" / "1.0.0"
    directory.mkdir(parents=True)
    features = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                "image": {
                    "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
                    "image": {"shape": {"dimensions": ["4", "4", "1"]}, "dtype": "uint8", "encodingFormat": "png"},
                },
                "label": {
                    "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
                    "classLabel": {"numClasses": "3"},
                },
            }
        },
    }
    (directory / "features.json").write_text(json.dumps(features))
    splits = []
    for split, size in split_sizes.items():
        file = directory / f"tiny-{split}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
        for i in range(size):
            png = io.BytesIO()
            Image.fromarray(np.full((4, 4), i, np.uint8)).save(png, "PNG")
            writer.write(example_proto(png.getvalue(), i % 3))
        writer.close()
        splits.append(
            {
                "name": split,
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": "0",
                "shardLengths": [str(size)],
            }
        )
    info = {"name": "tiny", "version": "1.0.0", "fileFormat": "array_record", "splits": splits}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    return directory


def example_proto(png: bytes, label: int) -> bytes:
    """A serialised tf.train.Example with a bytes `image` and an int64 `label`, written out by hand."""

    def field(number: int, payload: bytes) -> bytes:
        size, varint = len(payload), b""
        while size > 127:
            varint, size = varint + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + varint + bytes([size]) + payload

    image = field(1, b"image") + field(2, field(1, field(1, png)))
    number = field(1, b"label") + field(2, field(3, field(1, bytes([label]))))
    return field(1, field(1, image) + field(1, number))


@pytest.fixture
def tiny(tmp_path):
    return make_tfds(tmp_path, {"train": 20, "test": 6})


def test_a_prepared_tfds_set_is_read(tiny):
    train, test = sources.load("tfds:tiny", str(tiny.parent.parent))
    assert (train.size, test.size, train.shape, train.num_classes) == (20, 6, (4, 4, 1), 3)
    rows = train.read(np.array([7, 3]))
    np.testing.assert_array_equal(rows["image"][:, 0, 0, 0], [7, 3])
    np.testing.assert_array_equal(rows["label"], [1, 0])
    assert rows["image"].dtype == np.uint8


def test_reading_needs_no_tensorflow(tiny):
    code = (
        "import sys; from dlfx.data import sources\n"
        f"assert sources.load('tfds:tiny', {str(tiny.parent.parent)!r})[0].size == 20\n"
        "assert 'tensorflow' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_truncated_set_is_refused(tiny, keep):
    file = tiny / "tiny-train.array_record-00000-of-00001"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match="tfds:tiny.*(truncated|cannot be read).*prepare"):
        sources.load("tfds:tiny", str(tiny.parent.parent))


def test_a_set_whose_files_are_gone_is_refused(tiny):
    (tiny / "tiny-test.array_record-00000-of-00001").unlink()
    with pytest.raises(UserError, match="tfds:tiny"):
        sources.load("tfds:tiny", str(tiny.parent.parent))


def test_the_neighbours_of_a_missing_set_are_named(tiny):
    with pytest.raises(UserError, match="it holds tiny"):
        sources.load("tfds:mnist", str(tiny.parent.parent))


def test_faces_are_there_with_scikit_image_and_asked_for_without(monkeypatch):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "skimage.data", None)
        with pytest.raises(UserError, match="faces needs scikit-image"):
            sources.load("faces")
    pytest.importorskip("skimage")
    train, test = sources.load("faces")
    assert (train.size, test.size, train.shape, train.num_classes) == (80, 20, (25, 25, 1), 1)
    pixels = sources.read_all(train)["image"]
    assert pixels.dtype == np.float32 and pixels.min() >= 0 and pixels.max() <= 1
