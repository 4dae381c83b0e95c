"""Pictures taken of a model while it trains, gathered into a GIF in the end."""

from pathlib import Path

import numpy as np

from dlfx.training import figures

FRAMES = 100  # of the animation at most


def write(directory: Path, step: int, pixels: np.ndarray) -> None:
    """Keeps pixels `[H, W, 3]` uint8 as the picture of a step. A resumed run writes its own over it, the same."""
    figures.picture(directory / f"step_{step:08d}.png", pixels)


def gather(directory: Path, path: Path, last: int, frames_per_second: float = 5) -> None:
    """Makes the animation of the pictures in a directory up to the last step, thinned out where they are many."""
    from PIL import Image

    files = [f for f in sorted(directory.glob("step_*.png")) if int(f.stem.removeprefix("step_")) <= last]
    if not files:
        return
    chosen = np.unique(np.linspace(0, len(files) - 1, min(FRAMES, len(files))).round().astype(int))
    frames = [np.asarray(Image.open(files[i]).convert("RGB")) for i in chosen]
    figures.animation(path, frames, frames_per_second)
