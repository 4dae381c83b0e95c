"""Variables of dlfx's attention and Transformer blocks into PyTorch's modules."""

import numpy as np


def _put(torch, parameter, value):
    with torch.no_grad():
        parameter.copy_(torch.tensor(np.array(value)))


def put_dense(torch, layer, params):
    _put(torch, layer.weight, np.asarray(params["kernel"]).T)
    if "bias" in params:
        _put(torch, layer.bias, params["bias"])


def put_norm(torch, layer, params):
    _put(torch, layer.weight, params["scale"])
    _put(torch, layer.bias, params["bias"])


def put_attention(torch, layer, params):
    """Of an `nn.MultiheadAttention`, which holds its three projections as one matrix."""
    parts = [params[name] for name in ("query", "key", "value")]
    _put(torch, layer.in_proj_weight, np.concatenate([np.asarray(part["kernel"]).T for part in parts]))
    _put(torch, layer.in_proj_bias, np.concatenate([np.asarray(part["bias"]) for part in parts]))
    put_dense(torch, layer.out_proj, params["out"])


def put_block(torch, layer, params):
    """Of an `nn.TransformerEncoderLayer`, or of an `nn.TransformerDecoderLayer` where there is cross-attention."""
    put_attention(torch, layer.self_attn, params["attention"])
    norms = ["attention_norm", "mlp_norm"]
    if "cross_attention" in params:
        put_attention(torch, layer.multihead_attn, params["cross_attention"])
        norms.insert(1, "cross_attention_norm")
    for number, name in enumerate(norms, 1):
        put_norm(torch, getattr(layer, f"norm{number}"), params[name])
    put_dense(torch, layer.linear1, params["mlp_in"])
    put_dense(torch, layer.linear2, params["mlp_out"])
