"""Runs the recipes of the README's map with their seeds and prints the rows of its table.

A row that was run before, with the same flags, is read from its run directories; `--fresh` runs it again.
"""

import argparse
import fnmatch
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


class Row(NamedTuple):
    """One line of the map: a system, where it is from, where it stands, and the recipe that measures it."""

    system: str
    paper: str
    file: str
    recipe: str  # EXPERIMENT/NAME of experiments/flagfiles
    seeds: int
    metric: str = "test_accuracy"
    says: str = ""  # what the metric is called in the table; a share of 1 is told in percent
    digits: int = 1
    flags: tuple[str, ...] = ()
    population: bool = False  # all seeds in one program
    data: str = ""  # the TFDS set that must be prepared
    unmeasured: str = ""  # why no figure is claimed


LENET, RESNET = "models/classification/lenet.py", "models/classification/resnet.py"
TABULAR = "learners/tabular"
AUTOENCODERS, PRETRAINED = "learners/autoencoder.py", "learners/layerwise.py"
GAN, VAE, VQVAE = "learners/gan.py", "learners/vae.py", "learners/vqvae.py"
PIX2PIX, CYCLEGAN = "learners/pix2pix.py", "learners/cyclegan.py"
SEQ2SEQ, TAGGER = "models/sequence/seq2seq.py", "models/sequence/tagger.py"
LSTM_LM, SPEECH = "models/sequence/recurrent_lm.py", "models/sequence/speech.py"
BERT, ELMO, NGRAM = "models/sequence/bert.py", "models/sequence/elmo.py", "models/sequence/ngram.py"
DQN, PG = "learners/dqn.py", "learners/policy_gradient.py"
MINATAR = "Young and Tian 2019"
NOT_RUN = "not run: needs CIFAR-10 and a GPU"


def tabular(
    system: str, paper: str, rule: str, recipe: str, seeds: int, metric: str = "length", digits: int = 1
) -> Row:
    """A row of the tabular rules: what the greedy policy achieves, or how far values are from the true ones."""
    says = {"length": "greedy steps", "return": "greedy return", "success": "success", "rms_loss": "RMS error"}[metric]
    file = f"{TABULAR}/{rule}.py"
    return Row(system, paper, file, f"rl_tabular/{recipe}", seeds, f"eval_{metric}", says, digits, population=seeds > 1)


def agent(system: str, paper: str, file: str, recipe: str, seeds: int) -> Row:
    """A row of the deep agents: the return of the greedy policy after the last step."""
    return Row(system, paper, file, recipe, seeds, "eval_return", "greedy return", population=True)


def unit(system: str, recipe: str, metric: str, says: str) -> Row:
    """A row of the perceptron."""
    return Row(system, "Rosenblatt 1958", "learners/perceptron.py", f"perceptron/{recipe}", 1, metric, says, 0)


def trained(system: str, paper: str, file: str, recipe: str, seeds: int) -> Row:
    """A row of classifiers that train as one population."""
    return Row(system, paper, file, recipe, seeds, population=seeds > 1)


def network(system: str, paper: str, file: str, recipe: str, seeds: int = 3) -> Row:
    """A row of the convolutional networks, on digits."""
    return Row(system, paper, f"models/classification/{file}.py", f"cnn/{recipe}_digits", seeds)


def squeezed(system: str, paper: str, recipe: str) -> Row:
    """A row of the autoencoders: the mean squared error of a test pixel."""
    return Row(
        system, paper, AUTOENCODERS, f"autoencoder/{recipe}", 3, "test_pixel_error", "pixel error", 4, population=True
    )


def bounded(
    system: str, paper: str, file: str, recipe: str, seeds: int = 3, metric: str = "test_loss", data: str = ""
) -> Row:
    """A row of the variational autoencoders: minus the bound, in nats a test image."""
    says = "-ELBO" if metric == "test_loss" else "-IWAE bound"
    return Row(system, paper, file, f"vae/{recipe}", seeds, metric, says, 2, population=seeds > 1, data=data)


def ring(system: str, paper: str, recipe: str) -> Row:
    """A row of GANs in the plane: the share of samples within three standard deviations of a mode."""
    return Row(system, paper, GAN, f"gan/{recipe}", 10, "eval_quality", "high-quality share", 3, population=True)


def translated(system: str, paper: str, file: str, recipe: str, data: str = "") -> Row:
    """A row of translations: the mean absolute error of a test pixel against the true image, never trained on."""
    recipe = f"image_to_image/{recipe}"
    return Row(system, paper, file, recipe, 1, "test_error", "error", 4, data=data)


def read(system: str, paper: str, recipe: str) -> Row:
    """A row of the classifiers of texts."""
    return Row(system, paper, "models/sequence/text_classifier.py", f"text_classification/sentiment_{recipe}", 3)


def tagged(system: str, paper: str, recipe: str) -> Row:
    """A row of the taggers: F1 of the entities or words."""
    return Row(system, paper, TAGGER, f"tagging/{recipe}", 3, "test_f1", "F1", 4)


def written(system: str, paper: str, file: str, recipe: str) -> Row:
    """A row of the language models."""
    return Row(system, paper, file, f"lm/{recipe}", 1, "test_bits_per_character", "bits a character", 3)


def rewritten(system: str, paper: str, file: str, recipe: str) -> Row:
    """A row of sequence to sequence: the share of test pairs that come out right to the last token."""
    return Row(system, paper, file, f"seq2seq/{recipe}", 1, "test_exact_match", "exact match", 4)


def embedded(system: str, paper: str, recipe: str) -> Row:
    """A row of word vectors: nats a pair of words, or with CBOW a word."""
    return Row(system, paper, "models/sequence/word2vec.py", f"word2vec/{recipe}", 3, "test_loss", "test loss", 3)


ROWS = [
    unit("The notes' perceptron", "notes", "convergence_step", "last correction"),
    unit("Perceptron on XOR", "xor", "train_errors", "rows wrong"),
    unit("Pocket perceptron, overlapping clouds", "pocket", "train_errors", "rows wrong (of 60)"),
    trained(
        "MLP by hand-written backpropagation, mini-batches",
        "Rumelhart et al. 1986",
        "ops/backprop.py",
        "mlp/digits_minibatch",
        8,
    ),
    trained("... by batch gradient descent", "Rumelhart et al. 1986", "ops/backprop.py", "mlp/digits_batch", 8),
    trained(
        "... by stochastic gradient descent", "Robbins and Monro 1951", "ops/backprop.py", "mlp/digits_stochastic", 8
    ),
    trained(
        "Six sigmoid layers, pretrained one by one", "Bengio et al. 2007", PRETRAINED, "pretraining/digits_sigmoid", 5
    ),
    trained("... from random weights", "Bengio et al. 2007", PRETRAINED, "pretraining/digits_sigmoid_random", 5),
    trained(
        "Six layers of ReLU and batch norm, pretrained", "Bengio et al. 2007", PRETRAINED, "pretraining/digits_relu", 5
    ),
    trained("... from random weights", "Bengio et al. 2007", PRETRAINED, "pretraining/digits_relu_random", 5),
    squeezed("Linear autoencoder, code 8", "Baldi and Hornik 1989", "digits_linear"),
    squeezed("Deep autoencoder, code 2", "Hinton and Salakhutdinov 2006", "digits_plain"),
    squeezed("Denoising autoencoder", "Vincent et al. 2008", "digits_denoising"),
    squeezed("Sparse autoencoder", "Ng 2011", "digits_sparse"),
    squeezed("Contractive autoencoder", "Rifai et al. 2011", "digits_contractive"),
    squeezed("Convolutional autoencoder, code 16", "Masci et al. 2011", "digits_convolutional"),
    bounded("VAE on digits", "Kingma and Welling 2013", VAE, "digits"),
    bounded("VAE 784-500-20 on MNIST", "Kingma and Welling 2013", VAE, "mnist", 1, data="mnist"),
    bounded("Convolutional VAE on MNIST", "Kingma and Welling 2013", VAE, "mnist_best", 1, data="mnist"),
    bounded("Conditional VAE on digits", "Sohn et al. 2015", VAE, "digits_conditional"),
    bounded("Convolutional IWAE on digits", "Burda et al. 2015", VAE, "digits_conv"),
    bounded("VQ-VAE on digits", "van den Oord et al. 2017", VQVAE, "digits_vq"),
    ring("GAN with R1 on a ring of 8 Gaussians", "Mescheder et al. 2018", "ring"),
    ring("Minimax GAN on the ring", "Goodfellow et al. 2014", "ring_minimax"),
    ring("GAN with R1 on a grid of 25 Gaussians", "Mescheder et al. 2018", "grid25"),
    Row(
        "DCGAN on digits",
        "Radford et al. 2015",
        GAN,
        "gan/digits",
        1,
        "eval_pixel_distance",
        "pixel Frechet distance",
        3,
    ),
    Row(
        "WGAN-GP on digits",
        "Gulrajani et al. 2017",
        GAN,
        "gan/digits_wgan_gp",
        1,
        "eval_pixel_distance",
        "pixel Frechet distance",
        3,
    ),
    Row(
        "DCGAN on MNIST",
        "Radford et al. 2015",
        GAN,
        "gan/mnist",
        1,
        "eval_pixel_distance",
        "pixel Frechet distance",
        3,
        data="mnist",
    ),
    translated("pix2pix, outlines to digits", "Isola et al. 2016", PIX2PIX, "edges"),
    translated("pix2pix, turned faces to the front", "Isola et al. 2016", PIX2PIX, "frontalisation"),
    translated("CycleGAN, noisy digits to clean ones", "Zhu et al. 2017", CYCLEGAN, "noise"),
    Row("LeNet-5 on digits", "LeCun et al. 1998", LENET, "cnn/lenet5_digits", 8, population=True),
    Row("LeNet-5 on MNIST", "LeCun et al. 1998", LENET, "cnn/lenet5_mnist", 3, data="mnist"),
    network("Conv-block pattern on digits", "notes", "conv_blocks", "conv_blocks"),
    network("AlexNet, width 1/4", "Krizhevsky et al. 2012", "alexnet", "alexnet"),
    network("VGG-11 with batch norm, width 1/8", "Simonyan and Zisserman 2014", "vgg", "vgg11_bn"),
    network("GoogLeNet with auxiliary heads, width 1/4", "Szegedy et al. 2014", "googlenet", "googlenet_bn"),
    network("Inception-v2, width 1/4", "Ioffe and Szegedy 2015", "inception_v2", "inception_v2", 1),
    network("Inception-v3, width 1/8", "Szegedy et al. 2015", "inception_v3", "inception_v3", 1),
    network("ResNet-20 on digits", "He et al. 2015", "resnet", "resnet20"),
    network("ResNet-20, normalised first", "He et al. 2016", "resnet", "preresnet20"),
    network("ResNet-18 with a small stem, width 1/8", "He et al. 2015", "resnet", "resnet18_cifar"),
    network("ResNeXt-50, width 1/8", "Xie et al. 2016", "resnet", "resnext50"),
    network("SE-ResNet-50, width 1/8", "Hu et al. 2017", "resnet", "se_resnet50"),
    network("MobileNet-v1, width 1/4", "Howard et al. 2017", "mobilenet_v1", "mobilenet_v1", 1),
    network("MobileNet-v2, width 1/4", "Sandler et al. 2018", "mobilenet_v2", "mobilenet_v2"),
    Row(
        "ResNet-20 on CIFAR-10", "He et al. 2015", RESNET, "cnn/resnet20_cifar10", 3, data="cifar10", unmeasured=NOT_RUN
    ),
    written("GPT, docstrings by characters", "Radford et al. 2019", "models/sequence/gpt.py", "gpt_prose"),
    written("LSTM, the same text", "Graves 2013", LSTM_LM, "lstm_prose"),
    Row(
        "LSTM of 4.65M weights, by words",
        "Zaremba et al. 2014",
        LSTM_LM,
        "lm/zaremba_small_prose",
        1,
        "test_perplexity",
        "perplexity",
    ),
    rewritten("Sums by an LSTM with attention", "Bahdanau et al. 2014", SEQ2SEQ, "addition_attention"),
    rewritten("Sums by a Transformer", "Vaswani et al. 2017", "models/sequence/transformer.py", "addition_transformer"),
    rewritten("Strings reversed from one vector", "Sutskever et al. 2014", SEQ2SEQ, "reversal_vector"),
    rewritten("... with attention", "Bahdanau et al. 2014", SEQ2SEQ, "reversal_attention"),
    rewritten("Dates by an LSTM with attention", "Bahdanau et al. 2014", SEQ2SEQ, "dates_attention"),
    rewritten("Numbers to words, likewise", "Bahdanau et al. 2014", SEQ2SEQ, "numbers_attention"),
    read("TextCNN", "Kim 2014", "textcnn"),
    read("Simple recurrent network", "Elman 1990", "rnn"),
    read("Bidirectional LSTM", "Graves and Schmidhuber 2005", "bilstm"),
    read("Transformer encoder", "Vaswani et al. 2017", "transformer"),
    Row(
        "Strings of tones by CTC",
        "Graves et al. 2006",
        SPEECH,
        "speech/strings_tones",
        1,
        "test_label_error_rate",
        "label error rate",
        3,
    ),
    tagged("BiLSTM and CRF, entities", "Lample et al. 2016", "entities_crf"),
    tagged("... with a softmax for each tag", "Lample et al. 2016", "entities_softmax"),
    tagged("... words of Chinese sentences", "Lample et al. 2016", "segmentation_crf"),
    embedded("Skip-gram, negative sampling", "Mikolov et al. 2013", "skipgram_negative"),
    embedded("CBOW, hierarchical softmax", "Mikolov et al. 2013", "cbow_tree"),
    Row(
        "ELMo's biLM, docstrings",
        "Peters et al. 2018",
        ELMO,
        "elmo/prose",
        1,
        "test_forward_perplexity",
        "forward perplexity",
    ),
    Row(
        "BERT of two layers, docstrings",
        "Devlin et al. 2018",
        BERT,
        "bert/prose",
        1,
        "test_masked_accuracy",
        "masked words",
        3,
    ),
    Row(
        "Sequence autoencoder, reviews",
        "Dai and Le 2015",
        SEQ2SEQ,
        "seq_autoencoder/reviews",
        1,
        "test_exact_match",
        "exact match",
        4,
    ),
    Row(
        "n-grams, Kneser-Ney",
        "Kneser and Ney 1995",
        NGRAM,
        "char_lm/prose",
        1,
        "test_bits_per_character",
        "bits a character",
        3,
    ),
    tabular("Q-learning on the cliff", "Watkins 1989", "q_learning", "cliff_q_learning", 100),
    tabular("SARSA on the cliff", "Rummery and Niranjan 1994", "sarsa", "cliff_sarsa", 100),
    tabular("SARSA in the windy gridworld", "Sutton and Barto 2018, ex. 6.5", "sarsa", "windy_sarsa", 100),
    tabular("SARSA with king's moves", "Sutton and Barto 2018, ex. 6.9", "sarsa", "windy_king", 100),
    tabular("Dyna-Q in the maze", "Sutton 1990", "dyna_q", "dyna_maze", 100),
    tabular("Q-learning on FrozenLake 4x4", "Watkins 1989", "q_learning", "frozenlake4x4", 20, "success", 3),
    tabular("Q-learning on Taxi", "Dietterich 2000", "q_learning", "taxi", 20, "return", 2),
    tabular("TD(0) on the random walk", "Sutton 1988", "td_zero", "random_walk", 100, "rms_loss", 4),
    tabular("Value iteration for the gambler", "Bellman 1957", "sweeps", "gambler", 1, "success", 3),
    agent("DQN on CartPole-v1", "Mnih et al. 2015", DQN, "dqn/cartpole", 10),
    agent("DQN on CartPole-v1, CleanRL's setting", "Mnih et al. 2015", DQN, "dqn/cartpole_cleanrl", 10),
    agent("DQN on Acrobot-v1", "Mnih et al. 2015", DQN, "dqn/acrobot", 10),
    agent("DQN on MountainCar-v0", "Mnih et al. 2015", DQN, "dqn/mountain_car", 10),
    agent("Rainbow on CartPole-v1", "Hessel et al. 2018", DQN, "dqn/cartpole_rainbow", 10),
    agent("Double DQN on MinAtar Breakout", MINATAR, DQN, "dqn/minatar_breakout", 3),
    agent("Double DQN on MinAtar Space Invaders", MINATAR, DQN, "dqn/minatar_space_invaders", 3),
    agent("REINFORCE with a baseline on CartPole-v1", "Williams 1992", PG, "policy_gradient/cartpole_reinforce", 10),
    agent("A2C on CartPole-v1", "Mnih et al. 2016", PG, "policy_gradient/cartpole_a2c", 10),
    agent("PPO on CartPole-v1", "Schulman et al. 2017", PG, "policy_gradient/cartpole_ppo", 10),
]


def command(row: Row, seed: int, workdir: Path, data_dir: str) -> list[str]:
    """The command that measures a row for a seed, or for all of them if they train as a population."""
    experiment, _ = row.recipe.split("/")
    flags = [f"--flagfile=experiments/flagfiles/{row.recipe}.flags", f"--seed={seed}", *row.flags]
    if row.population:
        flags.append(f"--num_seeds={row.seeds}")
    if row.data and data_dir:
        flags.append(f"--data_dir={data_dir}")
    return [sys.executable, "-m", f"experiments.{experiment}", *flags, f"--workdir={workdir}"]


def measure(row: Row, runs: Path, data_dir: str, fresh: bool) -> str:
    """Runs a row; the cell that holds its figure."""
    values: list[float] = []
    seconds: list[float] = []
    for seed in [0] if row.population else range(row.seeds):
        workdir = runs / row.recipe.replace("/", "-") / (f"seeds{row.seeds}" if row.population else f"seed{seed}")
        if fresh:
            shutil.rmtree(workdir, ignore_errors=True)
        print(f"# {' '.join(command(row, seed, workdir, data_dir)[1:])}", file=sys.stderr, flush=True)
        done = subprocess.run(command(row, seed, workdir, data_dir), cwd=ROOT, stdout=sys.stderr, check=False)
        if done.returncode:
            return f"failed with exit code {done.returncode}"
        summary = json.loads((workdir / "summary.json").read_text())
        value = summary["metrics"][row.metric]
        values += value["values"] if row.population else [value]
        seconds.append(summary["wall_seconds"])
    return cell(row, values, seconds)


def cell(row: Row, values: list[float], seconds: list[float]) -> str:
    """What a row says: mean and deviation over the seeds, and the wall time of a run."""
    seeds = f"{len(values)} seed{'s' if len(values) > 1 else ''}"
    if not row.says:
        spread = f" +- {100 * np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        return f"{100 * np.mean(values):.2f}{spread} % ({seeds}, {np.mean(seconds):.0f} s a run)"
    spread = f" +- {np.std(values, ddof=1):.{row.digits}f}" if len(values) > 1 else ""
    told = f"{row.says} {np.mean(values):.{row.digits}f}{spread}"
    return f"{told} ({seeds}, {np.mean(seconds):.0f} s{'' if row.population else ' a run'})"


def table_row(row: Row, figure: str) -> str:
    """A line of the map in Markdown."""
    extra = "".join(f" {flag}" for flag in row.flags) + (f" --num_seeds={row.seeds}" if row.population else "")
    recipe = f"`{row.recipe}`{f' `{extra.strip()}`' if extra else ''}"
    return f"| {row.system} | {row.paper} | `dlfx/{row.file}` | {recipe} | {figure} |"


def peers() -> str:
    """What a user would reach for instead on the same split: an RBF support vector machine on the raw pixels."""
    from sklearn.svm import SVC

    from dlfx.data import sources

    train, test = (sources.read_all(source) for source in sources.digits())
    machine = SVC().fit(train["image"].reshape(len(train["image"]), -1), train["label"])
    accuracy = machine.score(test["image"].reshape(len(test["image"]), -1), test["label"])
    return f"| (RBF SVM, same split) | scikit-learn `SVC()` | | `scripts/reproduce` | {100 * accuracy:.2f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="*", help="a pattern of recipes, such as 'cnn/*digits'")
    parser.add_argument("--data_dir", default="", help="the TFDS directory for the rows that need one")
    parser.add_argument("--runs", default=str(ROOT / "runs" / "reproduce"), help="where the run directories go")
    parser.add_argument("--fresh", action="store_true", help="run again what was run before")
    options = parser.parse_args()
    chosen = [row for row in ROWS if fnmatch.fnmatch(row.recipe, options.only)]
    if not chosen:
        sys.exit(f"error: no recipe matches {options.only!r}; there is {', '.join(row.recipe for row in ROWS)}")
    print("| system | paper | file | recipe | figure |\n|---|---|---|---|---|", flush=True)
    for row in chosen:
        home = Path(options.data_dir or "~/tensorflow_datasets").expanduser()
        prepared = not row.data or any(home.glob(f"{row.data}/*"))
        if row.unmeasured:
            figure = row.unmeasured
        elif not prepared:
            figure = f"skipped: {row.data} is not prepared (see --data_dir and scripts/prepare_data)"
        else:
            figure = measure(row, Path(options.runs), options.data_dir, options.fresh)
        print(table_row(row, figure), flush=True)
    if any("digits" in row.recipe for row in chosen):
        print(peers(), flush=True)


if __name__ == "__main__":
    main()
