"""Corpora: the embedded prose, splits that hold still, and files that are refused."""

import hashlib
import json

import pytest

from dlfx.data import corpora
from dlfx.types import UserError


def test_the_embedded_prose_is_prose_of_this_python():
    corpus = corpora.python_prose()
    parts = [corpora.joined(documents) for documents in corpus[1:4]]
    whole = "\n\n".join(parts)
    assert len(whole) > 500_000 and whole.isascii() and ">>>" not in whole
    assert 0.8 < len(parts[0]) / len(whole) < 0.97 and min(map(len, parts)) > 5_000
    paragraphs = whole.split("\n\n")
    assert len(set(paragraphs)) == len(paragraphs)  # nothing of the test is in the training text
    assert "Return a shell-escaped string from *split_command*." in paragraphs  # shlex.join
    assert corpus.sha256 == hashlib.sha256(b"".join(part.encode() + b"\0" for part in parts)).hexdigest()


def test_it_is_gathered_the_same_again_and_in_the_order_of_the_source(tmp_path):
    (tmp_path / "b.py").write_text('"""The module b says these five words."""\n')
    (tmp_path / "a.py").write_text(
        '"""First of all there is this.\n\n    >>> no prose in this one at all\n\nShort one.\n"""\n'
        "class C:\n"
        '    """The class comes second in here."""\n'
        "    def f(self):\n"
        '        """And third the method of it."""\n'
        "if True:\n"
        "    def g():\n"
        '        """Fourth is what stands in a branch."""\n'
        "def h():\n"
        '    """Fünf ist kein ASCII, und fehlt daher."""\n'
    )
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "c.py").write_text('"""A test that nobody reads for prose."""\n')
    modules = corpora._modules(tmp_path)
    assert list(modules) == ["a", "b"]
    assert corpora.joined(list(modules.values())).split("\n\n") == [
        "First of all there is this.",
        "The class comes second in here.",
        "And third the method of it.",
        "Fourth is what stands in a branch.",
        "The module b says these five words.",
    ]


def test_a_stream_is_split_in_its_order():
    text = "".join(chr(97 + i % 26) for i in range(1115))
    train, valid, test = corpora.split_stream(text, (0.9, 0.1, 0))
    assert len(train) == int(0.9 * 1115) and train + valid == text and test == ""
    parts = corpora.split_stream(text)
    assert "".join(parts) == text and [len(part) for part in parts] == [1003, 56, 56]
    with pytest.raises(UserError, match="too short"):
        corpora.split_stream("ab")
    with pytest.raises(UserError, match="sum to 1"):
        corpora.split_stream(text, (0.9, 0.2, 0))


def test_documents_stay_in_their_part_whatever_else_there_is():
    documents = [f"document {i}" for i in range(2000)]
    parts = corpora.split_documents(documents)
    assert sorted(sum(parts, [])) == sorted(documents)
    assert 1750 < len(parts[0]) < 1850 and 60 < len(parts[1]) < 140 and 60 < len(parts[2]) < 140
    fewer = corpora.split_documents(documents[500:])
    for part, smaller in zip(parts, fewer, strict=True):
        assert set(smaller) <= set(part)


def test_a_users_file_is_read(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffGrüße\r\nund\r\nmehr\n".encode() * 20)
    assert corpora.read_text(path).startswith("Grüße\nund\nmehr\n")
    corpus = corpora.text_file(path, (0.8, 0.2, 0))
    assert corpus.name == "text.txt" and len(corpus.train) == 1 and corpus.test == ()
    assert corpora.text_file(path, (0.8, 0.1, 0.1)).sha256 != corpus.sha256


def test_bad_files_are_named_with_the_place(tmp_path):
    path = tmp_path / "text.txt"
    with pytest.raises(UserError, match="there is no text file .*text.txt"):
        corpora.read_text(path)
    with pytest.raises(UserError, match="directory"):
        corpora.read_text(tmp_path)
    path.write_bytes(b" \n")
    with pytest.raises(UserError, match="text.txt is empty"):
        corpora.read_text(path)
    path.write_bytes("naïve".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8: byte 0xef at offset 2"):
        corpora.read_text(path)


def make_tfds(root, texts, feature="text"):
    """A set of texts in the layout of TFDS, written by hand: split to its texts."""
    array_record_module = pytest.importorskip("array_record.python.array_record_module")

    def field(number, payload):
        size, varint = len(payload), b""
        while size > 127:
            varint, size = varint + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + varint + bytes([size]) + payload

    directory = root / "tiny" / "1.0.0"
    directory.mkdir(parents=True)
    kind = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}
    features = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": {feature: kind}},
    }
    (directory / "features.json").write_text(json.dumps(features))
    splits = []
    for split, rows in texts.items():
        path = directory / f"tiny-{split}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for row in rows:
            value = field(1, field(1, row.encode()))
            writer.write(field(1, field(1, field(1, feature.encode()) + field(2, value))))
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        lengths = [str(len(rows))]
        splits.append({"name": split, "filepathTemplate": template, "numBytes": "0", "shardLengths": lengths})
    info = {"name": "tiny", "version": "1.0.0", "fileFormat": "array_record", "splits": splits}
    (directory / "dataset_info.json").write_text(json.dumps(info))


def test_a_tfds_set_of_texts_is_read(tmp_path):
    rows = [f"text {k} größer" for k in range(300)]
    make_tfds(tmp_path / "all", {"train": rows[:200], "validation": rows[200:250], "test": rows[250:]})
    corpus = corpora.tfds("tiny", str(tmp_path / "all"))
    assert corpus[:4] == ("tfds:tiny", tuple(rows[:200]), tuple(rows[200:250]), tuple(rows[250:]))
    make_tfds(tmp_path / "two", {"train": rows[:200], "test": rows[250:]})
    corpus = corpora.tfds("tiny", str(tmp_path / "two"))
    assert sorted(corpus.train + corpus.valid) == sorted(rows[:200]) and len(corpus.train) > 170 and corpus.valid
    assert corpus.test == tuple(rows[250:])
    make_tfds(tmp_path / "one", {"train": ["abcdefghij" * 20]})
    corpus = corpora.tfds("tiny", str(tmp_path / "one"))
    assert [len(part[0]) for part in corpus[1:4]] == [180, 10, 10]


def test_a_tfds_set_that_has_no_texts_is_refused(tmp_path):
    with pytest.raises(UserError, match="tfds:tiny is not prepared"):
        corpora.tfds("tiny", str(tmp_path))
    make_tfds(tmp_path, {"train": ["a"]}, feature="sentence")
    with pytest.raises(UserError, match=r"no texts \(its features: \['sentence'\]"):
        corpora.tfds("tiny", str(tmp_path))


def test_sentences_end_at_marks_before_space_and_at_empty_lines():
    text = "Version 3.1 is out. Is it?\nYes!  A heading\n\n  The rest, e.g.this "
    assert corpora.sentences(text) == ["Version 3.1 is out.", "Is it?", "Yes!", "A heading", "The rest, e.g.this"]
    assert corpora.sentences(" \n\n ") == []
