"""Writes spec/fixtures/*.lua: numbers from PyTorch that the operator and training specs compare with.

usage: make_fixtures.py [NAME ...]     writes the fixtures of these names, or all

Needs bench/requirements.txt. spec/fixtures/README.md describes the format.

Inputs are decimals with two digits, rounded to binary32. Everything else is computed from them in binary64, so that the expected
numbers have no rounding errors that matter, and printed with eight digits.
"""
import pathlib
import re
import sys

import torch
from torch import nn
import torch.nn.functional as F

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = 116


class Inputs:
    """Random decimals with two digits, the same on every run."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *dims, scale=1.0, grad=True):
        hundredths = torch.randn(dims, generator=self.generator, dtype=torch.float64).mul(100 * scale).round()
        x = (hundredths / 100).float().double().requires_grad_(grad)
        x.is_input = True
        return x


def lua_number(x, short, digits=8):
    """Two decimals, or that many digits, as short as Lua reads them: .5, -.25, 3, 1.2e-07."""
    text = f"{x:.2f}".rstrip("0").rstrip(".") if short else f"{x:.{digits}g}"
    return "0" if text == "-0" else re.sub(r"^(-?)0\.", r"\1.", text)


def lua_tensor(t, indent):
    short = getattr(t, "is_input", False)
    digits = 9 if t.dtype == torch.float32 else 8  # nine tell any two numbers of binary32 apart
    numbers = [lua_number(x, short, digits) for x in t.detach().reshape(-1).tolist()]
    lines, line = [], ""
    for n in numbers:
        if len(line) + len(n) + 2 > COLUMNS:
            lines.append(line.rstrip())
            line = ""
        line += n + ", "
    lines.append(line.rstrip().rstrip(","))
    dims = ", ".join(map(str, t.shape)) if t.dim() else "1"
    pad = " " * (indent + 2)
    return "{ dims = { %s }, data = {\n%s%s } }" % (dims, pad, ("\n" + pad).join(lines))


def lua(value, indent=0):
    if isinstance(value, torch.Tensor):
        return lua_tensor(value, indent)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"%s"' % value
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        is_name = all(k.isidentifier() for k in value)
        rows = [f"{pad}{k if is_name else '[%s]' % lua(k)} = {lua(v, indent + 2)}," for k, v in value.items()]
    else:
        if all(isinstance(v, int) for v in value):
            return "{ " + ", ".join(map(str, value)) + " }"
        rows = [f"{pad}{lua(v, indent + 2)}," for v in value]
    return "{\n" + "\n".join(rows) + "\n" + " " * indent + "}"


def case(name, attributes, inputs, parameters, run, rand, **extra):
    """One case: run(inputs, parameters) -> output, and the gradients of inputs and parameters for a random cotangent dy."""
    y = run(*inputs.values(), *parameters.values())
    dy = rand(*y.shape, grad=False)
    y.backward(dy)
    row = {"name": name, **attributes, **inputs}
    row.update(parameters)
    row["y"] = y
    row["dy"] = dy
    for k, v in {**inputs, **parameters}.items():
        if v.grad is not None:
            row["d" + k] = v.grad
    row.update({k: f() for k, f in extra.items()})
    return row


def conv2d(rand):
    def one(name, n, c, h, k, kernel, stride, padding, bias, groups=1):
        parameters = {"weight": rand(k, c // groups, kernel, kernel, scale=0.4)}
        if bias:
            parameters["bias"] = rand(k)
        attributes = {"stride": stride, "padding": padding}
        if groups > 1:
            attributes["groups"] = groups
        return case(name, attributes, {"x": rand(n, c, h, h)}, parameters,
                    lambda x, w, b=None: F.conv2d(x, w, b, stride, padding, groups=groups), rand)
    return [
        one("3x3, stride 1, padding 1", 2, 3, 5, 4, 3, 1, 1, False),
        one("3x3, stride 2, padding 1", 2, 2, 6, 3, 3, 2, 1, False),
        one("1x1, stride 2", 2, 5, 4, 3, 1, 2, 0, False),
        one("3x3 with bias, odd channels", 1, 3, 4, 5, 3, 1, 1, True),
        one("3x3 in two groups, with bias", 2, 4, 4, 6, 3, 1, 1, True, 2),
        one("1x1 in three groups, stride 2", 2, 6, 5, 3, 1, 2, 0, False, 3),
        one("3x3 depthwise", 2, 5, 5, 5, 3, 1, 1, False, 5),
        one("3x3 depthwise, stride 2, with bias", 2, 4, 6, 4, 3, 2, 1, True, 4),
        one("3x3 depthwise, two outputs a channel", 1, 3, 4, 6, 3, 1, 1, False, 3),
    ]


def linear(rand):
    flat = case("matrix", {}, {"x": rand(3, 5)}, {"weight": rand(4, 5), "bias": rand(4)}, F.linear, rand)
    image = case("flattened image", {}, {"x": rand(2, 3, 2, 2)}, {"weight": rand(5, 12), "bias": rand(5)},
                 lambda x, w, b: F.linear(x.flatten(1), w, b), rand)
    return [flat, image]


def batchnorm2d(rand):
    def one(name, training):
        mean, var = rand(3, grad=False), rand(3, grad=False).abs() + 0.5
        var = var.mul(100).round().div(100).float().double()
        mean.is_input = var.is_input = True
        after = mean.clone(), var.clone()
        run = lambda x, w, b: F.batch_norm(x, *after, w, b, training, 0.1, 1e-5)
        row = case(name, {"training": training, "momentum": 0.1, "eps": 1e-5, "running_mean": mean, "running_var": var},
                   {"x": rand(3, 3, 4, 4)}, {"weight": rand(3), "bias": rand(3)}, run, rand)
        row["running_mean_after"], row["running_var_after"] = after
        return row
    return [one("training", True), one("evaluation", False)]


def relu(rand):
    x = rand(2, 3, 3, 3)
    with torch.no_grad():
        x[0, 0, 0, 0] = 0.0  # the gradient there is 0
    return [case("with a zero", {}, {"x": x}, {}, F.relu, rand)]


def relu6(rand):
    x = rand(2, 3, 3, 3, scale=6.0)
    with torch.no_grad():
        x[0, 0, 0, :2] = torch.tensor([0.0, 6.0])  # the gradient is 0 at both
    return [case("with a zero and a six", {}, {"x": x}, {}, F.relu6, rand)]


def sigmoid(rand):
    x = rand(2, 3, 3, 3, scale=3.0)
    with torch.no_grad():
        x[0, 0, 0, :2] = torch.tensor([-100.0, 100.0])
    return [case("with large values", {}, {"x": x}, {}, torch.sigmoid, rand)]


def mul(rand):
    return [case("two images", {}, {"a": rand(2, 3, 3, 3), "b": rand(2, 3, 3, 3)}, {}, torch.mul, rand)]


def add(rand):
    return [case("two images", {}, {"a": rand(2, 3, 3, 3), "b": rand(2, 3, 3, 3)}, {}, torch.add, rand)]


def avgpool2d(rand):
    def one(name, dims, kernel, stride, padding, count):
        return case(name, {"kernel": kernel, "stride": stride, "padding": padding, "count_include_pad": count}, {"x": rand(*dims)}, {},
                    lambda x: F.avg_pool2d(x, kernel, stride, padding, count_include_pad=count), rand)
    return [
        case("4x4 to 1x1", {"kernel": 4}, {"x": rand(2, 3, 4, 4)}, {}, lambda x: F.avg_pool2d(x, 4), rand),
        case("8x8 to 2x2", {"kernel": 4}, {"x": rand(1, 2, 8, 8)}, {}, lambda x: F.avg_pool2d(x, 4), rand),
        one("windows that overlap, padding", (2, 3, 7, 6), 3, 2, 1, True),
        one("padding that does not count", (2, 3, 7, 6), 3, 2, 1, False),
        one("windows that leave rows out", (1, 2, 7, 8), 2, 3, 0, True),
    ]


def maxpool2d(rand):
    def one(name, dims, kernel, stride, padding, x=None):
        x = rand(*dims) if x is None else x
        return case(name, {"kernel": kernel, "stride": stride, "padding": padding}, {"x": x}, {},
                    lambda x: F.max_pool2d(x, kernel, stride, padding), rand)
    ties = rand(2, 2, 6, 6)
    with torch.no_grad():
        ties.copy_(ties.round().clamp(-1, 1))  # most windows have several maxima: the first one gets the gradient
    return [
        one("2x2", (2, 3, 6, 4), 2, 2, 0),
        one("2x2 with ties", None, 2, 2, 0, ties),
        one("windows that overlap, padding", (2, 3, 7, 6), 3, 2, 1),
        one("windows that leave rows out", (1, 2, 7, 8), 2, 3, 0),
    ]


def mean(rand):
    return [case("of 3x4 images", {}, {"x": rand(2, 5, 3, 4)}, {}, lambda x: x.mean((2, 3)), rand)]


def shuffled(x, groups):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def concat(rand):
    """Of parts of one image, taken in another order."""
    def one(name, parts, shuffle):
        c = sum(count for _, count in parts)
        return case(name, {"firsts": [p[0] for p in parts], "counts": [p[1] for p in parts], "shuffle": shuffle},
                    {"x": rand(2, c, 2, 3)}, {},
                    lambda x: shuffled(torch.cat([x[:, f:f + n] for f, n in parts], 1), shuffle), rand)
    return [
        one("two parts", [(3, 2), (0, 3)], 1),
        one("three parts, shuffled", [(2, 4), (0, 2), (6, 6)], 3),
        one("one part, shuffled", [(0, 6)], 2),
        one("parts that overlap and leave channels out", [(1, 3), (2, 2)], 1),
        one("two halves, shuffled", [(5, 5), (0, 5)], 2),
    ]


def log_softmax(rand):
    large = rand(2, 4, scale=100.0)
    return [case("five classes", {}, {"x": rand(3, 5)}, {}, lambda x: F.log_softmax(x, 1), rand),
            case("values beyond exp's range", {}, {"x": large}, {}, lambda x: F.log_softmax(x, 1), rand)]


def nll_loss(rand):
    labels = [3, 0, 2, 3]
    run = lambda x: F.nll_loss(x, torch.tensor(labels), reduction="none")
    return [case("one loss a sample", {"labels": labels}, {"x": rand(4, 4)}, {}, run, rand)]


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
        y = KinkGuard.relu(self.bn1(self.conv1(x)))
        return KinkGuard.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class KinkGuard:
    """relu that records how near to 0 its inputs are: within binary32's errors the gradients could differ."""
    nearest = float("inf")

    @classmethod
    def relu(cls, x):
        cls.nearest = min(cls.nearest, x.detach().abs().min().item())
        return F.relu(x)


class TinyResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(3)
        self.layer1 = nn.Sequential(Block(3, 3, 1))
        self.layer2 = nn.Sequential(Block(3, 4, 2))
        self.linear = nn.Linear(4, 5)

    def forward(self, x):
        x = KinkGuard.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        return F.log_softmax(self.linear(F.avg_pool2d(x, 4).flatten(1)), dim=1)


def resnet_tiny(rand):
    net = TinyResNet().double().train()
    for name, p in net.named_parameters():
        scale = 0.3 if p.dim() > 1 else 0.1
        p.data = rand(*p.shape, scale=scale, grad=False)
        if ".weight" in name and p.dim() == 1:
            p.data = p.data.add(1).mul(100).round().div(100).float().double()
    parameters = {k: p.detach().clone() for k, p in net.named_parameters()}
    for p in parameters.values():
        p.is_input = True
    x, labels = rand(4, 3, 8, 8, grad=False), [1, 4, 0, 2]

    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    optimizer = torch.optim.SGD(net.parameters(), **settings)
    steps = []
    for _ in range(2):
        optimizer.zero_grad()
        output = net(x)
        loss = F.nll_loss(output, torch.tensor(labels))
        loss.backward()
        steps.append({"loss": float(f"{loss.item():.8g}"), "output": output.detach().clone(),
                      "gradients": {k: p.grad.clone() for k, p in net.named_parameters()}})
        optimizer.step()
    assert KinkGuard.nearest > 1e-5, f"an input of relu is as near to 0 as {KinkGuard.nearest:g}: take another seed"
    net.eval()
    buffers = {k: b for k, b in net.named_buffers() if not k.endswith("num_batches_tracked")}
    return {"optimizer": settings, "x": x, "labels": labels, "parameters": parameters, "steps": steps,
            "parameters_after": dict(net.named_parameters()), "buffers_after": buffers, "eval_output_after": net(x)}


def adamw(rand):
    """One parameter under recorded gradients, in binary32: the optimizer's own arithmetic is compared."""
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.1}
    before, gradients = rand(12, grad=False), rand(100, 12, grad=False)
    p = before.float().clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([p], **settings)
    for g in gradients:
        p.grad = g.float().clone()
        optimizer.step()
    state = optimizer.state[p]
    beta1, beta2 = settings.pop("betas")
    return {"optimizer": {**settings, "beta1": beta1, "beta2": beta2}, "p": before, "gradients": gradients,
            "p_after": p.detach(), "exp_avg_after": state["exp_avg"], "exp_avg_sq_after": state["exp_avg_sq"]}


def layernorm(rand):
    """Of the last dimension: features, or the channels of NHWC images."""
    def one(name, dims, eps, bias=True):
        c = dims[1]
        parameters = {"weight": rand(c)}
        if bias:
            parameters["bias"] = rand(c)
        last = lambda x: x.movedim(1, -1)
        return case(name, {"eps": eps}, {"x": rand(*dims)}, parameters,
                    lambda x, w, b=None: F.layer_norm(last(x), (c,), w, b, eps).movedim(-1, 1), rand)
    return [
        one("features", (3, 7), 1e-5),
        one("37 features", (2, 37), 1e-5),
        one("channels of each pixel", (2, 5, 3, 2), 1e-5),
        one("channels of each pixel, without bias, another eps", (1, 6, 2, 3), 0.1, False),
    ]


def loss_case(name, attributes, x, run):
    """One loss a sample, and the gradient of their sum."""
    y = run(x)
    y.sum().backward()
    return {"name": name, **attributes, "x": x, "y": y, "dx": x.grad}


def label_smoothing(rand):
    def one(name, s, n, classes):
        labels = [(3 * i + 1) % classes for i in range(n)]
        run = lambda x: F.cross_entropy(x, torch.tensor(labels), label_smoothing=s, reduction="none")
        return loss_case(name, {"label_smoothing": s, "labels": labels}, rand(n, classes, scale=3.0), run)
    return [one("a tenth", 0.1, 4, 5), one("no target is 0", 1.0, 3, 4), one("none", 0.0, 3, 4), one("two classes", 0.3, 2, 2)]


def cross_entropy_of_values(rand):
    targets = torch.softmax(rand(3, 4, grad=False), 1).mul(100).round().div(100).float().double()
    targets.is_input = True
    run = lambda x: F.cross_entropy(x, targets, reduction="none")
    return [loss_case("soft targets", {"targets": targets}, rand(3, 4, scale=3.0), run)]


def mse_loss(rand):
    def one(name, n, features, one_hot=False):
        labels = [(2 * i + 1) % features for i in range(n)]
        targets = F.one_hot(torch.tensor(labels), features).double() if one_hot else rand(n, features, grad=False)
        targets.is_input = True
        run = lambda x: F.mse_loss(x, targets, reduction="none").mean(1)
        return loss_case(name, {"labels": labels} if one_hot else {"targets": targets}, rand(n, features), run)
    return [one("values", 3, 4), one("one number a sample", 5, 1), one("classes", 4, 3, True)]


def gelu_cases(rand, approximate):
    large = rand(1, 3, 3, 3, scale=6.0)
    with torch.no_grad():
        large[0, 0, 0, :2] = torch.tensor([-100.0, 100.0])
    run = lambda x: F.gelu(x, approximate=approximate)
    return [case("about zero", {}, {"x": rand(2, 3, 3, 3)}, {}, run, rand),
            case("with large values", {}, {"x": large}, {}, run, rand)]


def gelu(rand):
    return gelu_cases(rand, "none")


def gelu_tanh(rand):
    return gelu_cases(rand, "tanh")


# The order determines the seeds: add new ones at the end.
FIXTURES = [conv2d, linear, batchnorm2d, relu, add, avgpool2d, log_softmax, nll_loss, resnet_tiny, relu6, sigmoid, mul, maxpool2d,
            mean, concat, adamw, label_smoothing, cross_entropy_of_values, mse_loss,
            layernorm, gelu, gelu_tanh]


def main():
    names = [make.__name__ for make in FIXTURES]
    wanted = sys.argv[1:] or names
    for name in wanted:
        if name not in names:
            sys.exit(f"make_fixtures.py: {name}: there is no such fixture, accepted are {', '.join(names)}")
        text = lua(FIXTURES[names.index(name)](Inputs(1 + names.index(name))))
        head = "-- Made by spec/make_fixtures.py; described in README.md.\n"
        (HERE / "fixtures" / f"{name}.lua").write_text(f"{head}return {text}\n")


if __name__ == "__main__":
    main()
