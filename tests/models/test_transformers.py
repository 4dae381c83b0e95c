"""GPT, BERT and the Transformer: published parameter counts, PyTorch's layers as a whole, who sees whom, decoding."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.sequence import bert, gpt, transformer
from dlfx.models.sequence.bert import BERT, BERTForPretraining
from dlfx.models.sequence.gpt import GPT
from dlfx.models.sequence.transformer import Transformer
from dlfx.types import UserError
from tests.compiling import quick
from tests.torch_transformers import put_block, put_norm


def count(module, inputs=1):
    tokens = [jnp.zeros((1, 4), jnp.int32)] * inputs
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(module.init, jax.random.key(0), *tokens)))


def drawn(module, *inputs):
    """The variables, with biases and scales drawn too."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(module.init, jax.random.key(0), *inputs))
    draws = np.random.default_rng(0)
    return tree.unflatten([jnp.asarray(0.4 * draws.normal(size=leaf.shape), leaf.dtype) for leaf in leaves])


def tokens(*shape, seed=0, size=11):
    return jnp.asarray(np.random.default_rng(seed).integers(0, size, shape), jnp.int32)


small_gpt = partial(GPT, 11, 10, 2, 2, 8, 0.1)
small_bert = partial(BERT, 11, 10, 2, 2, 2, 8)
small_transformer = partial(Transformer, 11, layers=2, heads=2, width=8, hidden=12)


@pytest.mark.parametrize(
    "name, parameters",
    [("gpt2", 124_439_808), ("gpt2_medium", 354_823_168), ("gpt2_large", 774_030_080), ("gpt2_xl", 1_557_611_200)],
)
def test_gpt_2_has_the_published_parameters(name, parameters):
    assert count(GPT(**gpt.SIZES[name])) == parameters


def test_gpts_of_characters_have_nanogpt_s_parameters():
    """It counts them without the positions: 10.65M, and 0.80M in its small setting."""
    assert count(GPT(65, 256, 6, 6, 384, use_bias=False)) - 256 * 384 == 10_646_784
    assert count(GPT(65, 64, 4, 4, 128, use_bias=False)) - 64 * 128 == 65 * 128 + 4 * (12 * 128**2 + 2 * 128) + 128
    assert count(GPT(65, 64, 4, 4, 128, positions="rotary")) == count(GPT(65, 64, 4, 4, 128)) - 64 * 128


@pytest.mark.parametrize(
    "name, parameters",
    [("tiny", 4_385_920), ("base", 109_482_240), ("large", 335_141_888)],
)
def test_bert_has_the_published_parameters(name, parameters):
    assert count(BERT(**bert.SIZES[name])) == parameters


def test_bert_s_heads_have_theirs():
    base = BERT(**bert.SIZES["base"])
    heads = 768 * 769 + 2 * 768 + 30522 + 769 * 2  # the output is tied: only its bias is new
    assert count(BERTForPretraining(base)) == 109_482_240 + heads == 110_106_428


@pytest.mark.parametrize("name, published", [("base", 65e6), ("big", 213e6)])
def test_transformers_have_the_papers_parameters(name, published):
    size = transformer.SIZES[name]
    width, hidden = size["width"], size["hidden"]
    attention, mlp, norm = 4 * width * (width + 1), 2 * width * hidden + width + hidden, 2 * width
    blocks = 6 * (attention + mlp + 2 * norm) + 6 * (2 * attention + mlp + 3 * norm)
    found = count(Transformer(37_000, **size), 2)
    assert found == 37_000 * width + blocks
    assert abs(found / published - 1) < 0.04  # its vocabulary is of about 37,000
    apart = Transformer(8_000, source_vocabulary=5_000, shared_embeddings=False, **size)
    assert count(apart, 2) == 13_000 * width + blocks


def put_stack(torch, layers, params):
    for number, layer in enumerate(layers):
        put_block(torch, layer, jax.tree.map(lambda a, number=number: a[number], params["blocks"]))


def test_gpt_and_bert_are_pytorch_s_encoders_with_embeddings():
    torch = pytest.importorskip("torch")
    functional, options = torch.nn.functional, {"batch_first": True, "dtype": torch.float64}
    x = tokens(2, 7)
    later = torch.triu(torch.ones(7, 7, dtype=torch.bool), 1)
    with jax.enable_x64(True):
        types = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        model = small_gpt(**types)
        variables = drawn(model, x)
        logits = quick(model.apply)(variables, x)
        w = variables["params"]
        tanh = partial(functional.gelu, approximate="tanh")
        layers = [torch.nn.TransformerEncoderLayer(8, 2, 32, 0.0, tanh, norm_first=True, **options) for _ in range(2)]
        put_stack(torch, layers, w["stack"])
        norm = torch.nn.LayerNorm(8, dtype=torch.float64)
        put_norm(torch, norm, w["stack"]["norm"])
        table = torch.tensor(np.array(w["embedding"]["embedding"]))
        y = table[torch.tensor(np.array(x)).long()] + torch.tensor(np.array(w["position"]["embedding"]))[:7]
        for layer in layers:
            y = layer(y, src_mask=later)
        np.testing.assert_allclose(logits, (norm(y) @ table.T).detach(), atol=1e-10)

        model, kinds, lengths = small_bert(**types), tokens(2, 7, size=2), jnp.array([7, 4])
        variables = drawn(model, x)
        hidden, pooled = quick(model.apply)(variables, x, kinds, lengths)
        w = variables["params"]
        layers = [
            torch.nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", layer_norm_eps=1e-12, **options) for _ in range(2)
        ]
        put_stack(torch, layers, w["stack"])
        norm = torch.nn.LayerNorm(8, 1e-12, dtype=torch.float64)
        put_norm(torch, norm, w["norm"])
        tables = [torch.tensor(np.array(w[name]["embedding"])) for name in ("embedding", "position", "type")]
        y = (
            tables[0][torch.tensor(np.array(x)).long()]
            + tables[1][:7]
            + tables[2][torch.tensor(np.array(kinds)).long()]
        )
        y = norm(y)
        for layer in layers:
            y = layer(y, src_key_padding_mask=torch.arange(7) >= torch.tensor(np.array(lengths))[:, None])
        np.testing.assert_allclose(hidden, y.detach(), atol=1e-10)
        first = np.asarray(y.detach())[:, 0] @ np.asarray(w["pooler"]["kernel"]) + np.asarray(w["pooler"]["bias"])
        np.testing.assert_allclose(pooled, np.tanh(first), atol=1e-10)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_transformer_is_pytorch_s(norm_first):
    torch = pytest.importorskip("torch")
    source, target, lengths = tokens(2, 6), tokens(2, 5, seed=1), jnp.array([6, 3])
    with jax.enable_x64(True):
        model = small_transformer(norm_first=norm_first, dtype=jnp.float64, param_dtype=jnp.float64)
        variables = drawn(model, source, target)
        logits = quick(model.apply)(variables, source, target, lengths)
        w = variables["params"]
        options = {"batch_first": True, "norm_first": norm_first, "dtype": torch.float64}
        norms = [torch.nn.LayerNorm(8, dtype=torch.float64) if norm_first else torch.nn.Identity() for _ in range(2)]
        encoder = [torch.nn.TransformerEncoderLayer(8, 2, 12, 0.0, **options) for _ in range(2)]
        decoder = [torch.nn.TransformerDecoderLayer(8, 2, 12, 0.0, **options) for _ in range(2)]
        put_stack(torch, encoder, w["encoder"])
        put_stack(torch, decoder, w["decoder"])
        if norm_first:
            put_norm(torch, norms[0], w["encoder"]["norm"])
            put_norm(torch, norms[1], w["decoder"]["norm"])
        table = torch.tensor(np.array(w["embedding"]["embedding"]))
        angles = np.arange(6)[:, None] / 10000 ** (np.arange(0, 8, 2) / 8)
        positions = torch.tensor(np.stack([np.sin(angles), np.cos(angles)], -1).reshape(6, 8))
        x, y = (
            table[torch.tensor(np.array(words)).long()] * math.sqrt(8) + positions[: words.shape[1]]
            for words in (source, target)
        )
        padding = torch.arange(6) >= torch.tensor(np.array(lengths))[:, None]
        for layer in encoder:
            x = layer(x, src_key_padding_mask=padding)
        x, later = norms[0](x), torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
        for layer in decoder:
            y = layer(y, x, tgt_mask=later, memory_key_padding_mask=padding)
        np.testing.assert_allclose(logits, (norms[1](y) @ table.T).detach(), atol=1e-9)


def test_gpt_sees_one_side_and_bert_both():
    """Changing a token changes no logit before it by a bit, and those of it and after; every state of BERT."""
    x = tokens(1, 8)
    other = x.at[0, 5].set((x[0, 5] + 1) % 11)
    model = small_gpt()
    run = quick(partial(model.apply, drawn(model, x)))
    changed = np.asarray(run(x) != run(other)).any(-1)[0]
    assert list(changed) == [False] * 5 + [True] * 3
    model = small_bert()
    run = quick(partial(model.apply, drawn(model, x)))
    assert np.asarray(run(x)[0] != run(other)[0]).any(-1).all()


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_gpt_decodes_what_it_says_of_the_whole(positions):
    model, x = small_gpt(positions=positions), tokens(2, 10)
    variables = drawn(model, x)
    whole = quick(model.apply)(variables, x)
    step = quick(partial(model.apply, variables, method="decode"))
    cache, parts = model.apply(variables, 2, method="start"), []
    for start, stop in [(0, 6), *((i, i + 1) for i in range(6, 10))]:
        logits, cache = step(x[:, start:stop], cache, start)
        parts.append(logits)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, atol=1e-4)
    assert not np.allclose(whole, quick(model.apply)(variables, x[:, ::-1])[:, ::-1], atol=1e-2)


def test_the_transformer_decodes_what_it_says_of_the_whole_inside_a_scan():
    model, source, target, lengths = small_transformer(), tokens(2, 6), tokens(2, 5, seed=1), jnp.array([6, 3])
    variables = drawn(model, source, target)
    whole = quick(model.apply)(variables, source, target, lengths)

    @quick
    def decode(source, target):
        cache = model.apply(variables, source, 5, lengths, method="start")

        def step(cache, now):
            words, position = now
            logits, cache = model.apply(variables, words[:, None], cache, position, method="decode")
            return cache, logits[:, 0]

        return jax.lax.scan(step, cache, (target.T, jnp.arange(5)))[1].swapaxes(0, 1)

    np.testing.assert_allclose(decode(source, target), whole, atol=1e-4)


def test_padded_batches_are_each_sequence_alone():
    x, lengths = tokens(2, 8), jnp.array([8, 3])
    model = small_bert()
    variables = drawn(model, x)
    hidden, pooled = quick(model.apply)(variables, x, None, lengths)
    alone, alone_pooled = quick(model.apply)(variables, x[1:, :3])
    np.testing.assert_allclose(hidden[1:, :3], alone, atol=1e-4)
    np.testing.assert_allclose(pooled[1:], alone_pooled, atol=1e-4)
    model, target = small_transformer(), tokens(2, 5, seed=1)
    variables = drawn(model, x, target)
    both = quick(model.apply)(variables, x, target, lengths)
    np.testing.assert_allclose(both[1:], quick(model.apply)(variables, x[1:, :3], target[1:]), atol=1e-4)


def test_bert_tells_tokens_at_chosen_positions():
    model, x, positions = BERTForPretraining(small_bert()), tokens(2, 8), jnp.array([[1, 4], [7, 0]])
    variables = drawn(model, x)
    everywhere, sentences = quick(model.apply)(variables, x)
    chosen, same = quick(partial(model.apply, variables))(x, None, None, positions)
    assert everywhere.shape == (2, 8, 11) and sentences.shape == (2, 2)
    np.testing.assert_allclose(chosen, jnp.take_along_axis(everywhere, positions[..., None], 1), atol=1e-5)
    np.testing.assert_allclose(same, sentences, atol=1e-5)


def test_logits_are_float32_at_least():
    x = tokens(1, 4)
    for dtype, expected in ((jnp.bfloat16, jnp.float32), (jnp.float64, jnp.float64)):
        with jax.enable_x64(True):
            options = {"dtype": dtype, "param_dtype": jnp.float64 if dtype == jnp.float64 else jnp.float32}
            for model, inputs in (
                (small_gpt(**options), (x,)),
                (small_transformer(**options), (x, x)),
                (BERTForPretraining(small_bert(**options)), (x,)),
            ):
                outputs = jax.eval_shape(lambda m=model, i=inputs: m.init_with_output(jax.random.key(0), *i)[0])
                assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype(expected)}


def test_a_population_of_gpts_trains_as_each_alone():
    model, x = small_gpt(), tokens(2, 6)

    def gradient(key):
        variables = model.init(key, x)
        return jax.grad(lambda v: (model.apply(v, x, train=True, rngs={"dropout": key}) ** 2).sum())(variables)

    keys = jax.random.split(jax.random.key(0), 2)
    together, alone = quick(jax.vmap(gradient))(keys), quick(gradient)(keys[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-5), together, alone)


def test_what_does_not_fit_is_refused():
    key, x = jax.random.key(0), tokens(1, 11)
    for model in (small_gpt(), small_bert()):
        with pytest.raises(UserError, match="context of 10 tokens; got 11"):
            jax.eval_shape(model.init, key, x)
    with pytest.raises(UserError, match="kind of positions 'learnt'; did you mean learned"):
        jax.eval_shape(small_gpt(positions="learnt").init, key, x[:, :4])
    with pytest.raises(UserError, match="source of 7 tokens and a target of 11 cannot be shared"):
        jax.eval_shape(small_transformer(source_vocabulary=7).init, key, x, x)
