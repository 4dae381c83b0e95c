import numpy as np
import pytest

from dlfx.data.labelled_files import read_labelled, read_tagged, read_vectors
from dlfx.data.vocabulary import of_symbols
from dlfx.types import UserError


def written(tmp_path, text):
    path = tmp_path / "file"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_labels_and_texts(tmp_path):
    lines = [f"{'ab'[k % 2]}\t text  {k}\twith a tab" for k in range(200)]
    parts = read_labelled(written(tmp_path, "\n".join(["", *lines, lines[0], ""])))
    assert len(parts["train"]) > 150 and parts["valid"] and parts["test"]
    assert sum(map(len, parts.values())) == 201
    texts = [{text for text, _ in rows} for rows in parts.values()]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
    assert ("text  3\twith a tab", "b") in [row for rows in parts.values() for row in rows]


def test_sentences_of_conll(tmp_path):
    text = "-DOCSTART- -X- O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\n\nAnn B-PER\nLee I-PER\nBo B-PER\nRome I-LOC\n"
    parts = read_tagged(written(tmp_path, text))
    rows = sorted((row for part in parts.values() for row in part), key=lambda row: row[0])
    assert rows == [
        (["Ann", "Lee", "Bo", "Rome"], ["B-PER", "I-PER", "B-PER", "B-LOC"]),
        (["EU", "rejects"], ["B-ORG", "O"]),
    ]


def test_vectors_of_words(tmp_path):
    words = of_symbols("words", [f"w{k}" for k in range(4000)], ("<pad>", "<unk>"))
    rng = np.random.default_rng(0)
    rows = [f"w{k} " + " ".join(f"{x:.4f}" for x in rng.normal(0, 0.3, 5)) for k in range(0, 4000, 2)]
    vectors, found = read_vectors(written(tmp_path, "\n".join(["2000 5", *rows, "other 1 2 3 4 5"]) + "\n"), words)
    assert vectors.shape == (4002, 5) and found == 2000
    np.testing.assert_allclose(vectors[2 + 6], np.array(rows[3].split()[1:], np.float32))
    known, drawn = vectors[2::2], vectors[3::2]
    np.testing.assert_allclose(drawn.std(), known.std(), rtol=0.02)
    assert np.abs(drawn).max() <= np.sqrt(3) * known.std() * 1.001
    again, _ = read_vectors(written(tmp_path, "\n".join(rows)), words)  # as GloVe has it
    np.testing.assert_array_equal(again, vectors)


MISTAKES = [
    (read_labelled, "a\tb\nno tab", "line 2 of .* has no tab: each line must be label TAB text"),
    (read_labelled, "a\t ", "line 1 of .* has an empty side"),
    (read_tagged, "word\tO\nword", "line 2 of .* has one column"),
    (read_tagged, "word\tX-PER", "line 1 of .* has the tag 'X-PER'"),
    (read_tagged, "word\tB", "line 1 of .* has the tag 'B'"),
]


@pytest.mark.parametrize(("read", "text", "message"), MISTAKES)
def test_a_mistake_is_named(tmp_path, read, text, message):
    with pytest.raises(UserError, match=message):
        read(written(tmp_path, text))


def test_mistakes_in_vectors_are_named(tmp_path):
    words = of_symbols("words", ["a", "b"])
    for text, message in [
        ("a 1 2\nb 1", "line 2 of .* has 1 numbers, and those before it 2"),
        ("a 1 x", "line 1 of .* no number"),
        ("c 1 2 3", "none of the 2 words"),
        (b"a \xff 2 3", "not UTF-8"),
    ]:
        with pytest.raises(UserError, match=message):
            read_vectors(written(tmp_path, text), words)
    with pytest.raises(UserError, match="there is no text file"):
        read_vectors(tmp_path / "missing", words)
