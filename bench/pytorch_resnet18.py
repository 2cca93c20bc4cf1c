"""Times a training step of CIFAR ResNet-18 in plain PyTorch on the CPU: forward, backward, SGD with momentum and weight decay.

usage: pytorch_resnet18.py [--batch N] [--width W] [--steps N] [--threads N] [--channels-last] [--json]

The network is the one of models/resnet18_cifar.lua. Data are random and made once; warm-up steps are not counted.
peak_bytes is the resident memory's high-water mark over the steps, above what the process held before the network was made.
"""
import argparse
import json
import os
import re
import statistics
import time

import torch
from torch import nn
import torch.nn.functional as F


def divisible(value, divisor):
    """The multiple of divisor nearest to value, at least divisor and never below 0.9 value."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    def __init__(self, width=1.0, classes=10):
        super().__init__()
        widths = [divisible(c * width, 4 if width <= 0.25 else 8) for c in (64, 128, 256, 512)]
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = widths[0]
        for i, outputs in enumerate(widths):
            blocks = [Block(inputs, outputs, 1 if i == 0 else 2), Block(outputs, outputs, 1)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            inputs = outputs
        self.linear = nn.Linear(inputs, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.log_softmax(self.linear(F.avg_pool2d(x, 4).flatten(1)), dim=1)


def memory(field):
    """VmRSS or VmHWM of this process, in bytes."""
    with open("/proc/self/status") as f:
        return 1024 * int(re.search(field + r":\s+(\d+)", f.read()).group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--channels-last", action="store_true", help="NHWC memory layout of images and weights")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    F.conv2d(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3))  # loads the library, so that it is not counted
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")  # starts VmHWM anew
    idle = memory("VmRSS")

    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    net = ResNet18(args.width).to(memory_format=layout).train()
    images = torch.randn(args.batch, 3, 32, 32).to(memory_format=layout)
    labels = torch.randint(10, (args.batch,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    times = []
    for step in range(args.warmup + args.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        F.nll_loss(net(images), labels).backward()
        optimizer.step()
        times.append(1000 * (time.perf_counter() - start))
    times = times[args.warmup:]

    median = statistics.median(times)
    row = {
        "torch": torch.__version__,
        "layout": "channels_last" if args.channels_last else "contiguous",
        "parameters": sum(p.numel() for p in net.parameters()),
        "threads": args.threads,
        "batch": args.batch,
        "width": args.width,
        "steps": args.steps,
        "ms_median": round(median, 2),
        "ms_min": round(min(times), 2),
        "images_per_s": round(1000 * args.batch / median, 1),
        "peak_bytes": memory("VmHWM") - idle,
    }
    print(json.dumps(row) if args.json else "\n".join(f"{k:13} {v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
