"""The networks of models/*.lua in PyTorch, for bench/pytorch_step.py.

Layers and parameters have the same names, shapes and widths as in models/NAME.lua: layers() lists
them, and bench/step_vs_pytorch compares both lists. A network returns a score for each class.
"""
import collections
import math

import torch
from torch import nn
import torch.nn.functional as F


def divisible(width, divisor):
    """nn.divisible: the nearest multiple of divisor, but at least divisor and 0.9 width."""
    n = max(divisor, math.floor((width + divisor / 2) / divisor) * divisor)
    return n + divisor if n < 0.9 * width else n


def scaled(width, multiplier):
    """nn.scaled: about width * multiplier, divisible by 8, or by 4 for multipliers up to 0.25."""
    return divisible(width * multiplier, 4 if multiplier <= 0.25 else 8)


def last_list(widths):
    """The list with the last number: the list, or the last one of the lists in it."""
    return last_list(widths[-1]) if isinstance(widths[-1], list) else widths


def widths(listed, multiplier):
    """nn.widths: those listed for this multiplier; otherwise those of 1, scaled, except the last
    one, which is taken from the next smaller multiplier in the table."""
    if multiplier in listed:
        return listed[multiplier]

    def scale(width):
        return [scale(w) for w in width] if isinstance(width, list) else scaled(width, multiplier)

    result = scale(listed[1])
    below = max((m for m in listed if m < multiplier), default=1)
    last_list(result)[-1] = last_list(listed[below])[-1]
    return result


def conv_bn(inputs, outputs, kernel=1, stride=1, groups=1, bias=False):
    """nn.conv_bn: a convolution, which keeps the image's size in stride 1, and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
    return conv, nn.BatchNorm2d(outputs)


# Modules that round, for low precision: output, the output of an operator with one consumer, and
# its gradient; shared_output, an output with up to two consumers; reading, the gradient from each
# consumer of such an output (their sum is not rounded).
Rounding = collections.namedtuple("Rounding", "output shared_output reading")
NO_ROUNDING = Rounding(nn.Identity(), nn.Identity(), nn.Identity())


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride, rounding):
        super().__init__()
        self.rounding = rounding
        self.conv1, self.bn1 = conv_bn(inputs, outputs, 3, stride)
        self.conv2, self.bn2 = conv_bn(outputs, outputs, 3)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            conv, bn = conv_bn(inputs, outputs, 1, stride)
            self.shortcut = nn.Sequential(collections.OrderedDict([
                ("0", conv), ("round0", rounding.output), ("1", bn), ("round1", rounding.output)]))

    def forward(self, x):
        r = self.rounding
        y = r.output(F.relu(r.output(self.bn1(r.output(self.conv1(r.reading(x)))))))
        y = r.output(self.bn2(r.output(self.conv2(y))))
        return r.shared_output(F.relu(r.output(y + self.shortcut(r.reading(x)))))


class ResNet18(nn.Module):
    """models/resnet18_cifar.lua; with rounding, in low precision."""

    sections = [(64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2)]

    def __init__(self, width, classes, rounding=NO_ROUNDING):
        super().__init__()
        self.rounding = rounding
        channels = scaled(64, width)
        self.conv1, self.bn1 = conv_bn(3, channels, 3)
        for i, (base, blocks, stride) in enumerate(self.sections, 1):
            outputs, layer = scaled(base, width), nn.Sequential()
            for block in range(blocks):
                layer.append(BasicBlock(channels, outputs, 1 if block else stride, rounding))
                channels = outputs
            setattr(self, f"layer{i}", layer)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x):
        r = self.rounding
        x = r.output(self.bn1(r.output(self.conv1(r.output(x)))))
        x = r.shared_output(F.relu(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = r.output(F.avg_pool2d(r.reading(x), 4)).flatten(1)
        return r.output(self.linear(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = self.expansion * width
        self.conv1, self.bn1 = conv_bn(inputs, width)
        self.conv2, self.bn2 = conv_bn(width, width, 3, stride)
        self.conv3, self.bn3 = conv_bn(width, outputs)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(*conv_bn(inputs, outputs, 1, stride))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """models/resnet50_imagenet.lua."""

    sections = [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]

    def __init__(self, width, classes):
        super().__init__()
        channels = scaled(64, width)
        self.conv1, self.bn1 = conv_bn(3, channels, 7, 2)
        for i, (base, blocks, stride) in enumerate(self.sections, 1):
            planes, layer = scaled(base, width), nn.Sequential()
            for block in range(blocks):
                layer.append(Bottleneck(channels, planes, 1 if block else stride))
                channels = Bottleneck.expansion * planes
            setattr(self, f"layer{i}", layer)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, expansion, stride):
        super().__init__()
        middle = inputs * expansion
        self.stride = stride
        self.conv1, self.bn1 = conv_bn(inputs, middle)
        self.conv2, self.bn2 = conv_bn(middle, middle, 3, stride, groups=middle)
        self.conv3, self.bn3 = conv_bn(middle, outputs)
        self.shortcut = nn.Sequential()
        if stride == 1 and inputs != outputs:
            self.shortcut = nn.Sequential(*conv_bn(inputs, outputs))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return y + self.shortcut(x) if self.stride == 1 else y


class MobileNetV2(nn.Module):
    """models/mobilenetv2_cifar.lua."""

    # expansion, width, blocks, stride of the first block
    sections = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                (6, 160, 3, 2), (6, 320, 1, 1)]

    def __init__(self, width, classes):
        super().__init__()
        channels, head = scaled(32, width), scaled(1280, max(1, width))
        self.conv1, self.bn1 = conv_bn(3, channels, 3)
        self.layers = nn.Sequential()
        for expansion, base, blocks, stride in self.sections:
            for block in range(blocks):
                outputs = scaled(base, width)
                self.layers.append(
                    InvertedResidual(channels, outputs, expansion, 1 if block else stride))
                channels = outputs
        self.conv2, self.bn2 = conv_bn(channels, head)
        self.linear = nn.Linear(head, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(self.layers(x))))
        return self.linear(F.avg_pool2d(x, 4).flatten(1))


def shuffled(x, groups):
    """x with the channels of its groups interleaved, in x's memory layout."""
    n, c, h, w = x.shape
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        x = x.permute(0, 2, 3, 1).view(n, h, w, groups, c // groups).transpose(3, 4)
        return x.reshape(n, h, w, c).permute(0, 3, 1, 2)
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    """nn.ShuffleUnit with flat = true."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        half = outputs // 2
        self.halves = stride == 1
        depthwise = {"kernel": 3, "stride": stride}
        left = [] if self.halves else [(inputs, inputs, depthwise), (inputs, half, {})]
        right = [(half if self.halves else inputs, half, {}), (half, half, depthwise),
                 (half, half, {})]
        for i, (inp, out, options) in enumerate(left + right, 1):
            conv, bn = conv_bn(inp, out, groups=inp if options else 1, **options)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", bn)
        self.left = range(1, len(left) + 1)
        self.right = range(len(left) + 1, len(left + right) + 1)

    def branch(self, x, numbers):
        for i in numbers:
            conv = getattr(self, f"conv{i}")
            x = getattr(self, f"bn{i}")(conv(x))
            if conv.kernel_size == (1, 1):  # no ReLU after a depthwise convolution
                x = F.relu(x)
        return x

    def forward(self, x):
        left, right = x.chunk(2, 1) if self.halves else (x, x)
        both = torch.cat([self.branch(left, self.left), self.branch(right, self.right)], 1)
        return shuffled(both, 2)


class ShuffleNetV2(nn.Module):
    """models/shufflenetv2_cifar.lua."""

    listed = {
        0.1: [12, 24, 48, 1024],
        0.25: [28, 56, 112, 1024],
        0.5: [56, 112, 224, 1024],
        1: [116, 232, 464, 1024],
    }
    units = [4, 8, 4]

    def __init__(self, width, classes):
        super().__init__()
        outputs, channels = widths(self.listed, width), 24
        self.conv1, self.bn1 = conv_bn(3, channels, 3)
        for i, units in enumerate(self.units):
            layer = nn.Sequential()
            for unit in range(units):
                layer.append(ShuffleUnit(channels, outputs[i], 1 if unit else 2))
                channels = outputs[i]
            setattr(self, f"layer{i + 1}", layer)
        self.conv2, self.bn2 = conv_bn(channels, outputs[3])
        self.linear = nn.Linear(outputs[3], classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.linear(F.avg_pool2d(x, 4).flatten(1))


class Fire(nn.Module):
    def __init__(self, inputs, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Sequential(*conv_bn(inputs, squeeze, bias=True), nn.ReLU())
        self.expand_1x1 = nn.Sequential(*conv_bn(squeeze, expand, bias=True))
        self.expand_3x3 = nn.Sequential(*conv_bn(squeeze, expand, 3, bias=True))

    def forward(self, x):
        x = self.squeeze(x)
        return F.relu(torch.cat([self.expand_1x1(x), self.expand_3x3(x)], 1))


class SqueezeNet(nn.Module):
    """models/squeezenet_cifar.lua."""

    # the first convolution; squeeze and expand convolutions of each fire module
    listed = {
        0.1: [12, [4, 8], [4, 8], [4, 12], [4, 12], [8, 20], [8, 20], [8, 24], [8, 256]],
        0.25: [24, [4, 16], [4, 16], [8, 32], [8, 32], [12, 48], [12, 48], [16, 64], [16, 256]],
        0.5: [48, [8, 32], [8, 32], [16, 64], [16, 64], [24, 96], [24, 96], [32, 128], [32, 256]],
        1: [96, [16, 64], [16, 64], [32, 128], [32, 128], [48, 192], [48, 192], [64, 256],
            [64, 256]],
    }
    pooled = {4, 8}  # fire modules with a pooling after them

    def __init__(self, width, classes):
        super().__init__()
        channels, *fires = widths(self.listed, width)
        self.stem = nn.Sequential(*conv_bn(3, channels, 3, bias=True), nn.ReLU(), nn.MaxPool2d(2))
        for i, (squeeze, expand) in enumerate(fires, 2):
            setattr(self, f"fire{i}", Fire(channels, squeeze, expand))
            channels = 2 * expand
        self.last = len(fires) + 1
        self.conv10 = nn.Conv2d(channels, classes, 1)

    def forward(self, x):
        x = self.stem(x)
        for i in range(2, self.last + 1):
            x = getattr(self, f"fire{i}")(x)
            if i in self.pooled:
                x = F.max_pool2d(x, 2)
        return F.avg_pool2d(self.conv10(x), 4).flatten(1)


# make: the class; side: of the images, in pixels
Network = collections.namedtuple("Network", "make side classes")
NETWORKS = {
    "resnet18": Network(ResNet18, 32, 10),
    "mobilenetv2": Network(MobileNetV2, 32, 10),
    "shufflenetv2": Network(ShuffleNetV2, 32, 10),
    "squeezenet": Network(SqueezeNet, 32, 10),
    "resnet50": Network(ResNet50, 224, 1000),
}


def create(name, width, **options):
    """The network, on the CPU, with random weights. options: rounding, for resnet18."""
    network = NETWORKS[name]
    net = network.make(width, network.classes, **options)
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
    return net


def layers(name, width):
    """What the networks of both sides are compared by, as a list of texts: "conv1.weight 64x3x3x3",
    the dimensions of a parameter; "conv1.output 65536", how many elements the output of a layer
    with parameters has for one image."""
    side, lines = NETWORKS[name].side, []
    with torch.device("meta"):  # computes shapes only
        net, image = create(name, width).eval(), torch.empty(1, 3, side, side)

    def add_to_lines(layer):
        def add(module, inputs, output):
            for parameter, p in module.named_parameters():
                lines.append(f"{layer}.{parameter} {'x'.join(map(str, p.shape))}")
            lines.append(f"{layer}.output {output.numel()}")
        return add

    for layer, module in net.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(add_to_lines(layer))
    net(image)
    return lines
