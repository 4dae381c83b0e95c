"""Generated reviews, entities and segmented sentences: right labels by another road, parts that share nothing."""

import re

import pytest

from dlfx.data import labelled_text
from dlfx.data.sequence_tasks import PARTS
from dlfx.types import UserError


def verdict(text: str) -> int:
    """The side of a review, read from its text: the clause that counts, and its first opinion with or without a no."""
    text = re.sub(rf"^({'|'.join(labelled_text.OPENINGS)}) , ", "", text.removesuffix(" ."))
    if " , but " in text:
        text = text.split(" , but ")[1]
    elif text.startswith("although "):
        text = text.split(" , ")[1]
    else:
        text = text.split(" , although ")[0]
    words = text.split()
    at = next(k for k, word in enumerate(words) if word in labelled_text.GOOD + labelled_text.BAD)
    denied = bool({"not", "never", "nobody"} & set(words[:at]))
    return int((words[at] in labelled_text.GOOD) != denied)


def test_reviews_mean_what_their_labels_say():
    parts = {part: labelled_text.reviews(part, 600) for part in PARTS}
    for part, rows in parts.items():
        assert rows == labelled_text.reviews(part, 600) and len(dict(rows)) == 600
        assert abs(sum(label for _, label in rows) - 300) <= 1
        assert all(verdict(text) == label for text, label in rows)
    texts = [text for rows in parts.values() for text, _ in rows]
    assert len(set(texts)) == 1800


def test_counting_good_and_bad_words_is_not_enough_for_reviews():
    def counted(text):
        words = text.split()
        return sum(word in labelled_text.GOOD for word in words) > sum(word in labelled_text.BAD for word in words)

    rows = labelled_text.reviews("test", 600)
    assert sum(counted(text) == label for text, label in rows) < 0.7 * 600


def names(sentences):
    """Kind to the words of its names."""
    found: dict[str, set[str]] = {}
    for words, tags in sentences:
        assert len(words) == len(tags)
        for k, (word, tag) in enumerate(zip(words, tags, strict=True)):
            if tag[0] == "I":
                assert tags[k - 1][1:] == tag[1:]
            if tag != "O":
                found.setdefault(tag, set()).add(word)
    return found


def test_the_names_of_the_test_are_held_out():
    train, test = (names(labelled_text.entities(part, 800)) for part in ("train", "test"))
    assert set(train) == set(test) == {"B-PER", "I-PER", "B-LOC", "B-ORG", "I-ORG"}
    shared = set(labelled_text._BOTH.split())
    for kind in ("B-PER", "I-PER", "B-LOC", "B-ORG"):
        assert train[kind] & test[kind] <= shared and len(test[kind] - shared) >= 4
    assert shared & train["B-PER"] & train["B-LOC"] & train["B-ORG"]
    assert labelled_text.entities("test", 20) == labelled_text.entities("test", 800)[:20]
    every = [word for words, _ in labelled_text.entities("valid", 300) for word in words]
    assert not any(set(word) & set('{}"') for word in every)


def test_bmes_and_back():
    characters, tags = labelled_text.bmes(["我", "喜欢", "图书馆", "星期一二"])
    assert "".join(characters) == "我喜欢图书馆星期一二" and "".join(tags) == "SBEBMEBMME"
    assert labelled_text.words_of(characters, tags) == ["我", "喜欢", "图书馆", "星期一二"]
    assert labelled_text.words_of("abcd", "MEMS") == ["ab", "c", "d"]  # tags that no words have


def test_segmented_sentences_of_all_parts_differ_and_characters_have_several_tags():
    parts = {part: labelled_text.segmentation(part, 300) for part in PARTS}
    texts = ["".join(characters) for rows in parts.values() for characters, _ in rows]
    assert len(set(texts)) == 900 and parts["test"] == labelled_text.segmentation("test", 300)
    tags_of: dict[str, set[str]] = {}
    words = {word for text in labelled_text._CHINESE.values() for word in text.split()}
    for characters, tags in parts["train"]:
        found = labelled_text.words_of(characters, tags)
        assert all(word in words or len(word) == 1 or word == "因为" for word in found)
        for character, tag in zip(characters, tags, strict=True):
            tags_of.setdefault(character, set()).add(tag)
    assert tags_of["生"] == {"B", "E"} and "S" in tags_of["大"] and "B" in tags_of["大"]


def test_a_users_segmented_file(tmp_path):
    path = tmp_path / "segmented.txt"
    path.write_text("我 喜欢 茶\n\n" + "".join(f"你 {'好' * (1 + k)}\n" for k in range(100)), encoding="utf-8")
    parts = labelled_text.read_segmented(path)
    rows = sum(parts.values(), [])
    assert len(rows) == 101 and (list("我喜欢茶"), list("SBES")) in rows and len(parts["train"]) > 80
    path.write_text("我喜欢茶\n", encoding="utf-8")
    with pytest.raises(UserError, match="no line of .* spaces"):
        labelled_text.read_segmented(path)
