"""Paragraphs of docstrings of Python's library, and which of its packages each is of."""

from dlfx.data.corpora import hashed, python_modules

_PACKAGES = "asyncio email http importlib logging multiprocessing tkinter unittest urllib xml"
PACKAGES = tuple(_PACKAGES.split())
ENDS = {"train": (0.0, 0.5), "valid": (0.5, 0.75), "test": (0.75, 1.0)}  # of the hashes of a part


def paragraphs(part: str, n: int) -> list[tuple[str, str]]:
    """At most n paragraphs with the names of their packages, one of each in turn; always the same ones.

    These are the packages of 150 paragraphs and more. A paragraph is in one part only, by a hash of its text; but other
    paragraphs of the same module may be in another. What was pretrained on `corpora.python_prose` has read most of all
    parts, without these labels.

    Args:
      part: `train`, `valid` or `test`.
      n: how many.
    """
    low, high = ENDS[part]
    of: dict[str, list[str]] = {package: [] for package in PACKAGES}
    for module, document in python_modules().items():
        package = module.partition(".")[0]
        if package in of:
            of[package] += [text for text in document.split("\n\n") if low <= hashed(text) < high]
    turns = [(k, package, text) for package, texts in of.items() for k, text in enumerate(sorted(texts, key=hashed))]
    return [(text, package) for _, package, text in sorted(turns)[:n]]
