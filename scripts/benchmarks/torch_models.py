"""The classifiers in PyTorch, for benchmarks and for parity: layers are named as in torchvision and timm.

`MODELS[name](num_classes=10, channels=3, width=1.0)` is the peer of the model of the same name in
`dlfx.models.classification`, with its padding, its batch norm and its order of features, so that `state_dict()` is what
`dlfx.weights` reads. A module gives logits, and in training, where it has auxiliary heads, the logits and theirs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.benchmarks.torch_inception import GoogLeNet, InceptionV3, scaled


class LeNet5(nn.Module):
    def __init__(self, num_classes: int = 10, channels: int = 1, width: float = 1.0, image_size: int = 28) -> None:
        super().__init__()
        a, b, c, d = (scaled(count, width) for count in (6, 16, 120, 84))
        self.c1 = nn.Conv2d(channels, a, 5)
        self.c3 = nn.Conv2d(a, b, 5)
        self.c5 = nn.Linear(b * (image_size // 4 - 3) ** 2, c)
        self.f6 = nn.Linear(c, d)
        self.output = nn.Linear(d, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.c1(x)), 2)
        x = F.max_pool2d(F.relu(self.c3(x)), 2)
        x = F.relu(self.c5(x.permute(0, 2, 3, 1).flatten(1)))  # channels last, as in ours
        return self.output(F.relu(self.f6(x)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        squeezed = max(1, channels // reduction)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1; the shortcut projected, or padded with zeros, where shapes differ."""

    def __init__(
        self, inputs: int, outputs: int, middle: int | None, stride: int, groups: int, se: bool, padded: bool
    ) -> None:
        super().__init__()
        if middle is None:
            shapes = [(inputs, outputs, 3, stride, 1), (outputs, outputs, 3, 1, 1)]
        else:
            shapes = [(inputs, middle, 1, 1, 1), (middle, middle, 3, stride, groups), (middle, outputs, 1, 1, 1)]
        self.count = len(shapes)
        for i, (a, b, size, step, group) in enumerate(shapes, 1):
            self.add_module(f"conv{i}", nn.Conv2d(a, b, size, step, size // 2, groups=group, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(b))
        self.se = SqueezeExcite(outputs) if se else None
        self.downsample: nn.Module | None = None
        self.stride, self.new = stride, outputs - inputs
        if (stride > 1 or self.new) and not padded:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        if self.se is not None:
            y = self.se(y)
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.stride > 1 or self.new:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))
        return F.relu(x + y)


class ResNet(nn.Module):
    def __init__(
        self,
        blocks: tuple[int, ...],
        bottleneck: bool = False,
        stem: str = "imagenet",  # 7x7 of stride 2 and max-pooling; or cifar: one 3x3
        planes: int = 64,
        groups: int = 1,
        base: int = 64,  # channels of a group for 64 planes
        se: bool = False,
        padded: bool = False,  # shortcuts of kind A
        num_classes: int = 10,
        channels: int = 3,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        inputs, self.stages = scaled(planes, width), len(blocks)
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(channels, inputs, size, stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        for stage, count in enumerate(blocks):
            outputs, middle = scaled(planes * 2**stage, width), None
            if bottleneck:
                outputs *= 4
                middle = scaled(planes * 2**stage * base // 64 * groups, width, groups)
            layer = []
            for i in range(count):
                step = 2 if stage and not i else 1
                layer.append(ResidualBlock(inputs, outputs, middle, step, groups, se, padded))
                inputs = outputs
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class SeparableConv(nn.Module):
    """A depthwise 3x3 and a pointwise convolution, each with batch norm and ReLU6."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x))))))


class MobileNetV1(nn.Module):
    def __init__(self, num_classes: int = 10, channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        inputs = scaled(32, width, 8)
        self.conv_stem = nn.Conv2d(channels, inputs, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        stages = []
        for count, features in ((1, 64), (2, 128), (2, 256), (6, 512), (2, 1024)):
            outputs = scaled(features, width, 8)
            sizes = [inputs, *[outputs] * count]
            strides = [1 if features == 64 else 2, *[1] * (count - 1)]
            stages.append(nn.Sequential(*map(SeparableConv, sizes, sizes[1:], strides)))
            inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(F.relu6(self.bn1(self.conv_stem(x)))).mean((2, 3)))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [conv_bn_relu6(inputs, hidden, 1)] if expansion > 1 else []
        layers += [conv_bn_relu6(hidden, hidden, 3, stride, hidden), nn.Conv2d(hidden, outputs, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, num_classes: int = 10, channels: int = 3, width: float = 1.0, dropout: float = 0.2) -> None:
        super().__init__()
        inputs, last = scaled(32, width, 8), scaled(1280, max(1.0, width), 8)
        layers: list[nn.Module] = [conv_bn_relu6(channels, inputs, 3, 2)]
        table = [
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ]
        for expansion, features, count, stride in table:
            for i in range(count):
                outputs = scaled(features, width, 8)
                layers.append(InvertedResidual(inputs, outputs, 1 if i else stride, expansion))
                inputs = outputs
        self.features = nn.Sequential(*layers, conv_bn_relu6(inputs, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def conv_bn_relu6(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class VGG(nn.Module):
    def __init__(
        self,
        counts: tuple[int, ...],  # of convolutions before each pooling
        batch_norm: bool = False,
        num_classes: int = 10,
        channels: int = 3,
        width: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for features, count in zip((64, 128, 256, 512, 512), counts, strict=True):
            for _ in range(count):
                layers.append(nn.Conv2d(channels, channels := scaled(features, width), 3, padding=1))
                layers += [nn.BatchNorm2d(channels), nn.ReLU()] if batch_norm else [nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        hidden = scaled(4096, width)
        dense = [nn.Linear(49 * channels, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()]
        self.classifier = nn.Sequential(*dense, nn.Dropout(dropout), nn.Linear(hidden, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class AlexNet(nn.Module):
    def __init__(self, num_classes: int = 10, channels: int = 3, width: float = 1.0, dropout: float = 0.5) -> None:
        super().__init__()
        a, b, c, d, hidden = (scaled(count, width) for count in (64, 192, 384, 256, 4096))
        layers: list[nn.Module] = [nn.Conv2d(channels, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        layers += [nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        for inputs, outputs in ((b, c), (c, d), (d, d)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.MaxPool2d(3, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        dense = [nn.Dropout(dropout), nn.Linear(36 * d, hidden), nn.ReLU()]
        dense += [nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()]
        self.classifier = nn.Sequential(*dense, nn.Linear(hidden, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {"blocks": (2, 2, 2, 2)},
    "resnet34": {"blocks": (3, 4, 6, 3)},
    "resnet50": {"blocks": (3, 4, 6, 3), "bottleneck": True},
    "resnet101": {"blocks": (3, 4, 23, 3), "bottleneck": True},
    "resnet152": {"blocks": (3, 8, 36, 3), "bottleneck": True},
    "resnext50_32x4d": {"blocks": (3, 4, 6, 3), "bottleneck": True, "groups": 32, "base": 4},
    "resnext101_32x8d": {"blocks": (3, 4, 23, 3), "bottleneck": True, "groups": 32, "base": 8},
    "se_resnet50": {"blocks": (3, 4, 6, 3), "bottleneck": True, "se": True},
    "resnet18_cifar": {"blocks": (2, 2, 2, 2), "stem": "cifar"},
    "resnet20": {"blocks": (3, 3, 3), "stem": "cifar", "planes": 16, "padded": True},
    "resnet56": {"blocks": (9, 9, 9), "stem": "cifar", "planes": 16, "padded": True},
}
VGGS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
    "alexnet": AlexNet,
    **{name: partial(VGG, counts) for name, counts in VGGS.items()},
    **{f"{name}_bn": partial(VGG, counts, True) for name, counts in VGGS.items()},
    "googlenet_bn": GoogLeNet,
    "inception_v3": InceptionV3,
    **{name: partial(ResNet, **form) for name, form in RESNETS.items()},
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
}
