"""Runs several experiments, one after the other, in one process: imports and programs already compiled serve all.

`[[experiment, arguments], ...]` comes from the standard input as JSON; the last line of the output holds their codes.
No pictures are drawn, as where matplotlib is not installed.
"""

import importlib
import json
import sys
from functools import partial

import grain  # noqa: F401 (as in conftest.py)
import jax

from dlfx.models.classification import INPUT_SIZE, MODELS
from tests.experiments.conftest import forget

# Like the smallest residual network that has a name, in a third of the time to compile.
MODELS["resnet8"] = partial(MODELS["resnet20"], blocks=(1, 1, 1))
INPUT_SIZE["resnet8"] = 32


def main() -> None:
    sys.modules["matplotlib"] = None
    codes = []
    for name, arguments in json.load(sys.stdin):
        forget()
        module, common = (importlib.import_module(f"experiments.{each}") for each in (name, "common"))
        sys.argv = [name, *arguments]
        try:
            common.launch(module.main)
        except SystemExit as left:
            codes.append(left.code or 0)
        jax.config.update("jax_enable_x64", False)
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
