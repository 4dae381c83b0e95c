"""Writes what a run of experiments.cnn has trained as a file for PyTorch, by the public names of its layers.

python -m experiments.export --workdir=DIR --output=FILE.safetensors
"""

from pathlib import Path
from typing import Any

from absl import flags

from dlfx.types import UserError
from dlfx.weights.files import save_safetensors
from dlfx.weights.torch_names import to_torch_names
from experiments import classifiers, common
from experiments.common import FLAGS, group

with group("Export"):
    flags.DEFINE_string("output", "", "the .safetensors file to write; of a population, it gets the first member")


def main(_: Any) -> None:
    output = Path(FLAGS.output).expanduser()
    if not FLAGS.workdir or output.suffix != ".safetensors":
        raise UserError("give the directory of a finished run, --workdir=DIR, and --output=FILE.safetensors")
    run = classifiers.read_run(FLAGS.workdir)
    tensors = to_torch_names(_nested(run.arrays))
    model, dataset = run.flags["model"], run.flags["dataset"]
    about = {"format": "pt", "model": model, "dataset": dataset, "test_accuracy": f"{run.accuracy:.4f}"}
    try:
        save_safetensors(output, tensors, about)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from error
    print(f"{len(tensors)} tensors of {model}, test accuracy {run.accuracy:.2%}, are in {output}")


def _nested(stored: dict[str, Any]) -> dict[str, Any]:
    """Arrays by paths such as `params/c1/kernel` as dicts in dicts."""
    tree: dict[str, Any] = {}
    for path, value in stored.items():
        *inner, leaf = path.split("/")
        place = tree
        for key in inner:
            place = place.setdefault(key, {})
        place[leaf] = value
    return tree


if __name__ == "__main__":
    common.launch(main)
