"""Writes spec/fixtures/networks_imagenet.lua: one training step of torchvision's networks, for spec/networks_imagenet_spec.lua.

usage: make_networks_fixture.py            (needs bench/requirements.txt; the format is described in spec/fixtures/README.md)
       make_networks_fixture.py --whole DIR   into DIR: the whole networks' state_dicts, images and outputs,
                                              for spec/long/torchvision_spec.lua

Images and parameters are pseudo-random numbers that the spec computes, too, so the file has only the results, in binary64.
"""
import pathlib
import sys

import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from torchvision.models.resnet import Bottleneck

from make_fixtures import lua

CLASSES, IMAGES, SIZE = 10, 4, 64
LABELS = [3, 0, 7, 3]


def numbers(n, seed):
    """As numbers() of spec/support/network.lua: in [-1, 1), multiples of 2^-23."""
    out, x = torch.empty(n, dtype=torch.float64), seed
    for i in range(n):
        x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
        out[i] = (x >> 40) / 2**23 - 1
    return out


class NarrowResNet50(torchvision.models.ResNet):
    """torchvision's, an eighth as wide."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self._norm_layer = torch.nn.BatchNorm2d
        self.groups, self.base_width, self.dilation, self.inplanes = 1, 64, 1, 8
        self.conv1 = torch.nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(8)
        self.relu = torch.nn.ReLU()
        self.maxpool = torch.nn.MaxPool2d(3, 2, 1)
        for i, (planes, blocks) in enumerate([(8, 3), (16, 4), (32, 6), (64, 3)], start=1):
            setattr(self, f"layer{i}", self._make_layer(Bottleneck, planes, blocks, 1 if i == 1 else 2))
        self.avgpool = torch.nn.AdaptiveAvgPool2d(1)
        self.fc = torch.nn.Linear(4 * 64, CLASSES)


def fill(net):
    """Weights up to about 1/sqrt(fan-in), a power of two; weights of normalisations around 1."""
    for seed, p in enumerate(net.parameters(), start=1):
        x = numbers(p.numel(), seed).view(p.shape)
        scale = 2.0 ** -(((p.numel() // p.shape[0]).bit_length() - 1) // 2) if p.dim() > 1 else 0.25
        p.data = (x * scale).float().double()
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.weight.data = (m.weight.data + 1).float().double()


def step(net):
    net.double().train()
    fill(net)
    x = numbers(IMAGES * 3 * SIZE * SIZE, 1000).view(IMAGES, 3, SIZE, SIZE)
    output = F.log_softmax(net(x), 1)
    loss = F.nll_loss(output, torch.tensor(LABELS))
    loss.backward()
    gradients = {}
    for seed, (name, p) in enumerate(net.named_parameters(), start=1):
        g = p.grad.reshape(-1)
        gradients[name] = [float(f"{v:.7g}") for v in (g.norm().item(), g.dot(numbers(g.numel(), 2000 + seed)).item())]
    net.eval()
    return {"loss": float(f"{loss.item():.8g}"), "output": output, "gradients": gradients, "eval_output": F.log_softmax(net(x), 1)}


def text(result):
    rows = "".join(f'    ["{k}"] = {{ {norm!r}, {along!r} }},\n' for k, (norm, along) in result["gradients"].items())
    parts = [f"    {k} = {lua(result[k], 4)},\n" for k in ("loss", "output", "eval_output")]
    return "{\n" + "".join(parts) + "    gradients = {\n" + rows.replace("    [", "      [") + "    },\n  }"


def whole(directory):
    """torchvision's networks with parameters as they start, and running statistics of noise; images and outputs in binary32."""
    torch.manual_seed(1)
    directory.mkdir(parents=True, exist_ok=True)
    x = torch.randn(2, 3, 224, 224)
    for name in ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "resnet50"]:
        net = getattr(torchvision.models, name)()
        net.train()(torch.randn(8, 3, 224, 224))
        safetensors.torch.save_file(net.state_dict(), directory / f"{name}.safetensors")
        with torch.no_grad():
            output = F.log_softmax(net.eval().double()(x.double()), 1).float()
        safetensors.torch.save_file({"x": x.permute(0, 2, 3, 1).contiguous(), "output": output},
                                    directory / f"{name}.output.safetensors")


def main():
    if sys.argv[1:2] == ["--whole"]:
        return whole(pathlib.Path(sys.argv[2]))
    path = pathlib.Path(__file__).resolve().parent / "fixtures/networks_imagenet.lua"
    nets = {"shufflenetv2": torchvision.models.shufflenet_v2_x0_5(num_classes=CLASSES), "resnet50": NarrowResNet50()}
    body = "".join(f"  {name} = {text(step(net))},\n" for name, net in nets.items())
    path.write_text(f"-- Made by spec/make_networks_fixture.py; described in README.md.\nreturn {{\n{body}}}\n")


if __name__ == "__main__":
    main()
