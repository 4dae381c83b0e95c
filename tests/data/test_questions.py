"""Gaps in docstrings have their answers where they say; files of SQuAD; paragraphs by package."""

import json

import pytest

from dlfx.data import corpora, packages, questions
from dlfx.types import UserError


def test_gaps_are_what_is_missing_between_the_words_of_the_question():
    parts = {part: questions.gaps(part, 200) for part in ("train", "valid", "test")}
    assert [len(found) for found in parts.values()] == [200, 200, 200]
    for found in parts.values():
        for question, passage, first, last in found:
            assert question[:3] == passage[first - 3 : first] and question[3] == questions.GAP
            assert question[4:] == passage[last + 1 : last + 4] and 0 <= last - first <= 1
    texts = [{" ".join(example.passage) for example in found} for found in parts.values()]
    assert not texts[0] & (texts[1] | texts[2]) and not texts[1] & texts[2]
    assert parts["train"][:50] == questions.gaps("train", 50)
    held = " ".join(" ".join(corpora.python_prose().test).split())
    assert sum(" ".join(p).replace(" .", ".").replace(" ,", ",") in held for _, p, _, _ in parts["test"]) > 40


def test_squad(tmp_path):
    file = tmp_path / "squad.json"
    context = "Paris, the capital of France, isn't small."

    def write(text, start):
        asked = {"question": "What is it?", "answers": [{"text": text, "answer_start": start}]}
        nothing = {"question": "Why?", "answers": []}
        file.write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": [asked, nothing]}]}]}))
        return [example for found in questions.read_questions(file).values() for example in found]

    (example,) = write("the capital of France", context.index("the"))
    assert example.question == ["What", "is", "it", "?"] and example.answer == "the capital of France"
    (part,) = write("sn't", context.index("sn't"))  # a part of a word is that word
    assert part.answer == "isn't"
    with pytest.raises(UserError, match="'Rome' at 3 of the passage .* does not stand there"):
        write("Rome", 3)
    for wrong in ("{", '{"data": [{}]}', "[]"):
        file.write_text(wrong)
        with pytest.raises(UserError, match="not in the format of SQuAD"):
            questions.read_questions(file)


def test_packages_are_told_in_turn_and_parts_share_no_paragraph():
    parts = {part: packages.paragraphs(part, 300) for part in ("train", "valid", "test")}
    modules = corpora.python_modules()
    for found in parts.values():
        assert len(found) == 300
        assert [package for _, package in found[:20]] == [*packages.PACKAGES, *packages.PACKAGES]
        for text, package in found[::17]:
            assert any(text in document for name, document in modules.items() if name.split(".")[0] == package)
    texts = [{text for text, _ in found} for found in parts.values()]
    assert all(len(found) == 300 for found in texts)
    assert not texts[0] & (texts[1] | texts[2]) and not texts[1] & texts[2]
