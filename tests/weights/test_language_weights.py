"""GPT-2 and BERT against Hugging Face's transformers: its checkpoints give the same numbers here, and come back."""

import json
import logging
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.sequence import bert, gpt
from dlfx.models.sequence.bert_heads import BERTClassifier, BERTSpans, BERTTagger
from dlfx.types import UserError
from dlfx.weights.bert import FORMS, load_bert, load_bert_for_pretraining, save_bert
from dlfx.weights.files import load_tensors, save_safetensors
from dlfx.weights.gpt2 import FORM, load_gpt2, save_gpt2
from dlfx.weights.transformers_names import shapes
from tests.compiling import quick

os.environ["HF_HUB_OFFLINE"] = "1"
logging.getLogger("transformers").setLevel(logging.ERROR)
torch = pytest.importorskip("torch")
with warnings.catch_warnings():  # of its own imports
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertForPreTraining,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        BertForTokenClassification,
        BertModel,
        GPT2Config,
        GPT2LMHeadModel,
        GPT2Model,
    )

    transformers.utils.logging.disable_progress_bar()

VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS = 41, 12, 24, 3, 2
GPT2 = {"vocab_size": VOCABULARY, "n_positions": CONTEXT, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}
BERT = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "hidden_size": WIDTH, "intermediate_size": 96}
BERT |= {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "type_vocab_size": 3}
random = np.random.default_rng(0)
TOKENS = random.integers(0, VOCABULARY, (3, 10)).astype(np.int32)
TYPES = random.integers(0, 3, TOKENS.shape).astype(np.int32)
LENGTHS = np.array([10, 4, 7], np.int32)
HERE = np.arange(10) < LENGTHS[:, None]


def drawn(model):
    """Theirs with weights all of which matter: norms that begin as 1 and 0, and biases of 0, would hide a swap."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1 if "LayerNorm.weight" in name or "ln_" in name and "weight" in name else 0, 0.3)
    return model.eval()


def theirs(model, *arguments, **named):
    inputs = {name: torch.from_numpy(x).long() for name, x in named.items()}
    with torch.no_grad():
        return model(*(torch.from_numpy(x).long() for x in arguments), **inputs)


def difference(found, expected, where=slice(None)):
    found, expected = np.asarray(found)[where], expected.numpy()[where]
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def edit(directory, change, name="model.safetensors"):
    """The tensors of a checkpoint changed."""
    tensors = load_tensors(directory / name)
    save_safetensors(directory / name, change(tensors) or tensors, {"format": "pt"})


def equal_files(one, other):
    one, other = (load_tensors(path / "model.safetensors") for path in (one, other))
    assert sorted(one) == sorted(other)
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and tensor.tobytes() == other[name].tobytes(), name


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    path, model = tmp_path_factory.mktemp("gpt2"), drawn(GPT2LMHeadModel(GPT2Config(**GPT2)))
    model.save_pretrained(path)
    return path, model


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory):
    path, model = tmp_path_factory.mktemp("bert"), drawn(BertForPreTraining(BertConfig(**BERT)))
    model.save_pretrained(path)
    return path, model


@pytest.fixture
def copied(tmp_path):
    def copy(path):
        for file in path.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        return tmp_path

    return copy


def test_gpt2_gives_the_same_logits_and_comes_back(gpt2, tmp_path):
    path, peer = gpt2
    model, variables = load_gpt2(path)
    logits = quick(model.apply)(variables, TOKENS)
    expected = theirs(peer, TOKENS).logits
    assert difference(logits, expected) <= 1e-5
    # Far more than rounding if the other GELU were meant.
    exact = GPT2LMHeadModel(GPT2Config(**GPT2, activation_function="gelu")).eval()
    exact.load_state_dict(peer.state_dict())
    assert difference(logits, theirs(exact, TOKENS).logits) > 1e-4
    save_gpt2(tmp_path, model, variables)
    equal_files(path, tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert torch.equal(theirs(again.eval(), TOKENS).logits, expected)


def test_gpt2_without_its_head_from_a_file_of_pytorch_with_masks(gpt2, tmp_path):
    path, peer = gpt2
    model, variables = load_gpt2(path)
    state = {name: tensor.clone() for name, tensor in peer.transformer.state_dict().items()}
    for i in range(LAYERS):
        state[f"h.{i}.attn.bias"] = torch.ones(1, 1, CONTEXT, CONTEXT).tril()
        state[f"h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(state | {"lm_head.weight": state["wte.weight"]}, tmp_path / "pytorch_model.bin")
    peer.config.save_pretrained(tmp_path)
    bare, same = load_gpt2(tmp_path, dropout=0.0)
    assert bare.dropout == 0.0
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, same))

    # The hidden states are those of GPT2Model: logits before the output matrix.
    body = GPT2Model.from_pretrained(tmp_path).eval()
    hidden = theirs(body, TOKENS).last_hidden_state
    expected = hidden @ torch.from_numpy(np.array(variables["params"]["embedding"]["embedding"])).T
    assert difference(quick(model.apply)(variables, TOKENS), expected) <= 1e-5


def test_a_gpt_without_biases_becomes_the_same_gpt2(tmp_path):
    model = gpt.GPT(VOCABULARY, CONTEXT, LAYERS, HEADS, WIDTH, use_bias=False)
    variables = quick(model.init)(jax.random.key(0), TOKENS)
    variables = jax.tree.map(lambda x: 3 * x, variables)
    save_gpt2(tmp_path, model, variables)
    peer = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    assert difference(quick(model.apply)(variables, TOKENS), theirs(peer, TOKENS).logits) <= 1e-5
    with pytest.raises(UserError, match="GPT-2 has learned positions; this model's are rotary"):
        save_gpt2(tmp_path, model.clone(positions="rotary"), variables)


def test_bert_gives_the_same_states_and_logits_and_comes_back(pretraining, tmp_path):
    path, peer = pretraining
    model, variables = load_bert_for_pretraining(path)
    words, sentences = quick(model.apply)(variables, TOKENS, TYPES, LENGTHS)
    inputs = {"token_type_ids": TYPES, "attention_mask": HERE}
    expected = theirs(peer, TOKENS, **inputs)
    assert difference(words, expected.prediction_logits, HERE) <= 1e-5
    assert difference(sentences, expected.seq_relationship_logits) <= 1e-5
    encoder, encoding = load_bert(path)
    hidden, pooled = quick(encoder.apply)(encoding, TOKENS, TYPES, LENGTHS)
    body = theirs(peer.bert, TOKENS, **inputs)
    assert difference(hidden, body.last_hidden_state, HERE) <= 1e-5
    assert difference(pooled, body.pooler_output) <= 1e-5
    # Each of these is told apart: the mask, the types, the kind of GELU.
    for other in (theirs(peer.bert, TOKENS, token_type_ids=TYPES), theirs(peer.bert, TOKENS, attention_mask=HERE)):
        assert difference(hidden, other.last_hidden_state, HERE) > 1e-2
    tanh = BertModel(BertConfig(**BERT, hidden_act="gelu_new")).eval()
    tanh.load_state_dict(peer.bert.state_dict())
    assert difference(hidden, theirs(tanh, TOKENS, **inputs).last_hidden_state, HERE) > 1e-4

    save_bert(tmp_path / "heads", model, variables)
    equal_files(path, tmp_path / "heads")
    again = BertForPreTraining.from_pretrained(tmp_path / "heads").eval()
    assert torch.equal(theirs(again, TOKENS, **inputs).prediction_logits, expected.prediction_logits)
    save_bert(tmp_path / "encoder", encoder, encoding)
    again = BertModel.from_pretrained(tmp_path / "encoder").eval()
    assert torch.equal(theirs(again, TOKENS, **inputs).pooler_output, body.pooler_output)
    assert jax.tree.all(jax.tree.map(np.array_equal, encoding, load_bert(tmp_path / "encoder")[1]))


@pytest.mark.parametrize(
    ("head", "peer"),
    [
        (lambda encoder: BERTClassifier(encoder, 5), BertForSequenceClassification),
        (lambda encoder: BERTTagger(encoder, 5), BertForTokenClassification),
        (BERTSpans, BertForQuestionAnswering),
    ],
    ids=["classifier", "tagger", "spans"],
)
def test_the_heads_of_bert_give_the_logits_of_theirs(pretraining, tmp_path, head, peer):
    encoder, encoding = load_bert(pretraining[0])
    model, classes = head(encoder), 2 if head is BERTSpans else 5
    out = {"kernel": random.normal(size=(WIDTH, classes)), "bias": random.normal(size=classes)}
    out = {name: jnp.asarray(x, jnp.float32) for name, x in out.items()}
    variables = {"params": {"bert": encoding["params"], "out": out}}
    found = quick(model.apply)(variables, TOKENS, TYPES, LENGTHS)
    save_bert(tmp_path, model, variables)
    told = theirs(peer.from_pretrained(tmp_path).eval(), TOKENS, token_type_ids=TYPES, attention_mask=HERE)
    if head is BERTSpans:
        for ours, expected in zip(found, (told.start_logits, told.end_logits), strict=True):
            assert difference(ours, expected, HERE) <= 1e-5
    else:
        assert difference(found, told.logits, HERE if peer is BertForTokenClassification else slice(None)) <= 1e-5


def test_the_first_checkpoints_of_bert_with_gamma_and_beta(pretraining, copied):
    def old(tensors):
        tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
        tensors["cls.predictions.decoder.bias"] = tensors.pop("cls.predictions.bias")
        tensors["bert.embeddings.position_ids"] = np.arange(CONTEXT)[None]
        kinds = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        return {
            "".join([name[: -len(end)], kinds[end]]) if (end := name[name.find("LayerNorm") :]) in kinds else name: x
            for name, x in tensors.items()
        }

    path = copied(pretraining[0])
    edit(path, old)
    assert "bert.encoder.layer.0.output.LayerNorm.gamma" in load_tensors(path / "model.safetensors")
    for load in (load_bert, load_bert_for_pretraining):
        found, expected = load(path)[1], load(pretraining[0])[1]
        assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))


def test_a_masked_language_model_has_no_pooler(tmp_path):
    peer = drawn(BertForMaskedLM(BertConfig(**BERT)))
    peer.save_pretrained(tmp_path)
    model, variables = load_bert_for_pretraining(tmp_path)
    words, sentences = quick(model.apply)(variables, TOKENS, TYPES, LENGTHS)
    expected = theirs(peer, TOKENS, token_type_ids=TYPES, attention_mask=HERE).logits
    assert difference(words, expected, HERE) <= 1e-5
    assert not np.asarray(sentences).any()
    encoder, variables = load_bert(tmp_path)
    assert not np.asarray(quick(encoder.apply)(variables, TOKENS)[1]).any()


@pytest.mark.parametrize("size", gpt.SIZES)
def test_every_published_gpt2_has_our_tensors(size):
    ours = gpt.GPT(**gpt.SIZES[size])
    like = jax.eval_shape(ours.init, jax.random.key(0), TOKENS)
    with torch.device("meta"):
        peer = GPT2Model(GPT2Config(n_layer=ours.layers, n_head=ours.heads, n_embd=ours.width))
    expected = {name: tuple(tensor.shape) for name, tensor in peer.state_dict().items()}
    assert {name: leaf.shape for name, leaf in shapes(like, FORM).items()} == expected


@pytest.mark.parametrize("size", bert.SIZES)
def test_every_published_bert_has_our_tensors(size):
    ours = bert.BERTForPretraining(bert.BERT(**bert.SIZES[size]))
    like, width = jax.eval_shape(ours.init, jax.random.key(0), TOKENS), ours.bert.width
    numbers = {"num_hidden_layers": ours.bert.layers, "num_attention_heads": ours.bert.heads, "hidden_size": width}
    with torch.device("meta"):
        peer = BertForPreTraining(BertConfig(**numbers, intermediate_size=4 * width))
    expected = {name: tuple(tensor.shape) for name, tensor in peer.state_dict().items()}
    for tied in ("weight", "bias"):
        del expected[f"cls.predictions.decoder.{tied}"]
    assert {name: leaf.shape for name, leaf in shapes(like, FORMS[type(ours)]).items()} == expected


def test_half_precision(gpt2, copied):
    path = copied(gpt2[0])
    edit(path, lambda tensors: {name: x.astype(jnp.bfloat16) for name, x in tensors.items()})
    ours = load_gpt2(path, param_dtype=jnp.bfloat16, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours[1])} == {np.dtype(jnp.bfloat16)}
    whole = load_gpt2(path)[1]
    assert jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, np.asarray(y, np.float32)), whole, ours[1]))


def test_what_is_wrong_with_a_checkpoint(gpt2, pretraining, copied, tmp_path):
    with pytest.raises(UserError, match="is no checkpoint of transformers: .*config.json cannot be read"):
        load_gpt2(tmp_path / "none")
    with pytest.raises(UserError, match="config.json must be of model_type 'gpt2'; got 'bert'"):
        load_gpt2(pretraining[0])
    path = copied(gpt2[0])
    config = json.loads((path / "config.json").read_text())

    def told(load=load_gpt2, **changed):
        (path / "config.json").write_text(json.dumps(config | changed))
        with pytest.raises(UserError) as error:
            load(path)
        return str(error.value)

    assert 'activation_function "relu"; here there is "gelu_new" or' in told(activation_function="relu")
    assert "has layer_norm_epsilon 1e-06; here there is 1e-05 alone" in told(layer_norm_epsilon=1e-6)
    assert "has n_inner 100; here there is null or 96 alone" in told(n_inner=100)
    assert "must have n_layer, a whole number from 1; got True" in told(n_layer=True)
    assert "of 52 tensors, 12 missing (h.3.attn.c_attn.bias, " in told(n_layer=4)
    assert "of 28 tensors, 12 unexpected (h.2.attn.c_attn.bias, " in told(n_layer=2)
    assert "1 of another shape or type (wpe.weight [12, 24] for [11, 24])" in told(n_positions=11)
    (path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json is not JSON"):
        load_gpt2(path)
    (path / "config.json").write_text(json.dumps(config))
    edit(path, lambda tensors: tensors.update({"lm_head.weight": tensors["transformer.wte.weight"] + 1}))
    with pytest.raises(UserError, match="lm_head.weight, other than its embeddings; here they are one"):
        load_gpt2(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights: neither model.safetensors nor pytorch_model.bin"):
        load_gpt2(path)

    path = copied(pretraining[0])
    config = json.loads((path / "config.json").read_text())
    assert 'has position_embedding_type "relative_key"' in told(load_bert, position_embedding_type="relative_key")
    assert "has intermediate_size 48; here there is 96 alone" in told(load_bert, intermediate_size=48)
    (path / "config.json").write_text(json.dumps(config))
    edit(path, lambda tensors: tensors.update({"classifier.weight": np.zeros((2, WIDTH), np.float32)}))
    load_bert(path)
    with pytest.raises(UserError, match=r"of 62 tensors, 1 unexpected \(classifier.weight\)"):
        load_bert_for_pretraining(path)
    edit(path, lambda tensors: tensors.update({"cls.predictions.decoder.bias": tensors["cls.predictions.bias"] + 1}))
    with pytest.raises(UserError, match="cls.predictions.decoder.bias other than cls.predictions.bias; here"):
        load_bert_for_pretraining(path)
