"""Times a training step in PyTorch: forward, backward and an update by SGD.

usage: pytorch_step.py [--network NAME] [--device cpu|cuda[:N]] [--batch N] [--width W] [--steps N]
                       [--warmup N] [--threads N] [--channels-last | --emulated]
                       [--math f32|tf32|bf16] [--data resident|pinned] [--compile] [--graph]
                       [--json]
       pytorch_step.py --layers [--network NAME] [--width W]

The networks are in networks.py; the default is resnet18. Data are random and made once. Warm-up
steps are not measured. peak_bytes on the CPU: the largest resident memory during the measured
steps, minus the memory of the process before the network was made; with --compile this includes
what is left of compiling. On a GPU: the most memory that PyTorch's allocator had given out in the
measured steps (torch.cuda.max_memory_allocated).

--math: the types that convolutions and linear layers multiply on a GPU: binary32, TF32 (the default
there, as for PyTorch's convolutions), or bf16 by autocast, which stores activations in bf16, too.
Steps on a GPU are timed with events, and the host does not wait between them, as in a training
loop. --data: where the batch of a step on a GPU is: resident, in the GPU's memory; or pinned, in
page-locked memory of the host, from which each step copies it without waiting (as with a DataLoader
with pin_memory, and as in mptl). SGD on a GPU is PyTorch's fused one.

--compile: torch.compile compiles the network, in the first warm-up step. On the CPU this needs a
C++ compiler. --graph: after warm-up steps on a stream of their own, a whole step (forward,
backward, SGD) is captured in a CUDA graph and replayed; before each replay, pinned batches are
copied to where the graph reads them.

--emulated: trains resnet18 in low precision with QPyTorch, like mptl's policy uniform_low: outputs
of operators and parameters are rounded to FP(4,3), gradients of outputs to FP(5,2), of parameters
to FP(6,9), as many values in a step as in mptl. It is for timing: QPyTorch has no exponent bias
shift, so it rounds to FP(4,3,0) where mptl rounds to FP(4,3,4); scaling by 2^4 before and 2^-4
after would cost more. It rounds ties away from zero, saturates gradients too, and counts no
overflows. Its extension is compiled with -O3 (qpytorch.py).

--layers: measures nothing; prints the network's layers (layers() in networks.py).
"""
import argparse
import json
import os
import re
import statistics
import sys
import time
import traceback

import torch
import torch.nn.functional as F

from networks import NETWORKS, NO_ROUNDING, Rounding, create, layers


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
        self.idle = self.memory("VmRSS")
        self.name = "cpu"

    @staticmethod
    def memory(field):
        """VmRSS or VmHWM of this process, in bytes."""
        with open("/proc/self/status") as f:
            return 1024 * int(re.search(field + r":\s+(\d+)", f.read()).group(1))

    @staticmethod
    def start():
        """Before the first measured step."""
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")  # resets VmHWM: to compile took memory, too

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
            y = self.rounding.output(F.log_softmax(self.net(self.images), dim=1))
            losses = self.rounding.output(F.nll_loss(y, self.labels, reduction="none"))
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
    parser.add_argument("--network", choices=NETWORKS, default="resnet18")
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
    parser.add_argument("--layers", action="store_true", help="print the network's layers")
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
    if args.emulated and args.network != "resnet18":
        parser.error(f"--emulated --network {args.network}: QPyTorch has resnet18 only")
    args.math = args.math or ("tf32" if args.device.type == "cuda" else "f32")
    return args


def prepare(args, emulation):
    """Makes network, batch and optimizer. Returns a function that runs one step, including the
    upload of its batch, and the number of parameters."""
    on_gpu = args.device.type == "cuda"
    rounding = emulation.rounding if emulation else NO_ROUNDING
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    side, classes = NETWORKS[args.network].side, NETWORKS[args.network].classes
    net = create(args.network, args.width, **({"rounding": rounding} if emulation else {}))
    net = net.to(args.device, memory_format=layout).train()
    images, labels = torch.randn(args.batch, 3, side, side), torch.randint(classes, (args.batch,))
    batch = [images.to(memory_format=layout), labels]
    resident = [t.to(args.device) for t in batch]
    pinned = [t.pin_memory() for t in batch] if args.data == "pinned" else []
    fused = {"fused": True} if on_gpu and not emulation else {}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, **fused)
    scale = 1.0
    if emulation:
        optimizer, scale = emulation.optimizer(optimizer, net), emulation.loss_scale
    step = Step(torch.compile(net) if args.compile else net, optimizer, *resident, rounding, scale,
                args.math == "bf16")
    compute = step.captured(max(args.warmup, 3)) if args.graph else step

    def run():
        for to, source in zip(resident, pinned):
            to.copy_(source, non_blocking=True)
        compute()
    run.step = step  # its tensors must live as long as a captured step
    return run, sum(p.numel() for p in net.parameters())


def measure(args):
    """Returns what --json prints."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    emulation = Emulation() if args.emulated else None
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = args.math == "tf32"
    torch.backends.cudnn.benchmark = True  # shapes do not change: choose the fastest algorithms
    machine = Cuda(args.device) if args.device.type == "cuda" else Cpu()
    run, parameters = prepare(args, emulation)
    for _ in range(args.warmup):
        run()
    machine.start()
    marks = [machine.mark()]
    for _ in range(args.steps):
        run()
        marks.append(machine.mark())
    times = machine.times(marks)
    median = statistics.median(times)
    return {
        "network": args.network,
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


def main():
    args = arguments()
    if args.layers:
        print("\n".join(layers(args.network, args.width)))
        return
    try:
        row = measure(args)
    except torch._dynamo.exc.TorchDynamoException as e:
        traceback.print_exc()
        # The last line is what step_vs_pytorch reports, and the exception's last line is advice.
        sys.exit("torch.compile: " + str(e).strip().splitlines()[0])
    text = json.dumps(row) if args.json else "\n".join(f"{k:13} {v}" for k, v in row.items())
    print(text, flush=True)


if __name__ == "__main__":
    main()
