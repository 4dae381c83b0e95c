"""The optimizers and learning-rate schedules of every experiment, straight from optax, chosen by flags."""

from collections.abc import Callable

import jax
import optax
from absl import flags

from dlfx.types import UserError, unknown
from experiments.common import FLAGS, group

Make = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]

OPTIMIZERS: dict[str, Make] = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, FLAGS.momentum),
    "nesterov": lambda rate: optax.sgd(rate, FLAGS.momentum, nesterov=True),
    "adagrad": optax.adagrad,
    "adadelta": optax.adadelta,
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
    "amsgrad": optax.amsgrad,
    "adamax": optax.adamax,
    "nadam": optax.nadam,
    "radam": optax.radam,
    "adabelief": optax.adabelief,
    "adamw": optax.adam,  # this and the next three: --weight_decay is decoupled, added after the preconditioning
    "nadamw": optax.nadam,
    "lion": lambda rate: optax.lion(rate, weight_decay=0.0),
    "lamb": optax.lamb,
}
DECOUPLED = {
    "adamw": lambda rate, decay: optax.adamw(rate, weight_decay=decay, mask=is_kernel),
    "nadamw": lambda rate, decay: optax.nadamw(rate, weight_decay=decay, mask=is_kernel),
    "lion": lambda rate, decay: optax.lion(rate, weight_decay=decay, mask=is_kernel),
    "lamb": lambda rate, decay: optax.lamb(rate, weight_decay=decay, mask=is_kernel),
}
SCHEDULES = ["constant", "linear", "cosine", "step"]

with group("Optimizer"):
    flags.DEFINE_string("optimizer", "adam", f"one of {', '.join(OPTIMIZERS)}")
    flags.DEFINE_float("learning_rate", 1e-3, "the peak learning rate", lower_bound=0.0)
    flags.DEFINE_float("momentum", 0.9, "of momentum and nesterov", lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_enum("schedule", "constant", SCHEDULES, "how the learning rate falls from its peak")
    flags.DEFINE_integer(
        "warmup_steps", 0, "steps over which the learning rate rises from 0 to its peak", lower_bound=0
    )
    flags.DEFINE_list("decay_at", ["0.5", "0.75"], "parts of the run at which schedule=step lowers the rate")
    flags.DEFINE_float("decay_rate", 0.1, "what schedule=step multiplies the rate by", lower_bound=0.0)
    flags.DEFINE_float(
        "weight_decay", 0.0, "of kernels alone, not biases or norms; decoupled for adamw, nadamw, lion, lamb"
    )
    flags.DEFINE_float("clip_norm", 0.0, "largest global norm of the gradient; 0: no limit", lower_bound=0.0)


def is_kernel(params: optax.Params) -> optax.Params:
    """Which parameters weight decay is for: matrices and convolution kernels, not biases, scales and offsets."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def learning_rate(steps: int) -> optax.Schedule:
    """The schedule of the flags over a run of so many steps: warm-up, then constant, linear or cosine to 0, or steps.

    Raises:
      UserError: if the warm-up is longer than the run, or `--decay_at` is malformed.
    """
    peak, warmup = FLAGS.learning_rate, FLAGS.warmup_steps
    if warmup >= steps and warmup:
        raise UserError(f"--warmup_steps={warmup} must be fewer than the {steps} steps of the run")
    rest = steps - warmup
    if FLAGS.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest)
    elif FLAGS.schedule == "linear":
        after = optax.linear_schedule(peak, 0.0, rest)
    elif FLAGS.schedule == "step":
        try:
            parts = [float(part) for part in FLAGS.decay_at]
        except ValueError:
            parts = [2.0]
        if not all(0 < part < 1 for part in parts):
            raise UserError(f"--decay_at={','.join(FLAGS.decay_at)} must be numbers between 0 and 1, such as 0.5,0.75")
        after = optax.piecewise_constant_schedule(peak, {round(part * rest): FLAGS.decay_rate for part in parts})
    else:
        after = optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup]) if warmup else after


def optimizer(steps: int) -> optax.GradientTransformation:
    """The optimizer of the flags for a run of so many steps.

    Raises:
      UserError: for an unknown name, with the closest ones; or see `learning_rate`.
    """
    name, decay = FLAGS.optimizer, FLAGS.weight_decay
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    rate = learning_rate(steps)
    parts = [optax.clip_by_global_norm(FLAGS.clip_norm)] if FLAGS.clip_norm else []
    if decay and name in DECOUPLED:
        return optax.chain(*parts, DECOUPLED[name](rate, decay))
    if decay:
        parts.append(optax.add_decayed_weights(decay, mask=is_kernel))
    return optax.chain(*parts, OPTIMIZERS[name](rate))
