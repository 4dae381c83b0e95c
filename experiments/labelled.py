"""Texts with labels: generated reviews, or a file of the user's own."""

from dlfx.data import labelled_files, labelled_text
from dlfx.types import UserError

HELD = 1000  # generated reviews for validation, and as many to test
Labelled = dict[str, list[tuple[str, str]]]  # split to (text, label)


def read(path: str, examples: int) -> tuple[tuple[str, ...], Labelled]:
    """The labels in alphabetical order, and the texts of every split that has some.

    Args:
      path: of lines label TAB text; empty for generated reviews.
      examples: how many of those to train on.

    Raises:
      UserError: for fewer than two labels or splits, or see `labelled_files.read_labelled`.
    """
    if path:
        pairs = labelled_files.read_labelled(path)
    else:
        sizes = {"train": examples, "valid": HELD, "test": HELD}
        names = ("negative", "positive")
        pairs = {
            part: [(text, names[label]) for text, label in labelled_text.reviews(part, n)] for part, n in sizes.items()
        }
    pairs = {part: rows for part, rows in pairs.items() if rows}
    labels = tuple(sorted({label for rows in pairs.values() for _, label in rows}))
    if len(labels) < 2 or len(pairs) < 2 or "train" not in pairs:
        counts = ", ".join(f"{len(rows)} {part}" for part, rows in pairs.items())
        raise UserError(f"{path} has {len(labels)} labels in {counts} texts: too few to learn and to test")
    return labels, pairs
