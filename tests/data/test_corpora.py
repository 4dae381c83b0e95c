"""Corpora: the embedded prose, splits that hold still, and files that are refused."""

import hashlib

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
    found = corpora.joined(corpora._modules(tmp_path)).split("\n\n")
    assert found == [
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
