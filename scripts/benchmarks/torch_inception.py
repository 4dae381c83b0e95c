"""GoogLeNet and Inception-v3 in PyTorch, as `torch_models` has the other classifiers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Size = int | tuple[int, int]


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """The nearest multiple to so many channels at that width, as in `dlfx.nn.conv_norm`."""
    wanted = channels * width
    nearest = max(multiple, int(wanted + multiple / 2) // multiple * multiple)
    return nearest + multiple if nearest < 0.9 * wanted else nearest


class ConvBN(nn.Module):
    """torchvision's BasicConv2d: a convolution, batch norm and ReLU, its features at width 1."""

    def __init__(self, inputs: int, outputs: int, size: Size, stride: int = 1, padding: Any = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class InceptionBlock(nn.Module):
    """torchvision's block of GoogLeNet, with 3x3 where the paper has 5x5."""

    def __init__(self, inputs: int, a: int, b1: int, b2: int, c1: int, c2: int, d: int) -> None:
        super().__init__()
        self.branch1 = ConvBN(inputs, a, 1)
        self.branch2 = nn.Sequential(ConvBN(inputs, b1, 1), ConvBN(b1, b2, 3, padding=1))
        self.branch3 = nn.Sequential(ConvBN(inputs, c1, 1), ConvBN(c1, c2, 3, padding=1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), ConvBN(inputs, d, 1))
        self.outputs = a + b2 + c2 + d

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNetHead(nn.Module):
    def __init__(self, inputs: int, num_classes: int, width: float, dropout: float) -> None:
        super().__init__()
        features, hidden = scaled(128, width), scaled(1024, width)
        self.conv = ConvBN(inputs, features, 1)
        self.fc1, self.fc2 = nn.Linear(16 * features, hidden), nn.Linear(hidden, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.adaptive_avg_pool2d(x, 4)).flatten(1)
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


class GoogLeNet(nn.Module):
    BLOCKS = {
        "3a": (64, 96, 128, 16, 32, 32),
        "3b": (128, 128, 192, 32, 96, 64),
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
        "5a": (256, 160, 320, 32, 128, 128),
        "5b": (384, 192, 384, 48, 128, 128),
    }

    def __init__(
        self,
        num_classes: int = 10,
        channels: int = 3,
        width: float = 1.0,
        aux_heads: bool = True,
        dropout: float = 0.2,
        aux_dropout: float = 0.7,
    ) -> None:
        super().__init__()
        a, inputs = scaled(64, width), scaled(192, width)
        self.conv1 = ConvBN(channels, a, 7, 2, 3)
        self.conv2 = ConvBN(a, a, 1)
        self.conv3 = ConvBN(a, inputs, 3, padding=1)
        for name, features in self.BLOCKS.items():
            block = InceptionBlock(inputs, *(scaled(count, width) for count in features))
            self.add_module(f"inception{name}", block)
            inputs = block.outputs
            if aux_heads and name in ("4a", "4d"):
                head = GoogLeNetHead(inputs, num_classes, width, aux_dropout)
                self.add_module("aux1" if name == "4a" else "aux2", head)
        self.aux_heads = aux_heads
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Any:
        x = F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
        aux = []
        for name in self.BLOCKS:
            x = getattr(self, f"inception{name}")(x)
            if self.training and self.aux_heads and name in ("4a", "4d"):
                aux.append(getattr(self, "aux1" if name == "4a" else "aux2")(x))
            if name in ("3b", "4e"):
                x = F.max_pool2d(x, 3 if name == "3b" else 2, 2, ceil_mode=True)
        logits = self.fc(self.dropout(x.mean((2, 3))))
        return (logits, *aux) if aux else logits


class Branches(nn.Module):
    """A block of Inception-v3: chains of layers on the same input, by name, `pool` being a pooling before its layer.

    A chain that ends in a tuple forks there. A layer is (name, features, kernel[, stride]); with stride 1 it keeps the
    size.
    """

    def __init__(self, inputs: int, width: float, chains: list[list[Any]]) -> None:
        super().__init__()
        self.chains: list[list[Any]] = []
        self.outputs = 0
        for chain in chains:
            channels, names = inputs, list[Any]()
            for layer in chain:
                if isinstance(layer, str):
                    names.append(layer)
                    continue
                fork = layer if isinstance(layer[0], tuple) else (layer,)
                ends = []
                for name, features, kernel, *stride in fork:
                    features = scaled(features, width)
                    padding = tuple(side // 2 for side in kernel) if not stride else 0
                    self.add_module(name, ConvBN(channels, features, kernel, stride[0] if stride else 1, padding))
                    ends.append(features)
                names.append(tuple(name for name, *_ in fork))
                channels = sum(ends)
            self.chains.append(names)
            self.outputs += channels

    def forward(self, x: Tensor) -> Tensor:
        ends = []
        for chain in self.chains:
            y = x
            for names in chain:
                if names == "average":
                    y = F.avg_pool2d(y, 3, 1, 1)
                elif names == "halve":
                    y = F.max_pool2d(y, 3, 2)
                else:
                    y = torch.cat([getattr(self, name)(y) for name in names], 1)
            ends.append(y)
        return torch.cat(ends, 1)


ONE = (1, 1)


def inception_a(pool: int) -> list[list[Any]]:
    return [
        [("branch1x1", 64, ONE)],
        [("branch5x5_1", 48, ONE), ("branch5x5_2", 64, (5, 5))],
        [("branch3x3dbl_1", 64, ONE), ("branch3x3dbl_2", 96, (3, 3)), ("branch3x3dbl_3", 96, (3, 3))],
        ["average", ("branch_pool", pool, ONE)],
    ]


def inception_c(c: int) -> list[list[Any]]:
    row, column = (1, 7), (7, 1)
    twice = [(f"branch7x7dbl_{i + 2}", 192 if i == 3 else c, row if i % 2 else column) for i in range(4)]
    return [
        [("branch1x1", 192, ONE)],
        [("branch7x7_1", c, ONE), ("branch7x7_2", c, row), ("branch7x7_3", 192, column)],
        [("branch7x7dbl_1", c, ONE), *twice],
        ["average", ("branch_pool", 192, ONE)],
    ]


def inception_e() -> list[list[Any]]:
    def fork(name: str) -> tuple[Any, ...]:
        return ((f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1)))

    return [
        [("branch1x1", 320, ONE)],
        [("branch3x3_1", 384, ONE), fork("branch3x3_2")],
        [("branch3x3dbl_1", 448, ONE), ("branch3x3dbl_2", 384, (3, 3)), fork("branch3x3dbl_3")],
        ["average", ("branch_pool", 192, ONE)],
    ]


INCEPTION_B: list[list[Any]] = [
    [("branch3x3", 384, (3, 3), 2)],
    [("branch3x3dbl_1", 64, ONE), ("branch3x3dbl_2", 96, (3, 3)), ("branch3x3dbl_3", 96, (3, 3), 2)],
    ["halve"],
]
INCEPTION_D: list[list[Any]] = [
    [("branch3x3_1", 192, ONE), ("branch3x3_2", 320, (3, 3), 2)],
    [
        *(("branch7x7x3_1", 192, ONE), ("branch7x7x3_2", 192, (1, 7))),
        *(("branch7x7x3_3", 192, (7, 1)), ("branch7x7x3_4", 192, (3, 3), 2)),
    ],
    ["halve"],
]


class InceptionHead(nn.Module):
    def __init__(self, inputs: int, num_classes: int, width: float) -> None:
        super().__init__()
        self.conv0 = ConvBN(inputs, scaled(128, width), 1)
        self.conv1 = ConvBN(scaled(128, width), scaled(768, width), 5)
        self.fc = nn.Linear(scaled(768, width), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv1(self.conv0(F.avg_pool2d(x, 5, 3))).mean((2, 3)))


class InceptionV3(nn.Module):
    BLOCKS: dict[str, list[list[Any]]] = {
        "5b": inception_a(32),
        "5c": inception_a(64),
        "5d": inception_a(64),
        "6a": INCEPTION_B,
        "6b": inception_c(128),
        "6c": inception_c(160),
        "6d": inception_c(160),
        "6e": inception_c(192),
        "7a": INCEPTION_D,
        "7b": inception_e(),
        "7c": inception_e(),
    }

    def __init__(
        self,
        num_classes: int = 10,
        channels: int = 3,
        width: float = 1.0,
        aux_heads: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        a, b, c, inputs = (scaled(count, width) for count in (32, 64, 80, 192))
        self.Conv2d_1a_3x3 = ConvBN(channels, a, 3, 2)
        self.Conv2d_2a_3x3 = ConvBN(a, a, 3)
        self.Conv2d_2b_3x3 = ConvBN(a, b, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvBN(b, c, 1)
        self.Conv2d_4a_3x3 = ConvBN(c, inputs, 3)
        for name, chains in self.BLOCKS.items():
            block = Branches(inputs, width, chains)
            self.add_module(f"Mixed_{name}", block)
            inputs = block.outputs
            if name == "6e":
                self.AuxLogits = InceptionHead(inputs, num_classes, width) if aux_heads else None
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Any:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x, aux = F.max_pool2d(x, 3, 2), None
        for name in self.BLOCKS:
            x = getattr(self, f"Mixed_{name}")(x)
            if name == "6e" and self.training and self.AuxLogits is not None:
                aux = self.AuxLogits(x)
        logits = self.fc(self.dropout(x.mean((2, 3))))
        return logits if aux is None else (logits, aux)
