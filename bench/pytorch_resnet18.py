"""Times a training step of CIFAR ResNet-18 in PyTorch: forward, backward and an update by SGD.

usage: pytorch_resnet18.py [--device cpu|cuda[:N]] [--batch N] [--width W] [--steps N] [--threads N] [--channels-last | --emulated]
                           [--math f32|tf32|bf16] [--data resident|pinned] [--compile] [--graph] [--json]

The network is that in models/resnet18_cifar.lua. Data are random and made once. Warm-up steps are
not measured. peak_bytes on the CPU: the largest resident memory during the steps, minus the memory
of the process before the network was made. On a GPU: the most memory that PyTorch's allocator had
given out in the measured steps (torch.cuda.max_memory_allocated).

--math: the types that convolutions and linear layers multiply on a GPU: binary32, TF32 (the default
there, as for PyTorch's convolutions), or bf16 by autocast, which stores activations in bf16, too.
Steps on a GPU are timed with events, and the host does not wait between them, as in a training
loop. --data: where the batch of a step on a GPU is: resident, in the GPU's memory; or pinned, in
page-locked memory of the host, from which each step copies it without waiting (as with a DataLoader
with pin_memory, and as in mptl). SGD on a GPU is PyTorch's fused one.

--compile: torch.compile compiles the network. --graph: after warm-up steps on a stream of their
own, a whole step (forward, backward, SGD) is captured in a CUDA graph and replayed; before each
replay, pinned batches are copied to where the graph reads them.

--emulated: trains in low precision with QPyTorch, like mptl's policy uniform_low: outputs of
operators and parameters are rounded to FP(4,3), gradients of outputs to FP(5,2), of parameters to
FP(6,9), as many values in a step as in mptl. It is for timing: QPyTorch has no exponent bias shift,
so it rounds to FP(4,3,0) where mptl rounds to FP(4,3,4); scaling by 2^4 before and 2^-4 after would
cost more. It rounds ties away from zero, saturates gradients too, and counts no overflows. Its
extension is compiled with -O3 (qpytorch.py).
"""
import argparse
import collections
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


# Modules that round: output, the output of an operator with one consumer, and its gradient;
# shared_output, an output with up to two consumers; reading, the gradient from each consumer of such
# an output (their sum is not rounded).
Rounding = collections.namedtuple("Rounding", "output shared_output reading")
NO_ROUNDING = Rounding(nn.Identity(), nn.Identity(), nn.Identity())


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, rounding):
        super().__init__()
        self.rounding = rounding
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            conv, bn = nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential(conv, rounding.output, bn, rounding.output)

    def forward(self, x):
        r = self.rounding
        y = r.output(F.relu(r.output(self.bn1(r.output(self.conv1(r.reading(x)))))))
        y = r.output(self.bn2(r.output(self.conv2(y))))
        return r.shared_output(F.relu(r.output(y + self.shortcut(r.reading(x)))))


class ResNet18(nn.Module):
    def __init__(self, width=1.0, classes=10, rounding=NO_ROUNDING):
        super().__init__()
        self.rounding = rounding
        widths = [divisible(c * width, 4 if width <= 0.25 else 8) for c in (64, 128, 256, 512)]
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = widths[0]
        for i, outputs in enumerate(widths):
            blocks = [Block(inputs, outputs, 1 if i == 0 else 2, rounding), Block(outputs, outputs, 1, rounding)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            inputs = outputs
        self.linear = nn.Linear(inputs, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        r = self.rounding
        x = r.output(self.bn1(r.output(self.conv1(r.output(x)))))
        x = r.shared_output(F.relu(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = r.output(F.avg_pool2d(r.reading(x), 4)).flatten(1)
        return r.output(F.log_softmax(r.output(self.linear(x)), dim=1))


class Emulation:
    """QPyTorch for --emulated: a Rounding, and rounding in the optimizer."""

    loss_scale = 1024.0  # as in mptl bench step

    def __init__(self):
        import qpytorch

        qtorch, quant, optim, self.version = qpytorch.load()
        v = theta = qtorch.FloatingPoint(exp=4, man=3)
        dv, dtheta = qtorch.FloatingPoint(exp=5, man=2), qtorch.FloatingPoint(exp=6, man=9)

        def quantizer(forward, backward):
            return quant.Quantizer(forward, backward, forward_rounding="nearest", backward_rounding="nearest")

        self.rounding = Rounding(quantizer(v, dv), quantizer(v, None), quantizer(None, dv))
        self.theta = quant.quantizer(forward_number=theta, forward_rounding="nearest")
        self.dtheta = quant.quantizer(forward_number=dtheta, forward_rounding="nearest")
        self.wrap = optim.OptimLP

    def optimizer(self, sgd, net):
        """sgd on binary32 masters; rounds parameters now and after each step."""
        low = self.wrap(sgd, weight_quant=self.theta, grad_quant=self.dtheta, grad_scaling=1 / self.loss_scale,
                        acc_quant=lambda x: x)
        for p in net.parameters():
            p.data = self.theta(p.data)
        return low


class Cpu:
    """The clock and the memory of steps on the CPU."""

    def __init__(self):
        # Loads the library now, so that it does not count.
        F.conv2d(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3))
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")  # resets VmHWM
        self.idle = self.memory("VmRSS")
        self.name = "cpu"

    @staticmethod
    def memory(field):
        """VmRSS or VmHWM of this process, in bytes."""
        with open("/proc/self/status") as f:
            return 1024 * int(re.search(field + r":\s+(\d+)", f.read()).group(1))

    def start(self):
        """Before the first measured step."""

    mark = staticmethod(time.perf_counter)

    @staticmethod
    def times(marks):
        """Milliseconds between marks."""
        return [1000 * (b - a) for a, b in zip(marks, marks[1:])]

    def peak_bytes(self):
        return self.memory("VmHWM") - self.idle


class Cuda:
    """The same on a GPU."""

    def __init__(self, device):
        torch.cuda.set_device(device)
        self.name = torch.cuda.get_device_name(device)

    @staticmethod
    def start():
        torch.cuda.reset_peak_memory_stats()  # the choice of algorithms took memory, too

    @staticmethod
    def mark():
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @staticmethod
    def times(marks):
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in zip(marks, marks[1:])]

    @staticmethod
    def peak_bytes():
        return torch.cuda.max_memory_allocated()


def device_named(text):
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text}, accepted are cpu, cuda, cuda:N")
    if text == "cpu":
        return torch.device("cpu")
    index, gpus = int(found.group(1) or 0), torch.cuda.device_count()
    if index >= gpus:
        raise argparse.ArgumentTypeError(f"{text}, PyTorch sees {gpus} GPUs")
    return torch.device("cuda", index)


class Step:
    """A training step on the batch in images and labels."""

    def __init__(self, net, optimizer, images, labels, rounding, scale, autocast):
        self.net, self.optimizer, self.images, self.labels = net, optimizer, images, labels
        self.rounding, self.scale, self.autocast = rounding, scale, autocast

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)
        self.pass_and_update()

    def pass_and_update(self):
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.autocast):
            losses = self.rounding.output(F.nll_loss(self.net(self.images), self.labels, reduction="none"))
        (self.scale * losses.mean()).backward()
        self.optimizer.step()

    def captured(self, warm_up):
        """Captures the step in a CUDA graph after warm_up steps; returns a function that replays it.
        The step's tensors must live as long as that function."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(warm_up):  # chooses algorithms, allocates momentum
                self()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)  # so that the graph allocates the gradients
        with torch.cuda.graph(graph):
            self.pass_and_update()
        return graph.replay


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=device_named, default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    layouts = parser.add_mutually_exclusive_group()  # QPyTorch makes every tensor contiguous
    layouts.add_argument("--channels-last", action="store_true", help="NHWC memory layout of images and weights")
    layouts.add_argument("--emulated", action="store_true", help="low precision, emulated with QPyTorch")
    parser.add_argument("--math", choices=("f32", "tf32", "bf16"),
                        help="types of products on a GPU (default: tf32)")
    parser.add_argument("--data", choices=("resident", "pinned"), default="resident",
                        help="where the batch of a step on a GPU is")
    parser.add_argument("--compile", action="store_true",
                        help="compile the network by torch.compile")
    parser.add_argument("--graph", action="store_true",
                        help="replay a whole step as one CUDA graph")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    args = parser.parse_args()
    if args.device.type == "cpu":
        if args.math not in (None, "f32"):
            parser.error(f"--math {args.math}: for GPUs, the CPU computes in f32")
        if args.data != "resident":
            parser.error(f"--data {args.data}: for GPUs, on the CPU data are resident")
        if args.graph:
            parser.error("--graph: for GPUs")
    if args.emulated and (args.graph or args.compile):
        parser.error("--emulated: neither with --graph nor with --compile")
    args.math = args.math or ("tf32" if args.device.type == "cuda" else "f32")
    return args


def main():
    args = arguments()
    on_gpu = args.device.type == "cuda"
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    emulation = Emulation() if args.emulated else None
    rounding = emulation.rounding if emulation else NO_ROUNDING
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = args.math == "tf32"
    torch.backends.cudnn.benchmark = True  # shapes do not change: choose the fastest algorithms
    machine = Cuda(args.device) if on_gpu else Cpu()

    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    net = ResNet18(args.width, rounding=rounding).to(args.device, memory_format=layout).train()
    parameters = sum(p.numel() for p in net.parameters())
    batch = [torch.randn(args.batch, 3, 32, 32).to(memory_format=layout), torch.randint(10, (args.batch,))]
    resident = [t.to(args.device) for t in batch]
    pinned = [t.pin_memory() for t in batch] if args.data == "pinned" else []
    fused = {"fused": True} if on_gpu and not emulation else {}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, **fused)
    scale = 1.0
    if emulation:
        optimizer, scale = emulation.optimizer(optimizer, net), emulation.loss_scale
    run = Step(torch.compile(net) if args.compile else net, optimizer, *resident, rounding, scale, args.math == "bf16")
    if args.graph:
        run = run.captured(max(args.warmup, 3))

    marks = []
    for step in range(args.warmup + args.steps):
        if step == args.warmup:
            machine.start()
        if step >= args.warmup:
            marks.append(machine.mark())
        for to, source in zip(resident, pinned):
            to.copy_(source, non_blocking=True)
        run()
    times = machine.times(marks + [machine.mark()])

    median = statistics.median(times)
    row = {
        "torch": torch.__version__,
        "qpytorch": emulation.version if emulation else None,
        "device": machine.name,
        "math": args.math,
        "layout": "channels_last" if args.channels_last else "contiguous",
        "data": args.data,
        "compile": args.compile,
        "graph": args.graph,
        "parameters": parameters,
        "threads": args.threads,
        "batch": args.batch,
        "width": args.width,
        "steps": args.steps,
        "ms_median": round(median, 2),
        "ms_min": round(min(times), 2),
        "images_per_s": round(1000 * args.batch / median, 1),
        "peak_bytes": machine.peak_bytes(),
    }
    print(json.dumps(row) if args.json else "\n".join(f"{k:13} {v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
