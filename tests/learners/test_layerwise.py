"""Layer-wise pretraining: what each stage trains and what it leaves, against stages run by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from dlfx.learners.autoencoder import corrupt
from dlfx.learners.layerwise import layerwise, predict, stage_of, trained
from dlfx.learners.supervised import supervised
from dlfx.models.generative.autoencoder import StackedAutoencoder
from dlfx.types import UserError
from tests.compiling import quick

SHAPE, WIDTHS, DEPTH = (3, 2, 1), (5, 4, 3), 3


def model(**options):
    return StackedAutoencoder(SHAPE, WIDTHS, num_classes=3, **options)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {"image": jnp.asarray(rng.random((6, *SHAPE)), jnp.float32), "label": jnp.array([0, 1, 2, 0, 1, 2])}


def same(a, b):
    return all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_stage_follows_from_the_step():
    assert [int(stage_of(jnp.int32(i), 2, 3)) for i in range(9)] == [0, 0, 1, 1, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("normalize", [False, True])
def test_frozen_parameters_keep_their_bits(batch, normalize):
    """Also under an optimizer that changes what gets no gradient, and so do running statistics."""
    optimizer = optax.adamw(0.1, weight_decay=0.5)
    learner = layerwise(
        model(normalize=normalize, activation="relu"), optimizer, optimizer, depth=3, pretrain_steps=2, loss="squared"
    )
    step = quick(learner.step)
    state = learner.init(jax.random.key(0), batch)
    for i in range(9):
        after, metrics = step(state, batch)
        stage = min(i // 2, DEPTH)
        assert metrics["stage"] == stage
        moves = {f"layer_{stage}", f"decoder_{stage}"}
        if stage == DEPTH:
            moves = {"layer_0", "layer_1", "layer_2", "output"}
        for name, value in state.params.items():
            leaves = zip(jax.tree.leaves(value), jax.tree.leaves(after.params[name]), strict=True)
            changed = [bool((a != b).any()) for a, b in leaves]
            assert any(changed) == (name in moves), (i, name)
        for name, value in state.extra.get("batch_stats", {}).items():
            assert same(value, after.extra["batch_stats"][name]) == (name not in moves), (i, name)
        for n, value in enumerate(state.opt_states):
            assert same(value, after.opt_states[n]) == (n != stage)
        assert same(state.pretrained, after.pretrained) == (stage == DEPTH)
        state = after


def sigmoid_layer(p, x):
    return jax.nn.sigmoid(x @ p["dense"]["kernel"] + p["dense"]["bias"])


def by_hand(params, batch, pretrain_steps, steps, make, amount, key):
    """The same training in plain jax: an optimizer begun afresh for each layer, on the codes of the layers below."""
    x, i, losses = batch["image"].reshape(6, -1), 0, []
    for n in range(DEPTH):
        part = trained(params, n, DEPTH)
        opt_state = make().init(part)
        for _ in range(pretrain_steps):
            given = corrupt("gaussian", amount, jax.random.fold_in(key, i), x)

            def loss(part, n=n, x=x, given=given):
                decoder = part[f"decoder_{n}"]
                y = sigmoid_layer(part[f"layer_{n}"], given) @ decoder["kernel"] + decoder["bias"]
                return -(x * jax.nn.log_sigmoid(y) + (1 - x) * jax.nn.log_sigmoid(-y)).sum(-1).mean()

            value, gradient = jax.value_and_grad(loss)(part)
            updates, opt_state = make().update(gradient, opt_state, part)
            part, i = optax.apply_updates(part, updates), i + 1
            losses.append(value)
        params = {**params, **part}
        x = sigmoid_layer(params[f"layer_{n}"], x)
    opt_state = make().init(params)
    for _ in range(steps):

        def loss(params):
            x = batch["image"].reshape(6, -1)
            for n in range(DEPTH):
                x = sigmoid_layer(params[f"layer_{n}"], x)
            logits = jax.nn.log_softmax(x @ params["output"]["kernel"] + params["output"]["bias"])
            return -logits[jnp.arange(6), batch["label"]].mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = make().update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(value)
    return params, losses


@pytest.mark.parametrize("amount", [0.0, 0.2])
def test_it_equals_stages_run_by_hand(batch, amount):
    def make():
        return optax.sgd(0.3, 0.9)

    learner = layerwise(model(), make(), make(), depth=3, pretrain_steps=3, corruption="gaussian", amount=amount)
    state = learner.init(jax.random.key(0), batch)
    params, losses = by_hand(state.params, batch, 3, 4, make, amount, state.key)
    after, metrics = quick(lambda s: jax.lax.scan(lambda s, _: learner.step(s, batch), s, None, 13))(state)
    np.testing.assert_allclose(metrics["loss"], jnp.stack(losses), rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), after.params, params)


def test_a_stage_reconstructs_the_code_below_it_and_not_the_image(batch):
    """Its loss changes with the layer below, and is unmoved when other images have the same code."""
    learner = layerwise(model(), optax.sgd(0.1), optax.sgd(0.1), depth=3, pretrain_steps=1)
    step = quick(learner.step)
    state = learner.init(jax.random.key(0), batch)._replace(step=jnp.int32(1))
    loss = step(state, batch)[1]["loss"]
    below = jax.tree.map(lambda x: x + 0.5, state.params["layer_0"])
    assert abs(step(state._replace(params=state.params | {"layer_0": below}), batch)[1]["loss"] - loss) > 1e-3
    for name in ("layer_2", "decoder_0", "output"):
        other = jax.tree.map(lambda x: x + 0.5, state.params[name])
        assert step(state._replace(params=state.params | {name: other}), batch)[1]["loss"] == loss
    kernel = np.array(state.params["layer_0"]["dense"]["kernel"])
    kernel[0] = 0  # the first pixel no longer reaches the code, however it is
    blind = state.params | {"layer_0": state.params["layer_0"] | {"dense": {"kernel": kernel, "bias": jnp.zeros(5)}}}
    brighter = batch | {"image": batch["image"].at[:, 0, 0].add(0.4)}
    assert (
        step(state._replace(params=blind), batch)[1]["loss"] == step(state._replace(params=blind), brighter)[1]["loss"]
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_without_pretraining_it_is_the_supervised_learner(batch, normalize):
    plain = supervised(model(normalize=normalize), optax.adam(0.05))
    control = layerwise(model(normalize=normalize), optax.adam(0.05), optax.sgd(9.0), depth=3, pretrain_steps=0)
    state, other = (learner.init(jax.random.key(3), batch) for learner in (control, plain))
    initial = state.params
    step, reference = quick(control.step), quick(plain.step)
    for _ in range(5):
        (state, metrics), (other, told) = step(state, batch), reference(other, batch)
        np.testing.assert_allclose(metrics["loss"], told["loss"], rtol=1e-6)
        assert metrics["accuracy"] == told["accuracy"] and metrics["stage"] == DEPTH
    for name, value in other.params.items():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.params[name], value)
    assert same(state.pretrained["params"], initial)
    np.testing.assert_allclose(
        predict(model(normalize=normalize), state, batch["image"])[0],
        plain_logits(normalize, other, batch["image"]),
        rtol=1e-4,
        atol=1e-5,
    )


def plain_logits(normalize, state, images):
    return model(normalize=normalize).apply({"params": state.params, **state.extra}, images)[0]


@pytest.mark.parametrize("step", [0, 2, 3])
def test_a_batch_shared_by_devices_is_one_batch(batch, step):
    def made(axis_name):
        network = model(normalize=True, axis_name=axis_name)
        return layerwise(
            network, optax.sgd(0.1), optax.sgd(0.1), depth=3, pretrain_steps=1, amount=0.3, axis_name=axis_name
        )

    whole, split = made(None), made("data")
    state = whole.init(jax.random.key(0), batch)._replace(step=jnp.int32(step))
    halves = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), batch)
    parts, metrics = quick(jax.vmap(split.step, (None, 0), axis_name="data"))(state, halves)
    wanted, told = quick(whole.step)(state, batch)
    for name, value in told.items():
        np.testing.assert_allclose(metrics[name], jnp.stack([value, value]), rtol=1e-4, err_msg=name)
    for a, b in ((parts.params, wanted.params), (parts.extra, wanted.extra)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, rtol=1e-4, atol=1e-6), a, b)


def test_members_under_vmap_and_scan_are_runs_alone_and_nothing_is_traced_twice(batch):
    learner = layerwise(model(), optax.adam(0.01), optax.adam(0.01), depth=3, pretrain_steps=2, amount=0.2)
    traces = []

    def step(state, _):
        traces.append(1)
        return learner.step(state, batch)

    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    states = jax.vmap(learner.init, (0, None))(keys, batch)
    run = quick(jax.vmap(lambda state: jax.lax.scan(step, state, None, 9)))
    after, _ = run(states)
    assert same(run(states)[0].params, after.params) and len(traces) == 1
    assert (jax.random.key_data(after.key) == jax.random.key_data(keys)).all() and (after.step == 9).all()
    state = learner.init(jax.random.key(1), batch)
    alone = quick(learner.step)
    for _ in range(9):
        state, _ = alone(state, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5), after.params, state.params)


def test_pretraining_carries_the_gradient_to_the_first_of_five_sigmoid_layers():
    data = load_digits(n_class=4)
    images, labels = jnp.asarray(data.images[:256, ..., None] / 16, jnp.float32), jnp.asarray(data.target[:256])
    network = StackedAutoencoder((8, 8, 1), (32,) * 5, num_classes=4)
    learner = layerwise(network, optax.sgd(0.1), optax.adam(0.01), depth=5, pretrain_steps=150)
    batch = {"image": images, "label": labels}
    state = learner.init(jax.random.key(0), batch)
    last, _ = quick(lambda s: jax.lax.scan(lambda s, _: learner.step(s, batch), s, None, 750))(state)

    def norm(params):
        def loss(params):
            logits, _ = network.apply({"params": params}, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return optax.tree.norm(jax.grad(loss)(params)["layer_0"])

    assert norm(last.pretrained["params"]) > 30 * norm(state.params)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "nll"}, "unknown loss 'nll'"),
        ({"corruption": "salt"}, "unknown corruption 'salt'"),
        ({"amount": 1.5}, "corruption of 1.5"),
        ({"depth": 0}, "0 layers"),
        ({"pretrain_steps": -1}, "-1 steps"),
    ],
)
def test_mistakes_get_one_line(options, says):
    with pytest.raises(UserError, match=says):
        layerwise(model(), optax.sgd(0.1), optax.sgd(0.1), **{"depth": 3, "pretrain_steps": 1} | options)
