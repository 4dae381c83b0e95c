"""Texts with labels and tags that need no download. They are generated from the grammars below: nobody wrote them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlfx.data.corpora import read_text
from dlfx.data.sequence_tasks import PARTS, part_of
from dlfx.types import UserError

Tagged = tuple[list[str], list[str]]  # symbols, and the tag of each
LABELLED = 0xA0761D65  # keeps these draws apart from every other use of a seed

_SUBJECTS = "film movie story plot cast ending book novel dialogue music script acting camera director hero pace"
_GOOD = "good great wonderful moving clever funny brilliant charming fresh superb gripping honest lovely witty"
_BAD = "bad awful dull boring weak clumsy tedious terrible flat stale silly hollow tiresome shallow"
_DEGREES = "very really quite rather truly so"
_OPENINGS = "frankly honestly overall sadly happily well"
SUBJECTS, GOOD, BAD, DEGREES, OPENINGS = (words.split() for words in (_SUBJECTS, _GOOD, _BAD, _DEGREES, _OPENINGS))


def _pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _clause(rng: np.random.Generator, positive: bool) -> str:
    """An opinion: a plain word of its side, or one of the other side denied."""
    subject = f"the {_pick(rng, SUBJECTS)}"
    form = rng.integers(5)
    straight, opposite = (GOOD, BAD) if positive else (BAD, GOOD)
    if form == 0:
        return f"{subject} is {_pick(rng, straight)}"
    if form == 1:
        return f"{subject} is {_pick(rng, DEGREES)} {_pick(rng, straight)}"
    if form == 2:
        return f"{subject} is not {_pick(rng, opposite)}"
    if form == 3:
        return f"nobody could call {subject} {_pick(rng, opposite)}"
    return f"{subject} is never {_pick(rng, opposite)} and always {_pick(rng, straight)}"


def _review(rng: np.random.Generator, positive: bool) -> str:
    """One opinion, two that agree, or two that do not: then what follows `but`, or comes without `although`, counts."""
    form = rng.integers(5)
    say = _clause(rng, positive)
    if form == 0:
        text = say
    elif form == 1:
        text = f"{say} and {_clause(rng, positive)}"
    elif form == 2:
        text = f"{_clause(rng, not positive)} , but {say}"
    elif form == 3:
        text = f"although {_clause(rng, not positive)} , {say}"
    else:
        text = f"{say} , although {_clause(rng, not positive)}"
    return (f"{_pick(rng, OPENINGS)} , " if rng.integers(4) == 0 else "") + text + " ."


def reviews(part: str, n: int) -> list[tuple[str, int]]:
    """n different generated reviews and whether each is favourable, 1 or 0, half of either; always the same ones.

    To count good and bad words is not enough: words are denied, and of two opinions that differ one decides. A review
    is in one part only, by a hash of its text; the words are the same in all parts.

    Args:
      part: `train`, `valid` or `test`.
      n: how many.
    """
    rng = _generator(part, 0)
    found: dict[str, int] = {}
    while len(found) < n:
        positive = len(found) % 2
        text = _review(rng, bool(positive))
        if part_of(text) == part:
            found.setdefault(text, positive)
    return list(found.items())


def _generator(part: str, which: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[PARTS.index(part), LABELLED], counter=[0, 0, 0, which]))


_NAMES = {
    "PER": (
        "Anna Boris Clara David Emma Felix Greta Henry Irene Jonas Karin Louis Maria Nadia Oscar Paula Quentin Rosa "
        "Simon Tilda Umberto Vera Walter Xenia Yusuf Zoe Amir Bella Carlos Dilara Erik Fatima"
    ),
    "family": (
        "Adler Berger Conti Duval Evans Fischer Garcia Hansen Ivanov Jensen Keller Lindqvist Moreau Novak Olsen Petrov "
        "Quinn Rossi Silva Tanaka Urban Vogel Weber Yilmaz Zhang Baker Castro Dubois Eriksen Fuchs"
    ),
    "LOC": (
        "Paris London Vienna Oslo Madrid Lisbon Prague Dublin Athens Warsaw Zurich Hamburg Bergen Porto Lyon Turin "
        "Basel Kyoto Lima Quito Nairobi Cairo Boston Denver Jordan Sydney Chelsea Victoria Lincoln Austin"
    ),
    "ORG": (
        "Acme Borealis Cobalt Delphi Everest Fabrik Gemini Helios Indigo Juniper Kestrel Lumina Meridian Nimbus Orion "
        "Pinnacle Quasar Raven Solaris Titan Umbra Vertex Zenith Aurora Beacon Jordan Lincoln Chelsea Austin Victoria"
    ),
}
_BOTH = "Jordan Sydney Chelsea Victoria Lincoln Austin"  # also first names: only what is around them tells
_ENDINGS = "Ltd Bank Group Institute Airlines Press"
# In a template a capital word is a slot, unless it begins the sentence; {PER} and its like are filled with names.
_TEMPLATES = """
{PER} lives in {LOC} .
{PER} works for {ORG} in {LOC} .
{ORG} opened an office in {LOC} last year .
the mayor of {LOC} met {PER} on Monday .
{PER} and {PER} flew from {LOC} to {LOC} .
shares of {ORG} fell after {PER} resigned .
{ORG} has bought {ORG} , said {PER} .
"we leave {LOC} tomorrow , " {PER} told reporters .
the weather in {LOC} was cold , and {PER} stayed at home .
{PER} , who was born in {LOC} , now leads {ORG} .
nobody at {ORG} wanted to comment .
it rained on Monday and the shops stayed closed .
a train to {LOC} was late again .
{LOC} and {LOC} are two hours apart by train .
the board of {ORG} named {PER} its president .
"""


def entities(part: str, n: int) -> list[Tagged]:
    """n generated sentences as words with BIO tags of persons, places and organisations; always the same ones.

    The names of the test and of the validation are held out: no name of theirs, except for a few that persons, places
    and firms share, is in the training part, so that only the words around them tell what they are.

    Args:
      part: `train`, `valid` or `test`.
      n: how many.
    """
    rng = _generator(part, 1)
    shared = _BOTH.split()
    every = {kind: [name for name in names.split() if name not in shared] for kind, names in _NAMES.items()}
    own = {kind: [name for k, name in enumerate(names) if _part_of_row(k) == part] for kind, names in every.items()}
    templates = [line.split() for line in _TEMPLATES.strip().replace('"', "").split("\n")]

    def name(kind: str) -> list[str]:
        first = _pick(rng, shared) if rng.integers(8) == 0 else _pick(rng, own[kind])
        if kind == "PER":
            return [first, _pick(rng, own["family"])] if rng.integers(3) else [first]
        return [first, _pick(rng, _ENDINGS.split())] if kind == "ORG" and rng.integers(2) else [first]

    sentences = []
    for _ in range(n):
        words: list[str] = []
        tags: list[str] = []
        for slot in templates[int(rng.integers(len(templates)))]:
            if slot[0] == "{":
                kind = slot[1:-1]
                filled = name(kind)
                tags += [f"B-{kind}"] + [f"I-{kind}"] * (len(filled) - 1)
                words += filled
            else:
                words.append(slot)
                tags.append("O")
        sentences.append((words, tags))
    return sentences


def _part_of_row(k: int) -> str:
    """Of ten names in a row, seven are for training, one for validation and two for the test."""
    return "train" if k % 10 < 7 else "valid" if k % 10 == 7 else "test"


_CHINESE = {
    "who": "我 你 他 她 我们 你们 他们 老师 学生 医生 朋友 妈妈 爸爸 孩子 同学 经理 司机 记者",
    "when": "今天 明天 昨天 现在 早上 晚上 下午 去年 明年 星期一 周末",
    "where": "北京 上海 中国 学校 医院 公司 家里 图书馆 饭店 机场 公园 大学 火车站",
    "how": "很 非常 也 都 常常 已经 不 还 一起 马上",
    "do": "吃 喝 看 买 学习 喜欢 研究 使用 准备 讨论 需要 找 写 听 介绍",
    "what": "苹果 水果 书 电影 汉语 中文 茶 咖啡 问题 电脑 手机 音乐 文章 生物 计划 地图 报纸 生活 作业",
    "measure": "一本 两个 三杯 几张 一些 很多 这个 那个",
    "is": "好 大 高兴 漂亮 重要 便宜 有意思 难 忙",
}
_CHINESE_FORMS = [
    "who when how do what 。",
    "when who 在 where do what 。",
    "who do 了 measure what 。",
    "what how is 。",
    "who 的 what how is 。",
    "who 和 who how 在 where do what 。",
    "who 想 去 where do what ， 因为 what how is 。",
    "where 的 what is 吗 ？",
]


def bmes(words: Sequence[str]) -> Tagged:
    """Words to characters and tags: S for a word of one character, else B for its first, E for its last, M between."""
    tags = ["S" if len(word) == 1 else "B" + "M" * (len(word) - 2) + "E" for word in words]
    return list("".join(words)), list("".join(tags))


def words_of(characters: Sequence[str], tags: Sequence[str]) -> list[str]:
    """The inverse of `bmes`; a word begins at every B and S, and after every E and S, whatever the tags."""
    words: list[str] = []
    before = "S"
    for character, tag in zip(characters, tags, strict=True):
        if tag in "BS" or before in "ES":
            words.append(character)
        else:
            words[-1] += character
        before = tag
    return words


def segmentation(part: str, n: int) -> list[Tagged]:
    """n different generated Chinese sentences as characters with BMES tags; always the same ones.

    Words and forms are the same in all parts, sentences are not. Several characters are words or parts of words (生 in
    学生, 生物, 生活; 大 and 大学), so that a character alone does not tell its tag.

    Args:
      part: `train`, `valid` or `test`.
      n: how many.
    """
    rng = _generator(part, 2)
    lists = {slot: words.split() for slot, words in _CHINESE.items()}
    found: dict[str, Tagged] = {}
    while len(found) < n:
        slots = _pick(rng, _CHINESE_FORMS).split()
        words = [_pick(rng, lists[slot]) if slot in lists else slot for slot in slots]
        text = "".join(words)
        if part_of(text) == part:
            found.setdefault(text, bmes(words))
    return list(found.values())


def read_segmented(path: str | Path) -> dict[str, list[Tagged]]:
    """The user's own segmented sentences, a line each with spaces between the words, as part to characters and tags.

    The part of a sentence is by a hash of its characters: no sentence is in two.

    Raises:
      UserError: if the file cannot be read, or no line of it has two words.
    """
    parts: dict[str, list[Tagged]] = {part: [] for part in PARTS}
    lines = [line.split() for line in read_text(path).split("\n")]
    if all(len(words) < 2 for words in lines):
        raise UserError(f"no line of {path} has spaces between its words: it must be segmented to learn from")
    for words in lines:
        if words:
            parts[part_of("".join(words))].append(bmes(words))
    return parts
