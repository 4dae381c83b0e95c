"""Texts to learn language from: the English prose that comes with Python, a file of the user's, or a TFDS set."""

import ast
import functools
import gc
import hashlib
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dlfx.data import sources
from dlfx.types import UserError

FRACTIONS = (0.9, 0.05, 0.05)  # for training, validation and test
BOUNDARY = re.compile(r"(?<=[.!?])\s+|\s*\n\s*\n\s*")  # between two sentences
# Folders of the standard library whose docstrings say little, or whose presence depends on how Python was installed.
SKIPPED = frozenset(
    [
        "test",
        "tests",
        "idlelib",
        "idle_test",
        "lib2to3",
        "distutils",
        "ensurepip",
        "turtledemo",
        "pydoc_data",
        "encodings",
        "site-packages",
        "dist-packages",
        "__pycache__",
        "__phello__",
    ]
)


class Corpus(NamedTuple):
    """Documents, split for good.

    Attributes:
      name: what to call it.
      train: documents to train on.
      valid: documents to choose by; may be empty.
      test: documents to report on; may be empty.
      sha256: of the bytes of all of it, in UTF-8: what the figures of a run belong to.
    """

    name: str
    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]
    sha256: str


def joined(documents: Sequence[str]) -> str:
    """The documents as one text, an empty line between them."""
    return "\n\n".join(documents)


def sentences(document: str) -> list[str]:
    """What stands between marks that end a sentence, with space behind them, or empty lines."""
    return [sentence.strip() for sentence in BOUNDARY.split(document) if sentence.strip()]


def corpus(name: str, train: Sequence[str], valid: Sequence[str], test: Sequence[str]) -> Corpus:
    """The corpus of three parts, with its hash."""
    digest = hashlib.sha256()
    for documents in (train, valid, test):
        digest.update(joined(documents).encode("utf-8", "surrogatepass") + b"\0")
    return Corpus(name, tuple(train), tuple(valid), tuple(test), digest.hexdigest())


def split_stream(text: str, fractions: tuple[float, float, float] = FRACTIONS) -> tuple[str, str, str]:
    """The first part of a text to train on, then validation, then test.

    `(0.9, 0.1, 0)` is the usual split of tiny Shakespeare: `int(0.9 n)` characters train.

    Raises:
      UserError: if the fractions are not of a whole, or a part that should hold something is empty.
    """
    _check(fractions)
    ends = [int(fractions[0] * len(text)), round((fractions[0] + fractions[1]) * len(text))]
    if not fractions[2]:
        ends[1] = len(text)
    parts = (text[: ends[0]], text[ends[0] : ends[1]], text[ends[1] :])
    for part, fraction in zip(parts, fractions, strict=True):
        if fraction and not part:
            raise UserError(f"a text of {len(text)} characters is too short to be split by {fractions}")
    return parts


def split_documents(
    documents: Sequence[str], fractions: tuple[float, float, float] = FRACTIONS
) -> tuple[list[str], list[str], list[str]]:
    """Every document to one part, by a hash of its text: another document more or less moves no other."""
    _check(fractions)
    parts: tuple[list[str], list[str], list[str]] = ([], [], [])
    for document in documents:
        at = hashed(document)
        parts[(at >= fractions[0]) + (at >= fractions[0] + fractions[1])].append(document)
    return parts


def hashed(text: str) -> float:
    """A number in [0, 1) that depends on the text alone, on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest(), "big") / 2**48


def _check(fractions: tuple[float, float, float]) -> None:
    if min(fractions) < 0 or not fractions[0] or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"fractions {fractions} for training, validation and test must sum to 1, the first above 0")


def decoded(data: bytes, name: str) -> str:
    """UTF-8 bytes to text with line ends `\\n` and no byte-order mark.

    Raises:
      UserError: if there is nothing in it, or it is not UTF-8; names the first wrong byte.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(name, data[error.start], error.start) from None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not text.strip():
        raise UserError(f"text file {name} is empty")
    return text


def not_utf8(name: str, byte: int, offset: int) -> UserError:
    """The error for a file that is not UTF-8 from a byte on."""
    return UserError(f"text file {name} is not UTF-8: byte 0x{byte:02x} at offset {offset}; convert it, as with iconv")


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file.

    Raises:
      UserError: if the file is missing, a directory, empty, or not UTF-8.
    """
    return decoded(existing(path).read_bytes(), str(path))


def existing(path: str | Path) -> Path:
    """The path of a text file that there is.

    Raises:
      UserError: if there is none.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no text file {path}" + (" (it is a directory)" if Path(path).is_dir() else ""))
    return Path(path)


def text_file(path: str | Path, fractions: tuple[float, float, float] = FRACTIONS) -> Corpus:
    """The user's own text, split along its length; see `read_text` and `split_stream` for what is refused."""
    parts = split_stream(read_text(path), fractions)
    return corpus(Path(path).name, *([part] if part else [] for part in parts))


def tfds(name: str, data_dir: str = "") -> Corpus:
    """The texts of a prepared TFDS set, such as `tiny_shakespeare`, a record a document, without TensorFlow.

    What the set has no split `validation` or `test` for is taken from its training texts by `split_documents`; a set
    of one text alone is split along its length.

    Raises:
      UserError: when the set is not prepared, cannot be read, or has no feature `text`; see `sources.prepared`.
    """
    directory, prepare = sources.prepared(name, data_dir)
    with sources.readable(name, directory, prepare):
        builder = sources.open_prepared(directory)
        if "text" not in (builder.info.features or {}):
            raise UserError(f"data set tfds:{name} has no texts (its features: {list(builder.info.features or {})})")
        splits = {
            split: [
                decoded(row["text"], f"tfds:{name}")
                for row in sources.records(builder, name, split)
                if row["text"].strip()
            ]
            for split in ("train", "validation", "test")
            if split in builder.info.splits
        }
    if not splits.get("train"):
        raise UserError(f"data set tfds:{name} has no texts to train on; its splits are {list(builder.info.splits)}")
    if splits.keys() == {"train"} and len(splits["train"]) == 1:
        return corpus(f"tfds:{name}", *([part] for part in split_stream(splits["train"][0])))
    valid, test = (0.0 if split in splits else FRACTIONS[1] for split in ("validation", "test"))
    parts = split_documents(splits["train"], (1 - valid - test, valid, test))
    return corpus(f"tfds:{name}", parts[0], splits.get("validation", parts[1]), splits.get("test", parts[2]))


@functools.lru_cache(maxsize=1)
def python_prose() -> Corpus:
    """English prose with no download: what the docstrings of Python's standard library say, one module a document.

    The sources of the running Python are read, never imported, in a fixed order; examples of code and everything but
    ASCII are left out, and a paragraph counts where it comes first. About a million characters. Another
    version of Python has another text: the hash tells. Nine modules of ten, chosen by a hash, are to train on.

    Raises:
      UserError: if this Python is installed without its sources.
    """
    return corpus("python_prose", *split_documents(list(python_modules().values())))


@functools.lru_cache(maxsize=1)
def python_modules() -> dict[str, str]:
    """The documents of `python_prose` by the names of their modules, such as `asyncio.events`."""
    collecting = gc.isenabled()
    gc.disable()  # in vain over millions of nodes that a reference count frees: it would take half of the time
    try:
        documents = _modules(Path(sysconfig.get_paths()["stdlib"]))
    finally:
        if collecting:
            gc.enable()
    if not documents:
        raise UserError("this Python is installed without the sources of its standard library; give a --text_file")
    return documents


def _modules(root: Path) -> dict[str, str]:
    """The prose of every module below a folder that has some, each paragraph once."""
    seen: set[str] = set()
    documents = {}
    for path in _sources(root):
        try:
            with warnings.catch_warnings():  # on invalid escapes in old sources
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # a template, not a module
            continue
        paragraphs = []
        for docstring in _docstrings(tree):
            for paragraph in _paragraphs(docstring):
                if paragraph not in seen:
                    seen.add(paragraph)
                    paragraphs.append(paragraph)
        if paragraphs:
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            documents[name.removesuffix(".__init__")] = "\n\n".join(paragraphs)
    return documents


def _sources(root: Path) -> Iterator[Path]:
    """The modules below a folder, by name, those of a folder before those of the folders in it."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("config-"))
        for name in sorted(files):
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                yield Path(folder, name)


def _docstrings(node: ast.AST) -> Iterator[str]:
    """The docstrings of a module and all in it, in the order of the source."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node, clean=False)
        if text:
            yield text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _docstrings(child)


def _paragraphs(docstring: str) -> Iterator[str]:
    """The paragraphs that are prose: ASCII, at least five words, mostly of letters, and no examples or tables."""
    for paragraph in inspect.cleandoc(docstring).split("\n\n"):
        lines = [line.strip() for line in paragraph.strip("\n").split("\n")]
        text = "\n".join(lines).strip()
        letters = sum(character.isalpha() or character == " " for character in text)
        if (
            text.isascii()
            and text.replace("\n", "").isprintable()
            and len(text.split()) >= 5
            and letters >= 0.85 * len(text)
            and not any(line.startswith((">>>", "...", "|", "+-", "%", "$")) for line in lines)
        ):
            yield text
