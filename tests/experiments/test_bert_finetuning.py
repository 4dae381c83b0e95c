"""BERT's fine-tuning as a command: from a run of experiments.bert and from transformers' files, task by task."""

import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver

from dlfx.data import vocabulary
from dlfx.data.questions import Question
from dlfx.models.sequence.bert import BERT
from dlfx.training import checkpoints
from dlfx.weights.bert import save_bert
from tests.compiling import quick

ANIMALS, PLANTS = ["cat", "dog", "bird", "horse", "mouse"], ["oak", "rose", "pine", "grass", "moss"]
PLACES = ["in the house", "on the road", "by the river", "near the town", "at the gate", "under the sky"]
LINES = [
    f"we saw a {one} and a {two} {place}"
    for words in (ANIMALS, PLANTS)
    for one in words
    for two in words
    for place in PLACES
]
PRETRAINING = ["--context=24", "--layers=1", "--heads=1", "--width=16", "--batch_size=8", "--steps=2", "--log_every=2"]
STEPS = ["--batch_size=16", "--steps=40", "--steps_per_call=10", "--learning_rate=0.01", "--checkpoint_every=20"]
STEPS += ["--log_every=20", "--eval_every=40", "--dropout=0", "--schedule=linear", "--warmup_steps=4"]


@pytest.fixture
def pretrained(load, experiment, tmp_path):
    """A finished run of experiments.bert."""
    load("bert")
    text, path = tmp_path / "text.txt", tmp_path / "pretrained"
    text.write_text(". ".join(LINES))
    done = experiment("bert", f"--text_file={text}", f"--workdir={path}", *PRETRAINING)
    assert done.code == 0, done.err
    return path


@pytest.fixture
def tune(load, experiment):
    """`tune(*arguments)`: fine-tunes on a few steps."""
    load("bert_finetuning")
    return lambda *arguments: experiment("bert_finetuning", *STEPS, *arguments)


@pytest.fixture
def theirs(tmp_path):
    """A BERT in the files of transformers, with pieces of words."""
    pytest.importorskip("tokenizers")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    path = tmp_path / "theirs"
    letters = "abcdefghijklmnopqrstuvwxyz"
    symbols = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{c}" for c in letters),
        "the",
        "is",
        "##at",
    ]
    tokenizer = Tokenizer(models.WordPiece({s: k for k, s in enumerate(symbols)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model = BERT(len(symbols), context=40, layers=1, heads=2, width=16)
    save_bert(path, model, quick(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32)))
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def params(path):
    state = checkpoints.load_state(path / "checkpoints")
    return {name: value for name, value in state.items() if name.startswith("params/")}


def test_it_begins_with_the_pretrained_weights(pretrained, tune, tmp_path):
    labelled = tmp_path / "labelled.tsv"
    labelled.write_text("".join(f"{'animals' if k < 150 else 'plants'}\t{line}\n" for k, line in enumerate(LINES)))
    begun_with = [f"--text_file={labelled}", f"--init_from={pretrained}"]
    still = tmp_path / "still"
    done = tune(*begun_with, f"--workdir={still}", "--learning_rate=0", "--num_seeds=2", "--steps=10", "--layers=7")
    assert done.code == 0, done.err
    begun, found = params(pretrained), params(still)
    for name, value in found.items():
        if name.startswith("params/bert/"):
            np.testing.assert_array_equal(value, np.stack([begun[name]] * 2))
        elif name.endswith("kernel"):
            assert not np.array_equal(*value)  # the head is drawn by the seed
    assert {file.stem for file in (still / "figures").glob("*.png")} == {"confusion", "curves", "examples"}

    refused = tmp_path / "refused"

    def mistake(*flags):
        done = tune(*begun_with, f"--workdir={refused}", *flags)
        assert done.code == 2 and done.err.count("\n") == 1, done.err
        return done.err

    assert "nowhere is neither a finished run of experiments.bert nor a BERT" in mistake("--init_from=nowhere")
    assert "--context=25, but the model in" in mistake("--context=25")
    assert "--random_weights is for --init_from" in mistake("--init_from=", "--random_weights")
    stored = json.loads((pretrained / "vocabulary.json").read_text())
    stored["special"].remove("<eos>")
    (pretrained / "vocabulary.json").write_text(json.dumps(stored))
    assert "has no [SEP] (<eos>), which BERT needs" in mistake()
    one = tmp_path / "one.tsv"
    one.write_text("yes\tthis is so\nyes\tthat is so\n")
    assert "has 1 labels" in mistake(f"--text_file={one}")


def test_tags_from_random_weights_and_on_after_a_stop(tune, tmp_path):
    tagged, path, half = tmp_path / "tagged.conll", tmp_path / "tags", tmp_path / "half"
    kinds = dict.fromkeys(ANIMALS, "B-ANIMAL") | dict.fromkeys(PLANTS, "B-PLANT")
    tagged.write_text(
        "\n\n".join("\n".join(f"{word} {kinds.get(word, 'O')}" for word in line.split()) for line in LINES)
    )
    flags = ["--task=tags", f"--text_file={tagged}", "--examples=60", "--layers=1", "--width=16"]
    done = tune(*flags, f"--workdir={path}")
    assert done.code == 0, done.err
    told = json.loads((path / "summary.json").read_text())
    assert told["examples"]["train"] == 60 and told["metrics"]["test_f1"] > 0.9
    assert {file.stem for file in (path / "figures").glob("*.png")} == {"confusion", "curves", "examples"}
    shutil.copytree(path, half)
    (half / "summary.json").unlink()
    shutil.rmtree(half / "checkpoints" / "40")
    again = tune(*flags, f"--workdir={half}")
    assert "resuming after step 20" in again.out, again.err
    assert json.loads((half / "summary.json").read_text())["params_sha256"] == told["params_sha256"]


def test_answers_from_a_bert_of_transformers(tune, theirs, tmp_path):
    file, path = tmp_path / "squad.json", tmp_path / "spans"
    pairs = []
    for a, b, place in itertools.product(ANIMALS, PLANTS, PLACES):
        context = f"the {a} saw the {b} {place}."
        asked = {"question": "what did it see?", "answers": [{"text": b, "answer_start": context.index(b)}]}
        pairs.append({"context": context, "qas": [asked]})
    file.write_text(json.dumps({"data": [{"paragraphs": pairs}]}))
    flags = ["--task=spans", f"--init_from={theirs}", f"--text_file={file}", "--batch_size=8"]
    done = tune(*flags, f"--workdir={path}", "--steps=60")
    assert done.code == 0, done.err
    rows = [row for row in map(json.loads, (path / "metrics.jsonl").read_text().splitlines()) if "loss" in row]
    assert min(row["loss"] for row in rows) < rows[0]["loss"] - 0.5
    assert {file.stem for file in (path / "figures").glob("*.png")} == {"answers", "curves"}


def test_examples_in_numbers(load, theirs):
    load("bert_finetuning")
    from experiments import bert_tasks

    bert_tasks.FLAGS.mark_as_parsed()
    known = vocabulary.read(theirs / "tokenizer.json")
    example = Question(["where", "?"], ["the", "cat", "is", "a", "brat", "."], 3, 4)
    with flagsaver.flagsaver(context=30):
        fields = bert_tasks._spans_numbers(known, [example], ())
        symbols = [known.symbols[k] for k in fields["tokens"].values]
        assert symbols[:6] == ["[CLS]", "w", "##h", "##e", "##r", "##e"] and symbols[-1] == "[SEP]"
        begin, start, end = (int(fields[name][0]) for name in ("passage", "start", "end"))
        assert symbols[begin - 1 : begin + 3] == ["[SEP]", "the", "c", "##at"]
        assert symbols[start : end + 1] == ["a", "b", "##r", "##at"]
        tags = bert_tasks._tags_numbers(known, [(example.passage, ["O", "B-X", "O", "O", "B-X", "O"])], ("O", "B-X"))
        places = tags["places"].values
        symbols = [known.symbols[k] for k in tags["tokens"].values]
        assert [symbols[k] for k in places] == ["the", "c", "is", "a", "b", "[UNK]"]
        assert list(tags["tags"].values) == [0, 1, 0, 0, 1, 0]
    with flagsaver.flagsaver(context=14):  # room for six tokens of the passage: the answer's last is not among them
        fields = bert_tasks._spans_numbers(known, [example], ())
        assert len(fields["tokens"].values) == 14 and fields["start"] == fields["end"] == [-1]
    with flagsaver.flagsaver(context=8):
        tags = bert_tasks._tags_numbers(known, [(example.passage, ["O", "B-X", "O", "O", "B-X", "O"])], ("O", "B-X"))
        assert len(tags["tokens"].values) == 8 and list(tags["tags"].values) == [0, 1, 0, 0, 1]
