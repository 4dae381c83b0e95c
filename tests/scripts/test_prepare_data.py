"""scripts/prepare_data: what it refuses, without a network; a whole preparation where TensorFlow is installed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts import prepare_data
from scripts.prepare_data import Refusal, check_name, check_network, main, prepared


def place(directory: Path, kind: str = "array_record") -> Path:
    """Makes `directory` look like a prepared data set."""
    directory.mkdir(parents=True)
    (directory / "dataset_info.json").write_text(json.dumps({"fileFormat": kind}))
    return directory


def test_prepared_is_the_newest_version_unless_one_is_named(tmp_path):
    assert prepared("mnist", tmp_path) is None
    old, new = place(tmp_path / "mnist/3.0.0"), place(tmp_path / "mnist/3.0.1")
    configured = place(tmp_path / "glue/cola/2.0.0")
    assert prepared("mnist", tmp_path) == new
    assert prepared("mnist:3.0.0", tmp_path) == old
    assert prepared("mnist:1.0.0", tmp_path) is None
    assert prepared("glue/cola", tmp_path) == configured


def test_an_unfinished_preparation_is_not_prepared(tmp_path):
    (tmp_path / "mnist/incomplete.ABC_3.0.1").mkdir(parents=True)
    assert prepared("mnist", tmp_path) is None


def test_another_format_is_refused(tmp_path):
    place(tmp_path / "mnist/3.0.1", kind="tfrecord")
    with pytest.raises(Refusal, match=r"3\.0\.1, but as tfrecord.*delete"):
        prepared("mnist", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "mnist:3.0.1", "mnist/config", "mnist/config:3.0.1"])
def test_known_names_pass(name):
    check_name(name, ["cifar10", "mnist"])


def test_an_unknown_name_gets_the_closest():
    with pytest.raises(Refusal, match=r"no data set 'mnsit'; did you mean mnist"):
        check_name("mnsit", ["cifar10", "mnist"])
    with pytest.raises(Refusal, match="see https"):
        check_name("zzz", ["cifar10", "mnist"])


def test_no_host_answering_is_no_network():
    asked = []

    def refuse(url):
        asked.append(url)
        raise OSError("Name or service not known")

    urls = ["https://a.org/1", "https://a.org/2", *(f"https://{host}.org/x" for host in "bcdef"), "s3://elsewhere/x"]
    with pytest.raises(Refusal, match=r"no network: .*a\.org \(Name or service not known\)"):
        check_network(urls, refuse)
    assert len(asked) == 3  # a host once, and not all of a long list


def test_one_host_answering_is_enough():
    def only_b(url):
        if "b.org" not in url:
            raise OSError("refused")

    check_network(["https://a.org/1", "https://b.org/1"], only_b)
    check_network([], only_b)  # generated data come from nowhere


def test_already_prepared_succeeds_without_tensorflow(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    place(tmp_path / "mnist/3.0.1")
    assert main(["mnist"]) == 0
    assert capsys.readouterr().out == f"mnist is already prepared in {tmp_path}/mnist/3.0.1\n"


def test_a_refusal_is_one_line_and_status_2(tmp_path, capsys, monkeypatch):
    def refuse(name, data_dir):
        raise Refusal("why")

    monkeypatch.setattr(prepare_data, "prepare", refuse)
    assert main(["mnist", f"--data_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err == "scripts/prepare_data: why\n"


def test_tensorflow_missing_names_the_command(tmp_path):
    if prepare_data.importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is installed")
    pytest.importorskip("tensorflow_datasets")
    command = [sys.executable, prepare_data.__file__, "mnist", f"--data_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("-e '.[tfds]'")
    assert not list(tmp_path.iterdir())


TINY = """
import numpy as np
import tensorflow_datasets as tfds

class TinyDigits(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image, label = tfds.features.Image(shape=(4, 4, 1)), tfds.features.ClassLabel(num_classes=3)
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict(image=image, label=label)))

    def _split_generators(self, downloads):
        return dict(train=self._generate_examples())

    def _generate_examples(self):
        for i in range(5):
            yield i, dict(image=np.full((4, 4, 1), i, np.uint8), label=i % 3)
"""


def test_a_whole_preparation(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    if not prepare_data.importlib.util.find_spec("tensorflow"):
        pytest.skip("needs the extra tfds")
    package, data_dir = tmp_path / "tiny_digits", tmp_path / "data"
    package.mkdir()
    (package / "__init__.py").write_text(TINY)  # TFDS looks for files beside a builder
    root = Path(prepare_data.__file__).parent.parent
    run = f"import sys; sys.path[:0] = {[str(tmp_path), str(root)]}; import tiny_digits; "
    run += "from scripts import prepare_data; "
    run += f"sys.exit(prepare_data.main(['tiny_digits', '--data_dir={data_dir}']))"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    directory = prepared("tiny_digits", data_dir)
    rows = list(tfds.builder_from_directory(directory).as_data_source(split="train"))
    assert sorted(int(np.max(row["image"])) for row in rows) == [0, 1, 2, 3, 4]
