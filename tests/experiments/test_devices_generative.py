"""One device and eight, under jit and pmap: all training of the generative chapter ends in the same weights."""

import numpy as np
import pytest

from dlfx.training import checkpoints

EVERY = ["--precision=float64", "--log_every=3", "--eval_every=6", "--checkpoint_every=6", "--image_size=8"]
IMAGES = [*EVERY, "--dataset=digits", "--batch_size=16", "--steps=6"]
RUNS = {
    "perceptron": ["--data=clouds", "--batch_size=8", "--epochs=1", "--pocket", *EVERY[:-1]],
    "mlp": [*IMAGES, "--hidden=4"],
    "autoencoder": [*IMAGES, "--kind=denoising", "--corruption=0.3", "--code_size=4"],
    "pretraining": [*IMAGES, "--widths=4,4", "--pretrain_steps=2"],
    "vae": [*IMAGES, "--hidden=8", "--latent=2", "--binarize"],
    "gan": [*IMAGES, "--hidden=8", "--latent=2", "--critic_steps=2", "--ema=0.9", "--eval_samples=20"],
    "image_to_image": [*IMAGES, "--blocks=1", "--features=2", "--critic_features=2", "--buffer_size=20"],
}


@pytest.fixture(scope="module")
def finished(several, tmp_path_factory):
    """The directory below which every run lies, as `one/NAME`, `jit/NAME` and `pmap/NAME`."""
    home = tmp_path_factory.mktemp("runs")

    def of(kind, *more):
        return [(name, [*flags, *more, f"--workdir={home / kind / name}"]) for name, flags in RUNS.items()]

    for devices, runs in (1, of("one")), (8, of("jit") + of("pmap", "--parallel=pmap")):
        codes, _, err = several(runs, devices)
        assert codes == [0] * len(runs), err[-3000:]
    return home


@pytest.mark.parametrize("kind", ["jit", "pmap"])
@pytest.mark.parametrize("name", RUNS)
def test_eight_devices_equal_one(finished, name, kind):
    one, eight = (checkpoints.load_state(finished / each / name / "checkpoints") for each in ("one", kind))
    assert one.keys() == eight.keys()
    trained = [leaf for leaf in one if one[leaf].dtype == np.float64]
    assert trained
    for leaf in trained:
        np.testing.assert_allclose(eight[leaf], one[leaf], rtol=1e-7, atol=1e-10, err_msg=leaf)
