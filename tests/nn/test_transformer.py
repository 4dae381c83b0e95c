"""Blocks against PyTorch's layers; stacks: who sees whom, to the last bit, and how large the program is."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from dlfx.nn.attention import padding_mask
from dlfx.nn.transformer import Block, Stack
from dlfx.types import UserError
from tests.compiling import quick
from tests.torch_transformers import put_block

LENGTHS = np.array([5, 2])


def normal(seed, *shape, dtype=None):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def made(module, *inputs):
    """The variables, with biases and scales drawn too."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    leaves, tree = jax.tree.flatten(shapes)
    return tree.unflatten([0.4 * normal(i, *leaf.shape, dtype=leaf.dtype) for i, leaf in enumerate(leaves)])


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("cross, activation", [(False, "relu"), (False, "gelu"), (True, "relu")])
def test_blocks_are_pytorch_s_layers(norm_first, cross, activation):
    torch = pytest.importorskip("torch")
    with jax.enable_x64(True):
        ours = {"relu": nn.relu, "gelu": partial(nn.gelu, approximate=False)}[activation]
        options = {"norm_first": norm_first, "activation": ours, "dtype": jnp.float64, "param_dtype": jnp.float64}
        block = Block(8, 2, 12, causal=cross, cross=cross, **options)
        x, memory = normal(0, 2, 5, 8), normal(1, 2, 6, 8) if cross else None
        mask = padding_mask(jnp.asarray(LENGTHS), 6 if cross else 5)
        masks = (None, mask) if cross else (mask, None)
        inputs = (x, masks[0], memory, masks[1], False)
        variables = made(block, *inputs)

        def run(x):
            return block.apply(variables, x, *inputs[1:])[0]

        found, gradient = quick(lambda x: (run(x), jax.grad(lambda x: (run(x) ** 2).sum())(x)))(x)

        layers = torch.nn.TransformerDecoderLayer if cross else torch.nn.TransformerEncoderLayer
        layer = layers(8, 2, 12, 0.0, activation, batch_first=True, norm_first=norm_first, dtype=torch.float64)
        put_block(torch, layer, variables["params"])
        padding = torch.tensor(np.arange(6 if cross else 5) >= LENGTHS[:, None])
        theirs = torch.tensor(np.array(x), requires_grad=True)
        if cross:
            later = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
            y = layer(theirs, torch.tensor(np.array(memory)), tgt_mask=later, memory_key_padding_mask=padding)
        else:
            y = layer(theirs, src_key_padding_mask=padding)
        np.testing.assert_allclose(found, y.detach(), atol=1e-11)

        (y**2).sum().backward()
        np.testing.assert_allclose(gradient, theirs.grad, atol=1e-9)


def stack(layers=3, causal=True, cross=False, norm_first=True, remat=False, unroll=1, **options):
    return Stack(
        layers, partial(Block, 8, 2, 12, causal=causal, cross=cross, norm_first=norm_first, **options), remat, unroll
    )


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
def test_no_output_has_a_gradient_to_a_later_input(norm_first, rotary):
    x = normal(0, 1, 6, 8)
    for causal in (True, False):
        module = stack(2, causal, norm_first=norm_first, rotary=rotary)
        variables = made(module, x)
        jacobian = quick(jax.jacobian(lambda x, m=module, v=variables: m.apply(v, x)))(x)
        size = np.abs(np.asarray(jacobian)[0, :, :, 0]).max((1, 3))  # [output position, input position]
        later = np.triu(np.ones((6, 6), bool), 1)
        assert (size[~later] > 0).all()  # every earlier one is seen: in one step, however far
        assert (size[later] == 0).all() if causal else (size[later] > 0).all()


def test_a_stack_is_its_blocks_one_after_another():
    x, memory = normal(0, 2, 5, 8), normal(1, 2, 6, 8)
    module = stack(cross=True)
    variables = made(module, x, None, memory)
    expected, blocks = x, variables["params"]["blocks"]
    block = quick(lambda one, x, memory: module.block().apply(one, x, None, memory, None, False))
    for layer in range(3):
        one = {"params": jax.tree.map(lambda a, layer=layer: a[layer], blocks)}
        expected, _ = block(one, expected, memory)
    expected = nn.LayerNorm(1e-5).apply({"params": variables["params"]["norm"]}, expected)
    np.testing.assert_allclose(quick(module.apply)(variables, x, None, memory), expected, atol=1e-4)


def test_remat_and_unrolled_loops_change_nothing():
    x = normal(0, 2, 5, 8)
    variables = made(stack(), x)
    found = []
    for options in ({}, {"remat": True}, {"unroll": 3}):
        module = stack(dropout=0.2, **options)

        def loss(variables, module=module):
            return (module.apply(variables, x, train=True, rngs={"dropout": jax.random.key(0)}) ** 2).sum()

        found.append(quick(jax.grad(loss))(variables))
        names = str(jax.make_jaxpr(jax.grad(loss))(variables))
        assert ("remat" in names or "checkpoint" in names) == ("remat" in options)
    for other in found[1:]:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), found[0], other)


def equations(jaxpr):
    """How many equations there are, those inside of others included."""
    inner = [sub for equation in jaxpr.eqns for sub in jaxprs_in_params(equation.params)]
    return len(jaxpr.eqns) + sum(map(equations, inner))


@pytest.mark.parametrize("remat", [False, True])
def test_the_program_does_not_grow_with_the_layers(remat):
    sizes = []
    for layers in (2, 7):
        module, x = stack(layers, remat=remat, dropout=0.1), normal(0, 1, 4, 8)

        def loss(variables, module=module, x=x):
            return module.apply(variables, x, train=True, rngs={"dropout": jax.random.key(0)}).sum()

        variables = jax.eval_shape(lambda m=module, x=x: m.init(jax.random.key(0), x))
        assert {leaf.shape[0] for leaf in jax.tree.leaves(variables["params"]["blocks"])} == {layers}
        sizes.append(equations(jax.make_jaxpr(jax.grad(loss))(variables).jaxpr))
    assert sizes[0] == sizes[1] > 100


@pytest.mark.parametrize("rotary", [False, True])
def test_decoding_is_the_whole_and_each_sequence_can_have_its_own_position(rotary):
    module = stack(2, cross=True, rotary=rotary)
    x, memory, mask = normal(0, 2, 6, 8), normal(1, 2, 4, 8), padding_mask(jnp.array([4, 2]), 4)
    variables = made(module, x, None, memory)
    whole = quick(module.apply)(variables, x, None, memory, mask)

    def decode(x, cache, position):
        return module.apply(variables, x, cache, position, method="decode")

    start = quick(lambda *memory: module.apply(variables, 2, 7, *memory, method="start"))(memory, mask)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(start)} == {2}  # the batch comes first
    step = quick(decode)
    prompt, after_prompt = step(x[:, :3], start, 0)
    np.testing.assert_allclose(prompt, whole[:, :3], atol=1e-5)
    cache = after_prompt
    for i in range(3, 6):
        y, cache = step(x[:, i : i + 1], cache, i)
        np.testing.assert_allclose(y[:, 0], whole[:, i], atol=1e-5)

    # The first sequence goes on at 3, the second one at 1.
    own = jax.tree.map(lambda a: a[:, None], after_prompt)  # batches of one
    tokens = jnp.stack([x[0, 3:4], x[1, 1:2]])[:, None]
    y, _ = quick(jax.vmap(decode))(tokens, own, jnp.array([3, 1]))
    np.testing.assert_allclose(y[:, 0, 0], jnp.stack([whole[0, 3], whole[1, 1]]), atol=1e-5)


def test_every_layer_draws_its_own_dropout():
    """With weights of 0 and biases of 1 each layer adds its masks and nothing else: 0 or 2 for attention and MLP."""
    module = stack(2, dropout=0.5)
    x = jnp.zeros((1, 200, 8))
    variables = made(module, x)
    params = jax.tree.map(jnp.zeros_like, variables["params"]["blocks"])
    for name in ("attention", "mlp_out"):
        layer = params[name]["out"] if name == "attention" else params[name]
        layer["bias"] = jnp.ones_like(layer["bias"])
    options = {"rngs": {"dropout": jax.random.key(0)}, "mutable": "intermediates", "capture_intermediates": True}
    variables = {"params": {**variables["params"], "blocks": params}}
    _, state = quick(lambda variables: module.apply(variables, x, train=True, **options))(variables)
    (masks,) = state["intermediates"]["blocks"]["drop"]["__call__"][:1]
    masks = np.asarray(masks)
    assert masks.shape == (2, 1, 200, 8) and set(np.unique(masks)) == {0, 2}
    assert abs((masks[0] == masks[1]).mean() - 0.5) < 0.06  # 1,600 draws, 5 deviations


@pytest.mark.parametrize("cross, memory", [(True, None), (False, jnp.ones((1, 3, 8)))])
def test_a_memory_goes_with_cross_attention(cross, memory):
    with pytest.raises(UserError, match="with cross-attention takes a memory, and one without it none"):
        jax.eval_shape(stack(cross=cross).init, jax.random.key(0), jnp.ones((1, 4, 8)), None, memory)
