"""What the flags of experiments.cnn say of a model beyond its name; also read from the flags of a finished run."""

import inspect
from collections.abc import Mapping
from typing import Any

from dlfx.models.classification import MODELS
from dlfx.types import UserError, unknown

# Flag to (its type, the value at which the model's own counts).
OPTIONS: dict[str, tuple[type, Any]] = {
    "shortcut": (str, ""),
    "pattern": (str, ""),
    "width": (float, 1.0),
    "dropout": (float, -1.0),
    "aux_heads": (bool, False),
}


def model_options(model: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The options that flags, as values or as their texts in `flags.txt`, set for a model.

    Raises:
      UserError: for an unknown model, or one that has not such an option.
    """
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    options = {}
    for name, (kind, own) in OPTIONS.items():
        value = flags.get(name, own)
        value = value == "true" if kind is bool and isinstance(value, str) else kind(value)
        if value == own:
            continue
        having = [other for other, make in MODELS.items() if name in inspect.signature(make).parameters]
        having = ["conv_blocks"] if name == "pattern" else having  # of the others it makes what they are
        if model not in having:
            raise UserError(f"--{name} is not of {model}; these models have it: {', '.join(having)}")
        options[name] = value
    return options
