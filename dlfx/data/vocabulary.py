"""Vocabularies: text to whole numbers and back, by characters, by words or by byte pairs."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlfx.types import UserError, unknown

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>")  # in this order at the start of every vocabulary that has them
WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")  # a word, inner apostrophes and all, or one mark of punctuation


class Vocabulary(NamedTuple):
    """A numbering of symbols.

    Attributes:
      kind: one of `KINDS`.
      symbols: the symbol of every number.
      special: special token to its number, such as `{"<pad>": 0, "<eos>": 3}`; holds only those that there are.
      encode: text, or a list of its symbols, to numbers `[n]` int32. No special token is added.
      decode: numbers `[n]` to text, without `<pad>`, `<bos>` and `<eos>`.
      stored: what a file keeps of it, in the types of JSON.
    """

    kind: str
    symbols: tuple[str, ...]
    special: dict[str, int]
    encode: Callable[[str | Sequence[str]], np.ndarray]
    decode: Callable[[Iterable[int]], str]
    stored: dict[str, Any]

    @property
    def size(self) -> int:
        """How many symbols there are."""
        return len(self.symbols)


def split_words(text: str) -> list[str]:
    """The words and marks of punctuation of a text, without the space between them."""
    return WORD.findall(text)


def of_symbols(kind: str, symbols: Sequence[str], special: Sequence[str] = ()) -> Vocabulary:
    """The vocabulary of given symbols, numbered in their order after the special tokens.

    Args:
      kind: `characters` or `words`.
      symbols: without repetition.
      special: of `SPECIAL`.
    """
    for token in special:
        if token not in SPECIAL:
            raise unknown("special token", token, SPECIAL)
    chosen = tuple(token for token in SPECIAL if token in special)
    every = (*chosen, *symbols)
    numbers = {token: i for i, token in enumerate(every)}
    if len(numbers) < len(every):
        repeated = [symbol for symbol, count in Counter(every).items() if count > 1]
        raise UserError(f"a vocabulary holds {repeated[0]!r} more than once")
    special_numbers = {token: i for i, token in enumerate(chosen)}
    silent = {special_numbers[token] for token in ("<pad>", "<bos>", "<eos>") if token in special_numbers}
    unk = special_numbers.get("<unk>", -1)

    def missing(symbol: str, position: int) -> UserError:
        what = "character" if kind == "characters" else "word"
        return UserError(
            f"the vocabulary of {len(every)} {kind} has no {what} {symbol!r} (number {position} of the text), no <unk>"
        )

    def encode_words(text: str | Sequence[str]) -> np.ndarray:
        words = split_words(text) if isinstance(text, str) else text
        ids = np.fromiter((numbers.get(word, unk) for word in words), np.int32, len(words))
        if unk < 0 and (ids < 0).any():
            first = int(np.argmax(ids < 0))
            raise missing(words[first], first)
        return ids

    points = np.array([ord(symbol) for symbol in symbols], np.int64) if kind == "characters" else np.zeros(0, np.int64)
    table = np.full(int(points.max(initial=0)) + 2, unk, np.int32)  # number of a code point; the last: of those beyond
    table[points] = np.arange(len(chosen), len(every)) if kind == "characters" else 0

    def encode_characters(text: str | Sequence[str]) -> np.ndarray:
        text = text if isinstance(text, str) else "".join(text)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = table[np.minimum(codes, len(table) - 1)]
        if unk < 0 and (ids < 0).any():
            first = int(np.argmax(ids < 0))
            raise missing(text[first], first)
        return ids

    def decode(ids: Iterable[int]) -> str:
        return ("" if kind == "characters" else " ").join(every[int(i)] for i in ids if int(i) not in silent)

    stored = {"kind": kind, "special": list(chosen), "symbols": list(symbols)}
    encode = encode_characters if kind == "characters" else encode_words
    return Vocabulary(kind, every, special_numbers, encode, decode, stored)


def characters(texts: str | Iterable[str], special: Sequence[str] = ()) -> Vocabulary:
    """Every character that occurs, in the order of Unicode.

    Args:
      texts: what to number.
      special: which of `SPECIAL` to have.
    """
    found: set[str] = set()
    for text in _several(texts):
        found.update(text)
    return of_symbols("characters", sorted(found), special)


def words(
    texts: str | Iterable[str | Sequence[str]],
    special: Sequence[str] = ("<pad>", "<unk>"),
    max_size: int = 0,
    min_count: int = 1,
) -> Vocabulary:
    """The words that occur, the most frequent first, and in alphabetical order where they occur equally often.

    Args:
      texts: what to number: texts, which `split_words` splits, or lists of words.
      special: which of `SPECIAL` to have.
      max_size: the most symbols to keep, the special ones counted; 0: all.
      min_count: words that occur less often are left out.
    """
    counts: Counter[str] = Counter()
    for text in _several(texts):
        counts.update(split_words(text) if isinstance(text, str) else text)
    kept = sorted(
        (word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)
    )
    return of_symbols("words", kept[: max(max_size - len(special), 0)] if max_size else kept, special)


def byte_pairs(texts: str | Iterable[str], size: int, special: Sequence[str] = ()) -> Vocabulary:
    """Byte-pair encoding over bytes: the 256 bytes, and the most frequent merges of them. Encodes every text.

    Args:
      texts: what to learn the merges from.
      size: how many symbols to have, special ones and bytes counted. A short text may give fewer.
      special: which of `SPECIAL` to have; there is no need for `<unk>`.

    Raises:
      UserError: if the size has no room for the bytes, or the `tokenizers` library is not installed.

    Source: Sennrich, Haddow and Birch 2016, Neural Machine Translation of Rare Words with Subword Units; over bytes:
      Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.2.
    """
    library = _tokenizers()
    if size < 256 + len(special):
        raise UserError(f"a byte-pair vocabulary of {size} has no room for the 256 bytes and {len(special)} special")
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[token for token in SPECIAL if token in special],
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(_several(texts), trainer)
    return _of_tokenizer(tokenizer)


# What the special tokens are called in published tokenizers.
PUBLISHED = {
    "<pad>": ("<pad>", "[PAD]"),
    "<unk>": ("<unk>", "[UNK]"),
    "<bos>": ("<bos>", "<s>", "[CLS]", "<|endoftext|>"),
    "<eos>": ("<eos>", "</s>", "[SEP]", "<|endoftext|>"),
}


def _of_tokenizer(tokenizer: Any) -> Vocabulary:
    # Text that spells a special token out is text: it must not smuggle the token in.
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    numbers = tokenizer.get_vocab(with_added_tokens=True)
    symbols = [""] * (max(numbers.values()) + 1)
    for symbol, i in numbers.items():
        symbols[i] = symbol
    special = {}
    for token, names in PUBLISHED.items():
        found = [numbers[name] for name in names if name in numbers]
        if found:
            special[token] = found[0]
    silent = {special[token] for token in ("<pad>", "<bos>", "<eos>") if token in special}

    def encode(text: str | Sequence[str]) -> np.ndarray:
        split = not isinstance(text, str)
        return np.asarray(tokenizer.encode(text, is_pretokenized=split, add_special_tokens=False).ids, np.int32)

    def decode(ids: Iterable[int]) -> str:
        return tokenizer.decode([int(i) for i in ids if int(i) not in silent], skip_special_tokens=False)

    return Vocabulary(
        "byte_pairs",
        tuple(symbols),
        special,
        encode,
        decode,
        {"kind": "byte_pairs", "tokenizer": json.loads(tokenizer.to_str())},
    )


def _tokenizers() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise UserError("byte-pair vocabularies need tokenizers: pip install -e '.[text]'") from error
    return tokenizers


def _several(texts: Any) -> Iterable[Any]:
    return [texts] if isinstance(texts, str) else texts


KINDS: dict[str, Callable[[dict[str, Any]], Vocabulary]] = {
    "characters": lambda stored: of_symbols("characters", stored["symbols"], stored["special"]),
    "words": lambda stored: of_symbols("words", stored["symbols"], stored["special"]),
    "byte_pairs": lambda stored: _of_tokenizer(_tokenizers().Tokenizer.from_str(json.dumps(stored["tokenizer"]))),
}


def of_stored(stored: dict[str, Any]) -> Vocabulary:
    """The vocabulary that `stored` is of."""
    if stored["kind"] not in KINDS:
        raise unknown("kind of vocabulary", stored["kind"], KINDS)
    return KINDS[stored["kind"]](stored)


def save(vocabulary: Vocabulary, path: str | Path) -> None:
    """Writes a vocabulary to a JSON file, the same bytes for the same vocabulary."""
    Path(path).write_text(json.dumps(vocabulary.stored, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def read(path: str | Path) -> Vocabulary:
    """The vocabulary in a file of `save`, or in a `tokenizer.json` as Hugging Face's checkpoints have it.

    Raises:
      UserError: if there is no such file, or it holds no vocabulary.
    """
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        if "model" in stored:
            stored = {"kind": "byte_pairs", "tokenizer": stored}
        return of_stored(stored)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no vocabulary {path}") from None
    except Exception as error:  # tokenizers raises Exception itself
        raise UserError(f"{path} is not a vocabulary ({type(error).__name__}: {error})") from error
