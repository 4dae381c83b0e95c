"""Vocabularies: numbers and back, what is missing, and files."""

import json

import numpy as np
import pytest

from dlfx.data import vocabulary
from dlfx.types import UserError


def test_characters_are_numbered_in_the_order_of_unicode():
    v = vocabulary.characters("hello, wörld 你\n")
    assert v.symbols == tuple(sorted(set("hello, wörld 你\n")))
    ids = v.encode("low 你\n")
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, [v.symbols.index(c) for c in "low 你\n"])
    assert v.decode(ids) == "low 你\n"
    assert v.encode("").shape == (0,)


def test_special_tokens_come_first_and_are_not_decoded():
    v = vocabulary.characters(["ba"], special=("<eos>", "<pad>"))
    assert v.symbols == ("<pad>", "<eos>", "a", "b") and v.special == {"<pad>": 0, "<eos>": 1} and v.size == 4
    assert v.decode([3, 2, 1, 0, 0]) == "ba"
    with pytest.raises(UserError, match="<mask>.*<pad>"):
        vocabulary.characters("ab", special=("<mask>",))


@pytest.mark.parametrize("make", [vocabulary.characters, vocabulary.words])
def test_a_missing_symbol_is_named_unless_there_is_an_unknown_token(make):
    with pytest.raises(UserError, match=r"'z' \(number 2 "):
        make("a b c", special=()).encode(["a", "b", "z"])
    v = make("a b c", special=("<unk>",))
    assert v.encode("z")[0] == v.special["<unk>"] == 0
    assert v.encode("\U0010ffff")[0] == 0  # beyond every known code point
    assert v.encode("b")[0] != 0


def test_words_by_frequency_then_alphabet():
    text = "The cat's hat, the hat. the end"
    assert vocabulary.split_words(text) == ["The", "cat's", "hat", ",", "the", "hat", ".", "the", "end"]
    v = vocabulary.words(text)
    assert v.symbols == ("<pad>", "<unk>", "hat", "the", ",", ".", "The", "cat's", "end")
    assert vocabulary.words(text, max_size=4).symbols == ("<pad>", "<unk>", "hat", "the")
    assert vocabulary.words(text, min_count=2).symbols == ("<pad>", "<unk>", "hat", "the")
    assert v.decode(v.encode("the end.")) == "the end ."
    np.testing.assert_array_equal(v.encode(["the", "dog"]), [3, 1])
    tags = vocabulary.words([["B-PER", "O"], ["O"]], special=("<pad>",))
    assert tags.symbols == ("<pad>", "O", "B-PER")


def test_a_repeated_symbol_is_refused():
    with pytest.raises(UserError, match="'a' more than once"):
        vocabulary.of_symbols("words", ["a", "b", "a"])


TEXT = "low lower lowest new newer newest wide wider widest " * 3


def test_byte_pairs_merge_what_is_frequent_and_encode_every_text():
    pytest.importorskip("tokenizers")
    v = vocabulary.byte_pairs(TEXT, 270, special=("<eos>", "<pad>"))
    assert v.special == {"<pad>": 0, "<eos>": 1} and v.size == 270
    assert v.symbols == vocabulary.byte_pairs(TEXT, 270, special=("<pad>", "<eos>")).symbols
    for text in ("lower newest", "  Grüße,\n\n世界 \U0001f600", "<eos><pad>"):
        ids = v.encode(text)
        assert ids.dtype == np.int32 and v.decode(ids) == text and not {0, 1} & set(ids.tolist())
    assert len(v.encode("lower newest")) < len("lower newest") / 2
    assert v.decode([1, *v.encode("new"), 0]) == "new"
    with pytest.raises(UserError, match="100 has no room for the 256 bytes"):
        vocabulary.byte_pairs(TEXT, 100)


def test_the_first_merge_is_the_most_frequent_pair():
    pytest.importorskip("tokenizers")
    pairs: dict[str, int] = {}
    for word in TEXT.replace(" ", " Ġ").split(" "):
        for pair in zip(word, word[1:], strict=False):
            pairs["".join(pair)] = pairs.get("".join(pair), 0) + 1
    most = max(pairs.values())
    first = vocabulary.byte_pairs(TEXT, 257).symbols[256]
    assert pairs[first] == most


@pytest.mark.parametrize("kind", ["characters", "words", "byte_pairs"])
def test_a_file_gives_the_vocabulary_back(tmp_path, kind):
    if kind == "byte_pairs":
        pytest.importorskip("tokenizers")
        v = vocabulary.byte_pairs(TEXT, 264, special=("<eos>",))
    else:
        v = {"characters": vocabulary.characters, "words": vocabulary.words}[kind](TEXT + "é", special=("<pad>",))
    path = tmp_path / "vocabulary.json"
    vocabulary.save(v, path)
    again = vocabulary.read(path)
    assert again.kind == kind and again.symbols == v.symbols and again.special == v.special
    np.testing.assert_array_equal(again.encode("low wide"), v.encode("low wide"))
    first = path.read_bytes()
    vocabulary.save(again, path)
    assert path.read_bytes() == first


def test_a_hugging_face_tokenizer_file_is_read(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers.models import WordPiece

    pieces = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "play": 4, "##ing": 5}
    tokenizer = tokenizers.Tokenizer(WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    v = vocabulary.read(tmp_path / "tokenizer.json")
    assert v.special == {"<pad>": 0, "<unk>": 1, "<bos>": 2, "<eos>": 3}
    np.testing.assert_array_equal(v.encode("playing"), [4, 5])


def test_a_file_that_is_no_vocabulary_is_reported(tmp_path):
    with pytest.raises(UserError, match="there is no vocabulary"):
        vocabulary.read(tmp_path / "none.json")
    path = tmp_path / "v.json"
    path.write_text("{")
    with pytest.raises(UserError, match="not a vocabulary"):
        vocabulary.read(path)
    path.write_text(json.dumps({"kind": "syllables"}))
    with pytest.raises(UserError, match="'syllables'.*characters, words, byte_pairs"):
        vocabulary.read(path)
