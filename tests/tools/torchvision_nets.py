"""torchvision's resnet, vgg16 and densenet201, said again in plain torch: the same tensors by the same names.

torchvision has no build that imports beside a CPU build of torch. Where it can be imported, the tests take its own
networks too, and hold these against them.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

RESNETS = {
    "resnet18": (2, (2, 2, 2, 2)),
    "resnet34": (2, (3, 4, 6, 3)),
    "resnet50": (3, (3, 4, 6, 3)),
    "resnet101": (3, (3, 4, 23, 3)),
    "resnet152": (3, (3, 8, 36, 3)),
}
NAMES = [*RESNETS, "vgg16", "densenet201"]


def conv(c, filters, size, stride=1, bias=False):
    return nn.Conv2d(c, filters, size, stride, size // 2, bias=bias)


class Block(nn.Module):
    """BasicBlock (depth 2) and Bottleneck (depth 3)."""

    def __init__(self, depth, c, planes, stride, around):
        super().__init__()
        self.depth = depth
        out = planes if depth == 2 else 4 * planes
        if depth == 2:
            shapes = [(c, planes, 3, stride), (planes, planes, 3, 1)]
        else:
            shapes = [(c, planes, 1, 1), (planes, planes, 3, stride), (planes, out, 1, 1)]
        for number, shape in enumerate(shapes, 1):
            setattr(self, f"conv{number}", conv(*shape))
            setattr(self, f"bn{number}", nn.BatchNorm2d(shape[1]))
        self.downsample = nn.Sequential(conv(c, out, 1, stride), nn.BatchNorm2d(out)) if around else None

    def forward(self, x):
        out = x
        for number in range(1, self.depth + 1):
            out = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(out))
            if number < self.depth:
                out = F.relu(out)
        return F.relu(out + (self.downsample(x) if self.downsample else x))


class ResNet(nn.Module):
    def __init__(self, depth, stages, width=64, classes=1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        c = width
        for stage, blocks in enumerate(stages):
            planes, made = width * 2**stage, []
            for block in range(blocks):
                out = planes if depth == 2 else 4 * planes
                stride = 2 if stage and not block else 1
                made.append(Block(depth, c, planes, stride, stride == 2 or c != out))
                c = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
        self.fc = nn.Linear(c, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(x.mean((2, 3)))


class Vgg16(nn.Module):
    def __init__(self, width=64, classes=1000, dense=4096):
        super().__init__()
        layers, c = [], 3
        for convolutions, factor in ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)):
            for _ in range(convolutions):
                layers += [conv(c, factor * width, 3, bias=True), nn.ReLU()]
                c = factor * width
            layers += [nn.MaxPool2d(2, 2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(49 * c, dense), nn.ReLU(), nn.Dropout(),
            nn.Linear(dense, dense), nn.ReLU(), nn.Dropout(), nn.Linear(dense, classes),
        )  # fmt: skip

    def forward(self, x):
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 7).flatten(1))


class DenseLayer(nn.Module):
    def __init__(self, c, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(c), conv(c, 4 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), conv(4 * growth, growth, 3)

    def forward(self, x):
        new = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat((x, new), 1)


class DenseNet(nn.Module):
    def __init__(self, blocks=(6, 12, 48, 32), width=64, classes=1000):
        super().__init__()
        c, growth = width, width // 2
        parts = [("conv0", nn.Conv2d(3, c, 7, 2, 3, bias=False)), ("norm0", nn.BatchNorm2d(c)), ("relu0", nn.ReLU()),
                 ("pool0", nn.MaxPool2d(3, 2, 1))]  # fmt: skip
        for number, layers in enumerate(blocks, 1):
            made = OrderedDict((f"denselayer{i + 1}", DenseLayer(c + i * growth, growth)) for i in range(layers))
            parts.append((f"denseblock{number}", nn.Sequential(made)))
            c += layers * growth
            if number < len(blocks):
                shrink = [("norm", nn.BatchNorm2d(c)), ("relu", nn.ReLU()), ("conv", conv(c, c // 2, 1))]
                parts.append((f"transition{number}", nn.Sequential(OrderedDict([*shrink, ("pool", nn.AvgPool2d(2))]))))
                c //= 2
        self.features = nn.Sequential(OrderedDict([*parts, ("norm5", nn.BatchNorm2d(c))]))
        self.classifier = nn.Linear(c, classes)

    def forward(self, x):
        return self.classifier(F.relu(self.features(x)).mean((2, 3)))


def restated(name, width=64, classes=1000):
    """The network as it starts; ``width`` 64 is torchvision's."""
    if name in RESNETS:
        return ResNet(*RESNETS[name], width, classes)
    if name == "vgg16":
        return Vgg16(width, classes, 64 * width)
    return DenseNet(width=width, classes=classes)


def randomised(model, size=64, seed=0):
    """Fill every tensor with random numbers under which values keep an ordinary size, through hundreds of layers.

    The filters of a layer differ in size, and so the variances behind them, down to some thousandths.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        return tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                tensor = module.weight
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5)
                if module.bias is None:
                    tensor.mul_(uniform(torch.empty(len(tensor), 1, 1, 1), 0.1, 1))
                else:
                    uniform(module.bias, -0.2, 0.2)
            elif isinstance(module, nn.BatchNorm2d):
                uniform(module.weight, 0.5, 1)
                uniform(module.bias, -0.2, 0.2)
                module.momentum = 1.0  # the next batch's statistics are the running ones
        for module in model.modules():
            if hasattr(module, "downsample"):
                # As trained networks have it: where all blocks count the same, 50 of them make rounding grow to 1e-4.
                (module.bn3 if hasattr(module, "bn3") else module.bn2).weight.mul_(0.3)
        model.train()(torch.randn((4, 3, size, size), generator=generator))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum, module.num_batches_tracked = 0.1, torch.tensor(0)
    return model.eval()
