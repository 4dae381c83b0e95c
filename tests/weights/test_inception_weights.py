"""The weights of Inception-v3 by torchvision's names, and torchvision's own network with them."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.classification.inception_v3 import AuxiliaryHead, BasicConv2d, InceptionV3
from dlfx.types import UserError
from dlfx.weights.files import load_tensors, save_safetensors
from dlfx.weights.inception import load_inception_v3
from dlfx.weights.torch_names import from_torch_names, to_torch_names
from tests.compiling import quick


@cache
def shapes(num_classes: int, aux_head: bool = False) -> Any:
    images = jnp.zeros((1, 299, 299, 3))
    return jax.eval_shape(InceptionV3(num_classes, aux_head).init, jax.random.key(0), images)


def draw(shapes: Any) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: 0.5 + rng.random(leaf.shape, np.float32), shapes)


def test_names_and_layouts() -> None:
    variables = draw(shapes(7, aux_head=True))
    tensors = to_torch_names(variables)
    assert len(tensors) == 96 * 5 + 4 == len(jax.tree.leaves(variables))
    params, statistics = variables["params"], variables["batch_stats"]
    for name, expected in {
        "Conv2d_1a_3x3.conv.weight": params["Conv2d_1a_3x3"]["conv"]["kernel"].transpose(3, 2, 0, 1),
        "Mixed_6c.branch7x7_2.conv.weight": params["Mixed_6c"]["branch7x7_2"]["conv"]["kernel"].transpose(3, 2, 0, 1),
        "Mixed_5b.branch1x1.bn.weight": params["Mixed_5b"]["branch1x1"]["bn"]["scale"],
        "Mixed_5b.branch1x1.bn.bias": params["Mixed_5b"]["branch1x1"]["bn"]["bias"],
        "Mixed_5b.branch1x1.bn.running_mean": statistics["Mixed_5b"]["branch1x1"]["bn"]["mean"],
        "AuxLogits.conv1.bn.running_var": statistics["AuxLogits"]["conv1"]["bn"]["var"],
        "AuxLogits.fc.weight": params["AuxLogits"]["fc"]["kernel"].T,
        "fc.weight": params["fc"]["kernel"].T,
        "fc.bias": params["fc"]["bias"],
    }.items():
        np.testing.assert_array_equal(tensors[name], expected, err_msg=name)
        assert tensors[name].flags.c_contiguous
    assert tensors["Mixed_6c.branch7x7_2.conv.weight"].shape == (160, 160, 1, 7)  # one row, seven columns
    back = from_torch_names(tensors, shapes(7, aux_head=True))
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


@pytest.mark.parametrize("num_classes, aux_head, fid", [(1008, False, True), (1000, True, False)])
def test_files(tmp_path: Path, num_classes: int, aux_head: bool, fid: bool) -> None:
    """The form of the network follows from the file; counts of batches are passed over; float16 becomes float32."""
    path, variables = tmp_path / "x.safetensors", draw(shapes(num_classes, aux_head))
    tensors = {name: value.astype(np.float16) for name, value in to_torch_names(variables).items()}
    save_safetensors(path, tensors | {"Conv2d_1a_3x3.bn.num_batches_tracked": np.array(5)})
    module, found = load_inception_v3(path)
    assert module == InceptionV3(num_classes, aux_head, fid)
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(np.float16)), found, variables)
    assert load_inception_v3(path, fid=not fid)[0].fid is not fid


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path, tensors = tmp_path / "x.safetensors", to_torch_names(draw(shapes(3)))
    save_safetensors(path, {name: value for name, value in tensors.items() if not name.startswith("Mixed_5")} | {
        "fc.weight": np.ones((3, 2047), np.float32),
        "Conv2d_1a_3x3.conv.weight": np.ones((3, 3, 3, 32), np.float32),
        "Conv2d_1a_3x3.bn.bias": np.ones(32, np.int8),
        "Conv2d_9z_3x3.conv.weight": np.ones((3, 3, 3, 32), np.float32),
    })  # fmt: skip
    with pytest.raises(UserError) as error:
        load_inception_v3(path)
    told = str(error.value)
    start = f"{path} does not hold the weights of inception_v3: of 472 tensors, {21 * 5} missing (Mixed_5"
    assert told.startswith(start) and told.count("Mixed_5") == 5 and f" and {21 * 5 - 5} more), " in told
    assert "), 1 unexpected (Conv2d_9z_3x3.conv.weight), 3 of another shape or type (" in told
    wrong = told.split("of another shape or type (")[1].split(", ")
    assert "fc.weight [3" in wrong and "2047] for [3" in wrong
    assert "Conv2d_1a_3x3.conv.weight [3" in wrong and "Conv2d_1a_3x3.bn.bias int8 for float32" in wrong
    assert "\n" not in told

    save_safetensors(path, {"w": np.ones(2), "fc.bias": np.ones((2, 2))})
    with pytest.raises(
        UserError, match=r"and \d+ more\), 1 unexpected \(w\), 1 of .* \(fc.bias \[2, 2\] for \[1000\]\)$"
    ):
        load_inception_v3(path)


def torch_model(torch: Any, num_classes: int, aux_head: bool = False, **options: Any) -> Any:
    """torchvision's network, its weights and statistics drawn so that features keep their scale."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    module = models.inception_v3(num_classes=num_classes, aux_logits=aux_head, init_weights=False, **options).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data.uniform_(0.8, 1.2)
            layer.running_var.uniform_(0.8, 1.2)
            layer.bias.data.uniform_(-0.1, 0.1)
            layer.running_mean.uniform_(-0.1, 0.1)
    return module


def largest_difference(found: Any, expected: Any) -> float:
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("fid", [False, True])
def test_torchvision_gives_the_same(tmp_path: Path, fid: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch_model(torch, 1008 if fid else 20, aux_head=not fid)
    assert sum(p.numel() for p in theirs.parameters()) == (23_850_960 if fid else 27_161_264 - 980 * (2049 + 769))
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    module, variables = load_inception_v3(tmp_path / "x.pth")
    assert module.fid == fid and module.aux_heads != fid

    functional, pools = torch.nn.functional, []

    def pool_of_2015(x: Any, **window: Any) -> Any:
        pools.append(x.shape[1])
        if len(pools) == 9:  # the last block
            return functional.max_pool2d(x, **window)
        return functional.avg_pool2d(x, **window, count_include_pad=False)

    if fid:
        pooling = SimpleNamespace(avg_pool2d=pool_of_2015, max_pool2d=functional.max_pool2d, relu=functional.relu)
        monkeypatch.setattr("torchvision.models.inception.F", pooling)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 107, 111, 3)).astype(np.float32)
    pooled = []
    theirs.avgpool.register_forward_hook(lambda module, inputs, output: pooled.append(output[:, :, 0, 0].numpy()))
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert pools == ([192, 256, 288, 768, 768, 768, 768, 1280, 2048] if fid else [])
    logits, features = quick(module.apply)(variables, images)
    assert largest_difference(logits, expected) < 1e-4
    assert largest_difference(features["pooled"], pooled[0]) < 1e-4

    if not fid:
        aux = AuxiliaryHead(20, lambda *args, **options: BasicConv2d(*args, **options), jnp.float32, jnp.float32)
        mine = {kind: tree["AuxLogits"] for kind, tree in variables.items()}
        x = np.random.default_rng(0).uniform(size=(2, 17, 17, 768)).astype(np.float32)
        with torch.inference_mode():
            expected = theirs.AuxLogits(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
        assert largest_difference(quick(aux.apply)(mine, x), expected) < 1e-4


def test_torchvision_takes_them_back(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch_model(torch, 5, aux_head=True)
    variables = draw(shapes(5, aux_head=True))
    save_safetensors(tmp_path / "x.safetensors", to_torch_names(variables))
    state = {name: torch.from_numpy(value) for name, value in load_tensors(tmp_path / "x.safetensors").items()}
    theirs.load_state_dict(state, strict=True)
    np.testing.assert_array_equal(theirs.fc.weight.detach().numpy().T, variables["params"]["fc"]["kernel"])
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    _, found = load_inception_v3(tmp_path / "x.pth")
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_transform_input_is_pixels_from_minus_one_to_one() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch_model(torch, 5, transform_input=True)
    images = np.random.default_rng(0).uniform(0, 1, (2, 75, 75, 3)).astype(np.float32)
    normalised = (images - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    found = theirs._transform_input(torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), 2 * images - 1, atol=1e-6)
