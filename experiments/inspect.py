"""Prints what a network is made of: layer by layer its shape, parameters, multiply-adds and receptive field.

python -m experiments.inspect --model=vgg16_bn --image_size=224 --num_classes=1000
python -m experiments.inspect --model=googlenet --aux_heads --format=json
python -m experiments.inspect --model=resnet18 --draw=resnet18.png

Nothing is computed or compiled: the network is only traced.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import flags

from dlfx.models.classification import MODELS
from dlfx.nn.recording import record
from dlfx.ops import receptive_field
from dlfx.ops.arithmetic import activation_bytes
from dlfx.types import UserError
from experiments import common
from experiments.common import FLAGS, group
from experiments.inspect_drawing import draw
from experiments.model_options import OPTIONS, model_options

with group("Network"):
    flags.DEFINE_string("model", "lenet5", f"one of {', '.join(MODELS)}")
    flags.DEFINE_integer("image_size", 224, "side of the images", lower_bound=1)
    flags.DEFINE_integer("channels", 3, "of the images", lower_bound=1)
    flags.DEFINE_integer("num_classes", 1000, "of the classifier", lower_bound=1)
    flags.DEFINE_enum("shortcut", "", ["", "A", "B", "C"], "of a ResNet")
    flags.DEFINE_string("pattern", "", "of conv_blocks, such as 2x32p,2x64p;128")
    flags.DEFINE_float("width", 1.0, "a factor on all channels of the model", lower_bound=0.001)
    flags.DEFINE_float("dropout", -1.0, "of the model; -1: its own", lower_bound=-1.0, upper_bound=0.999)
    flags.DEFINE_bool("aux_heads", False, "with the auxiliary heads")
with group("Output"):
    flags.DEFINE_enum("format", "table", ["table", "json"], "what to print")
    flags.DEFINE_string("draw", "", "a picture to write, such as network.png")


class Layer(NamedTuple):
    """A layer that has parameters of its own.

    Attributes:
      name: its path in the network, such as `layer1.0.conv1`.
      kind: the class of its module.
      shape: of its output for one image, `[H, W, C]` or `[D]`.
      params: how many numbers are trained in it.
      macs: multiply-adds for one image.
      receptive_field: (rows, columns) of the image that its middle output sees, within the image.
      stride: (rows, columns) between what neighbouring outputs see.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    macs: int
    receptive_field: tuple[int, int]
    stride: tuple[int, int]


def layers(module: Any, image: tuple[int, int, int]) -> list[Layer]:
    """The layers of a network on an image `[H, W, C]`, in the order in which they run.

    Raises:
      UserError: for an image that the network cannot take.
    """
    seen: list[tuple[str, str, int, int]] = []

    def forward(images: Any, key: Any) -> list[Any]:
        found = record(lambda: module.init(key, images, train=False))
        seen[:] = [
            (layer.name, layer.kind, sum(x.size for x in layer.params.values()), macs(layer.params, layer.output))
            for layer in found
        ]
        return [layer.output for layer in found]

    images = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    shapes = [out.shape[1:] for out in jax.eval_shape(forward, images, jax.random.key(0))]
    sees = []
    for axis in (1, 2):
        found = receptive_field.receptive_fields(forward, images, jax.random.key(0), axis=axis)
        sees.append([_seen(interval, shape, axis, image) for interval, shape in zip(found, shapes, strict=True)])
    return [
        Layer(name, kind, shape, params, count, (rows[0], columns[0]), (rows[1], columns[1]))
        for (name, kind, params, count), shape, rows, columns in zip(seen, shapes, *sees, strict=True)
    ]


def macs(own: Any, out: Any) -> int:
    """Multiply-adds of a layer with these parameters: each number of its kernel is used once for each output position.

    That holds for convolutions of any groups and for dense layers; norms and what has no kernel count as none.
    """
    if "kernel" not in own:
        return 0
    return own["kernel"].size * math.prod(out.shape[1:-1])


def _seen(interval: Any, shape: tuple[int, ...], axis: int, image: tuple[int, int, int]) -> tuple[int, int]:
    if len(shape) < 3:  # a vector
        return int(interval.high.max() - interval.low.min() + 1), image[axis - 1]
    size, step = receptive_field.central(interval, axis)
    return size, step or image[axis - 1] // shape[axis - 1]


def table(found: list[Layer]) -> str:
    """The layers as lines of text, totals last."""
    head = ("layer", "kind", "output", "parameters", "multiply-adds", "receptive field", "stride")
    rows = [
        (
            layer.name,
            layer.kind,
            "x".join(map(str, layer.shape)),
            f"{layer.params:,}",
            f"{layer.macs:,}",
            _pair(layer.receptive_field),
            _pair(layer.stride),
        )
        for layer in found
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [head, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _pair(sides: tuple[int, int]) -> str:
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]}x{sides[1]}"


def main(_: Any) -> None:
    options = model_options(FLAGS.model, {name: FLAGS[name].value for name in OPTIONS})
    if FLAGS.draw and Path(FLAGS.draw).suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"--draw={FLAGS.draw} must end in .png, .pdf or .svg")
    module = MODELS[FLAGS.model](num_classes=FLAGS.num_classes, **options)
    image = (FLAGS.image_size, FLAGS.image_size, FLAGS.channels)
    found = layers(module, image)
    params, total = sum(layer.params for layer in found), sum(layer.macs for layer in found)
    memory = activation_bytes([layer.shape for layer in found])
    if FLAGS.format == "json":
        told = {"model": FLAGS.model, "input": image, "params": params, "macs": total, "activation_bytes": memory}
        print(json.dumps(told | {"layers": [layer._asdict() for layer in found]}))
    else:
        print(table(found))
        print(
            f"{FLAGS.model} on {_pair(image[:2])} pixels: {params:,} parameters, {total:,} multiply-adds, "
            f"{memory / 2**20:.1f} MiB of activations an image in float32"
        )
    if FLAGS.draw:
        try:
            draw(Path(FLAGS.draw), f"{FLAGS.model}, {params:,} parameters", image, found)
        except OSError as error:
            raise UserError(f"{FLAGS.draw} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    common.launch(main)
