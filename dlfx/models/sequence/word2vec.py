"""word2vec: skip-gram and CBOW, their scores against single words or along the paths of a Huffman tree."""

import heapq
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.types import Array, Key, UserError


class Tree(NamedTuple):
    """The way from the root of a binary tree to each of V leaves, at most L decisions long.

    Attributes:
      nodes: `[V, L]` int32, the inner nodes on the way, numbered 0 ... V - 2; 0 behind the end of a way.
      signs: `[V, L]` int8, +1 where the way turns left, -1 where it turns right, 0 behind its end.
    """

    nodes: np.ndarray
    signs: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """How many decisions lead to each leaf, `[V]`."""
        return (self.signs != 0).sum(1)


def huffman(counts: np.ndarray) -> Tree:
    """The binary tree whose leaves are words, with the least expected number of decisions to a word.

    Args:
      counts: how often every word occurs `[V]`. Among equally rare subtrees the one made first is merged first, so the
        tree is the same on every machine.

    Raises:
      UserError: for fewer than two words.

    Source: Huffman 1952, A Method for the Construction of Minimum-Redundancy Codes; for words: Mikolov et al. 2013,
      Efficient Estimation of Word Representations in Vector Space (arXiv:1301.3781), section 3.
    """
    words = len(counts)
    if words < 2:
        raise UserError(f"a tree needs at least two words; there are {words}")
    heap = [(float(count), i) for i, count in enumerate(counts)]  # the leaves, then the inner nodes as they are made
    heapq.heapify(heap)
    parent, sign = np.zeros(2 * words - 1, np.int32), np.zeros(2 * words - 1, np.int8)
    for node in range(words, 2 * words - 1):
        (less, right), (more, left) = heapq.heappop(heap), heapq.heappop(heap)
        parent[[left, right]], sign[[left, right]] = node, (1, -1)
        heapq.heappush(heap, (less + more, node))
    root = 2 * words - 2
    depth = np.zeros(2 * words - 1, np.int32)
    for node in range(root - 1, -1, -1):  # a parent is made after its children
        depth[node] = depth[parent[node]] + 1
    tree = Tree(*(np.zeros((words, depth[:words].max()), kind) for kind in (np.int32, np.int8)))
    at = np.arange(words)
    while (climbing := np.flatnonzero(at != root)).size:  # all words one step towards the root
        here = at[climbing]
        tree.nodes[climbing, depth[here] - 1] = parent[here] - words
        tree.signs[climbing, depth[here] - 1] = sign[here]
        at[climbing] = parent[here]
    return tree


def init(key: Key, words: int, outputs: int, width: int, param_dtype: Any = jnp.float32) -> dict[str, Array]:
    """The two tables: `input [V, D]`, the vectors of the words, and `output [O, D]`, what they are scored against.

    Inputs are uniform in [-1 / 2D, 1 / 2D), outputs 0, as in the authors' program.

    Args:
      key: of the draw.
      words: V.
      outputs: O: V for negative sampling, V - 1 inner nodes for hierarchical softmax.
      width: D.
      param_dtype: of the tables.
    """
    table = jax.random.uniform(key, (words, width), param_dtype, -0.5, 0.5) / width
    return {"input": table, "output": jnp.zeros((outputs, width), param_dtype)}


def context_mean(vectors: Array, real: Array) -> Array:
    """CBOW's hidden layer: the mean of the vectors of the words around.

    Args:
      vectors: `[B, C, D]`.
      real: `[B, C]`, 1 for a word, 0 for filling.

    Returns:
      `[B, 1, D]`; 0 where there is no word at all. So the gradient of a context word is divided by how many there are,
      which the authors' program leaves out.

    Source: Mikolov et al. 2013 (arXiv:1301.3781), section 3.1; the gradient: Irsoy, Benton and Stratos 2021, Corrected
      CBOW Performs as well as Skip-gram (arXiv:2012.15332).
    """
    real = real.astype(vectors.dtype)[..., None]
    return (vectors * real).sum(1, keepdims=True) / jnp.maximum(real.sum(1, keepdims=True), 1)


def scores(inputs: Array, outputs: Array) -> Array:
    """Dot products of C inputs `[B, C, D]` with M outputs `[B, M, D]` of each row: `[B, C, M]`, float32 at least."""
    kind = jnp.promote_types(inputs.dtype, jnp.float32)
    return jnp.einsum("BCD,BMD->BCM", inputs, outputs, preferred_element_type=kind)


def log_probability(scores: Array, signs: Array) -> Array:
    """Hierarchical softmax: the log-probability of a word, that of every decision on the way to it in the tree.

    `log p(w | v) = sum_j log sigmoid(sign_j u_j . v)`

    Args:
      scores: `u_j . v` with the nodes on the way `[..., L]`.
      signs: of the way, as in `Tree`, `[..., L]`.

    Returns:
      `[...]` in nats. Over all words the probabilities sum to 1.

    Source: Mikolov et al. 2013, Distributed Representations of Words and Phrases and their Compositionality
      (arXiv:1310.4546), equation 3.
    """
    signs = signs.astype(scores.dtype)
    return jnp.where(signs != 0, jax.nn.log_sigmoid(signs * scores), 0).sum(-1)
