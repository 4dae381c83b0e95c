"""The command line of the programs made of studies, each of which finds numbers, draws them and tells them."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dlfx.types import UserError, unknown

ROOT = Path(__file__).resolve().parent.parent
Found = dict[str, Any]  # what a study found, as JSON can hold it
Study = tuple[Callable[..., Found], Callable[[Found, Path], None], Callable[[Found], list[str]]]


def run(program: str, about: str | None, studies: Mapping[str, Study], seeds: Mapping[str, int] | None = None) -> None:
    """Runs the studies named on the command line: a picture and a JSON file of each, and what it tells.

    Args:
      program: its name, and that of the directory below runs/ by default.
      about: the text of `--help`.
      studies: by name, (finds, draws into a file, tells in lines).
      seeds: how many seeds a study finds it with by default, where all of them take a number of seeds.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help=f"of {', '.join(studies)}; all of them by default")
    if seeds:
        default = " and ".join(f"{count} of {name}" for name, count in seeds.items())
        parser.add_argument("--seeds", type=int, help=f"at least 2; by default {default}")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / program, help="a directory")
    told = parser.parse_args()
    try:
        if seeds and told.seeds is not None and told.seeds < 2:
            raise UserError(f"--seeds={told.seeds}: a deviation needs at least 2")
        for name in told.studies:
            if name not in studies:
                raise unknown("study", name, studies)
        for name in told.studies or studies:
            find, draw, tell = studies[name]
            found = find(told.seeds or seeds[name]) if seeds else find()
            draw(found, told.out / f"{name}.png")
            (told.out / f"{name}.json").write_text(json.dumps(found))
            print("\n".join([name, *(f"  {line}" for line in tell(found))]), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"pictures: {told.out}")
