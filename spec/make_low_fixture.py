"""Writes spec/fixtures/resnet_tiny_low.lua, resnet_tiny_mixed.lua and resnet_tiny_auto.lua: trainings in low precision with
which low_precision_spec.lua compares.

usage: make_low_fixture.py [DIRECTORY]     (needs bench/requirements.txt; the format is described in spec/fixtures/README.md)

The method (Lee, Sharma, Aiken, TMLR 2023, sections 2 and 3) with a backward of our own, which rounds every tensor. Values are computed
in binary64, with a bound on the error of a computation in binary32 in any order. For each step images are drawn until no value is
within this bound of a point where its rounding changes: then binary32 must give identical rounded tensors.
"""
import copy
import math
import pathlib
import sys

import torch
import torch.nn.functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from make_fixtures import COLUMNS, HERE, Inputs, lua_number

ULP = 2.0**-24  # the largest relative error of one operation in binary32
MOMENTUM_BN, EPS = 0.1, 1e-5


class Unsafe(Exception):
    """A value is so near to a tie that binary32 could round it differently."""


class Format:
    """FP(e,m,b) without codes for infinity and NaN; FP(e,m,auto) where b is None."""

    def __init__(self, e, m, b):
        self.e, self.m, self.b = e, m, b
        if b is None:
            return
        self.emin = 2 - 2 ** (e - 1) - b
        self.max = 2.0 ** (2 ** (e - 1) - b) * (2 - 2.0**-m)

    def fitted(self, pair):
        """FP(e,m,auto): the format with the largest bias shift that leaves the largest magnitude below the end of its range."""
        value, error = pair
        if self.b is not None:
            return self
        at = int(value.abs().argmax())
        largest, error = max(value.abs().max().item(), 2.0**-100), error.reshape(-1)[at].item()
        shifts = {2 ** (self.e - 1) - math.ceil(math.log2(x)) for x in (largest - error, largest, largest + error)}
        if len(shifts) > 1:
            raise Unsafe("a shift")
        b = shifts.pop()
        assert 2.0 ** (2 ** (self.e - 1) - b) >= largest > 2.0 ** (2 ** (self.e - 1) - b - 1)
        return Format(self.e, self.m, b)

    def round(self, x, overflow):
        """To the nearest, ties to even; overflow is decided on the result that an unbounded exponent gives."""
        exponent = torch.frexp(x)[1].to(torch.float64) - 1
        quantum = torch.exp2(torch.clamp(exponent, min=self.emin) - self.m)
        y = torch.round(x / quantum) * quantum
        return torch.where(y.abs() > self.max, torch.copysign(torch.tensor(overflow or self.max, dtype=x.dtype), x), y)


HIGH = {role: Format(6, 9, 0) for role in ("v", "dv", "theta", "dtheta")}
LOW = {"v": Format(4, 3, 4), "theta": Format(4, 3, 4), "dv": Format(5, 2, 0), "dtheta": Format(6, 9, 0)}
AUTO = {"v": Format(3, 3, None), "theta": Format(3, 2, None), "dv": Format(4, 1, None), "dtheta": Format(3, 4, None)}
OVERFLOW = {"v": None, "theta": None, "dv": math.inf, "dtheta": math.inf}


def lowest_bit(x):
    """The place value of the last bit that is 1 (infinity for 0)."""
    mantissa, exponent = torch.frexp(x)
    bits = (mantissa.abs() * 2.0**53).to(torch.int64)
    return torch.where(x == 0, torch.tensor(math.inf, dtype=x.dtype), torch.ldexp((bits & -bits).double(), exponent - 53))


def total(terms, dim):
    """The sum over dim, and its error in binary32: 0 where all orders of summation are exact."""
    value, size, n = terms.sum(dim), terms.abs().sum(dim), terms.shape[dim]
    exact = size <= 2.0**24 * lowest_bit(terms).amin(dim)
    error = ULP * (3 * size + math.sqrt(n) * value.abs())  # several standard deviations of a sum of rounding errors
    return value, torch.where(exact, torch.zeros_like(error), error)


def exactly(x):
    return x, torch.zeros_like(x)


class Op:
    """One operator: forward from rounded inputs and parameters, and the gradients of both. All are (value, error) pairs."""

    def __init__(self, name, inputs, **attributes):
        self.name, self.inputs = name, inputs
        self.__dict__.update(attributes)


class Input(Op):
    def forward(self, net):
        return exactly(net.images)


class Conv2d(Op):
    gemm = True

    def forward(self, net, x, weight):
        k, s = weight.shape[-1], self.stride
        y = F.conv2d(x, weight, None, s, k // 2)
        patches = F.unfold(x, k, padding=k // 2, stride=s)
        value, error = total(weight.flatten(1)[None, :, :, None] * patches[:, None], 2)
        assert torch.allclose(value.reshape(y.shape), y, rtol=1e-12, atol=1e-12)
        return value.reshape(y.shape), error.reshape(y.shape)

    def backward(self, net, y, dy, x, weight):
        k, s = weight.shape[-1], self.stride
        patches = F.unfold(x, k, padding=k // 2, stride=s)
        terms = dy.flatten(2)[:, :, None] * patches[:, None]
        dweight = [t.reshape(weight.shape) for t in total(terms.permute(1, 2, 0, 3).flatten(2), 2)]
        wanted = conv2d_weight(x, weight.shape, dy, s, k // 2)
        assert torch.allclose(dweight[0], wanted, rtol=1e-12, atol=1e-10)
        # The gradient of x is a convolution of dy, spread by the stride, with the kernels turned round.
        spread = torch.zeros(*dy.shape[:2], x.shape[2] + k - 1, x.shape[3] + k - 1, dtype=dy.dtype)
        first = k - 1 - k // 2
        spread[:, :, first : first + s * dy.shape[2] : s, first : first + s * dy.shape[3] : s] = dy
        turned = weight.flip(2, 3).transpose(0, 1).flatten(1)
        dx = [t.reshape(x.shape) for t in total(turned[None, :, :, None] * F.unfold(spread, k)[:, None], 2)]
        assert torch.allclose(dx[0], conv2d_input(x.shape, weight, dy, s, k // 2), rtol=1e-12, atol=1e-10)
        return [dx], [dweight]


class BatchNorm2d(Op):
    def statistics(self, x):
        mean = x.mean((0, 2, 3), keepdim=True)
        return mean, x.var((0, 2, 3), unbiased=False, keepdim=True)

    def forward(self, net, x, weight, bias):
        (mean, var), n = self.statistics(x), x.numel() // x.shape[1]
        net.statistics[self.name] = {"running_mean": mean.flatten(), "running_var": var.flatten() * n / (n - 1)}
        scale, bias = weight.reshape(mean.shape) / torch.sqrt(var + EPS), bias.reshape(mean.shape)
        y = (x - mean) * scale + bias
        error = 4 * (x - mean).abs() + x.abs() + 3 * mean.abs()
        return y, ULP * (error * scale.abs() + y.abs() + bias.abs())

    def backward(self, net, y, dy, x, weight, bias):
        (mean, var), n, all_but_c = self.statistics(x), x.numel() // x.shape[1], lambda t: t.transpose(0, 1).flatten(1)
        invstd = 1 / torch.sqrt(var + EPS)
        centred = x - mean
        per_channel = mean.shape
        dbias, dbias_error = total(all_but_c(dy), 1)
        # Both factors of the weight's gradient have errors: the mean's is in every term.
        sum_dyx, sum_error = total(all_but_c(dy * centred), 1)
        sum_error = sum_error + ULP * 4 * (dy * (x.abs() + mean.abs())).abs().sum((0, 2, 3)) / math.sqrt(n)
        sum_error = sum_error + ULP * mean.abs().flatten() * dbias.abs()
        dweight = sum_dyx * invstd.flatten()
        dweight_error = sum_error * invstd.flatten() + 6 * ULP * dweight.abs()
        b, k = dbias.reshape(per_channel) / n, sum_dyx.reshape(per_channel) * invstd**2 / n
        b_error = dbias_error.reshape(per_channel) / n
        k_error = sum_error.reshape(per_channel) * invstd**2 / n + 8 * ULP * k.abs()
        scale = weight.reshape(per_channel) * invstd
        dx = scale * (dy - b - centred * k)
        error = ULP * (4 * dy.abs() + 4 * b.abs() + 4 * (x.abs() + mean.abs()) * k.abs()) + b_error + centred.abs() * k_error
        return [(dx, scale.abs() * error + 8 * ULP * dx.abs())], [(dweight, dweight_error), (dbias, dbias_error)]


class ReLU(Op):
    def forward(self, net, x):
        return exactly(torch.clamp(x, min=0))

    def backward(self, net, y, dy, x):
        return [exactly(torch.where(y > 0, dy, torch.zeros_like(dy)))], []


class Add(Op):
    def forward(self, net, a, b):
        return total(torch.stack([a, b]), 0)

    def backward(self, net, y, dy, a, b):
        return [exactly(dy), exactly(dy)], []


class AvgPool(Op):
    def forward(self, net, x):
        k = self.kernel
        value, error = total(F.unfold(x.transpose(0, 1).reshape(-1, 1, *x.shape[2:]), k, stride=k), 1)
        shape = x.shape[1], x.shape[0], x.shape[2] // k, x.shape[3] // k
        return [t.reshape(shape).transpose(0, 1) / k**2 for t in (value, error)]

    def backward(self, net, y, dy, x):
        return [exactly(dy.repeat_interleave(self.kernel, 2).repeat_interleave(self.kernel, 3) / self.kernel**2)], []


class Linear(Op):
    gemm = True

    def forward(self, net, x, weight, bias):
        terms = x.flatten(1)[:, None] * weight
        return total(torch.cat([terms, bias[None, :, None].expand(len(x), -1, 1)], 2), 2)

    def backward(self, net, y, dy, x, weight, bias):
        dx = [t.reshape(x.shape) for t in total(dy[:, :, None] * weight, 1)]
        return [dx], [total(dy[:, :, None] * x.flatten(1)[:, None], 0), total(dy, 0)]


class LogSoftmax(Op):
    def forward(self, net, x):
        y = F.log_softmax(x, 1)
        return y, ULP * 4 * (y.abs() + x.abs())

    def backward(self, net, y, dy, x):
        sent = y.exp() * dy.sum(1, keepdim=True)
        return [(dy - sent, ULP * 4 * (dy.abs() + sent.abs()))], []


class NllLoss(Op):
    def forward(self, net, x):
        return exactly(-x.gather(1, net.labels[:, None])[:, 0])

    def backward(self, net, y, dy, x):
        return [exactly(torch.zeros_like(x).scatter(1, net.labels[:, None], -dy[:, None]))], []


def tiny_resnet():
    """The network of resnet_tiny.lua in execution order, and its parameters' names and dims."""
    ops, dims = [Input("input", [])], {}

    def add(kind, name, inputs, params=(), **attributes):
        ops.append(kind(name, inputs, params=[f"{name}.{p}" for p, _ in params], **attributes))
        dims.update({f"{name}.{p}": d for p, d in params})
        return name

    ops[0].params = []

    def conv_bn(conv, bn, x, c, out, kernel, stride):
        x = add(Conv2d, conv, [x], [("weight", (out, c, kernel, kernel))], stride=stride)
        return add(BatchNorm2d, bn, [x], [("weight", (out,)), ("bias", (out,))])

    def block(name, x, c, out, stride):
        y = add(ReLU, f"{name}.relu", [conv_bn(f"{name}.conv1", f"{name}.bn1", x, c, out, 3, stride)])
        y = conv_bn(f"{name}.conv2", f"{name}.bn2", y, out, out, 3, 1)
        if stride != 1:
            x = conv_bn(f"{name}.shortcut.0", f"{name}.shortcut.1", x, c, out, 1, stride)
        return add(ReLU, f"{name}.relu_2", [add(Add, f"{name}.add", [y, x])])

    x = add(ReLU, "relu", [conv_bn("conv1", "bn1", "input", 3, 3, 3, 1)])
    x = block("layer2.0", block("layer1.0", x, 3, 3, 1), 3, 4, 2)
    x = add(AvgPool, "avgpool", [x], kernel=4)
    x = add(Linear, "linear", [x], [("weight", (5, 4)), ("bias", (5,))])
    add(NllLoss, "nll_loss", [add(LogSoftmax, "log_softmax", [x])])
    return ops, dims


class Net:
    def __init__(self, rand, labels):
        self.ops, dims = tiny_resnet()
        self.images = torch.zeros(len(labels), 3, 8, 8, dtype=torch.float64)
        self.labels = torch.tensor(labels)
        self.masters, self.momenta, self.formats = {}, {}, LOW
        for name, d in dims.items():
            p = rand(*d, scale=0.3 if len(d) > 1 else 0.1, grad=False)
            if name.endswith(".weight") and len(d) == 1:
                p = p.add(1).mul(100).round().div(100).float().double()
            self.masters[name] = p
        self.master_error = {k: torch.zeros_like(p) for k, p in self.masters.items()}
        self.buffers, self.statistics = {}, {}
        for op in self.ops:
            if isinstance(op, BatchNorm2d):
                c = dims[op.params[0]]
                self.buffers.update({f"{op.name}.running_mean": torch.zeros(c).double(),
                                     f"{op.name}.running_var": torch.ones(c).double()})

    def sizes(self):
        """Elements of each operator's output, from a forward that rounds nothing."""
        v = {}
        for op in self.ops:
            v[op.name] = op.forward(self, *[v[i] for i in op.inputs], *[self.masters[p] for p in op.params])[0]
        return {name: y.numel() for name, y in v.items()}

    def find_groups(self):
        """method.md 3: an operator's group; for theta and dtheta the group of its input's producer. Returns the groups' sizes."""
        group, groups, sizes = 0, [], self.sizes()
        self.group, self.theta_group = {}, {}
        for op in self.ops:
            group += getattr(op, "gemm", False)
            groups += [0] * (group + 1 - len(groups))
            self.group[op.name] = group
            self.theta_group[op.name] = self.group[op.inputs[0]] if op.inputs else 0
            groups[group] += 2 * sizes[op.name]
            groups[self.theta_group[op.name]] += 2 * sum(self.masters[p].numel() for p in op.params)
        return groups

    def round(self, op, role, pair):
        value, error = pair
        group = (self.theta_group if "theta" in role else self.group)[op.name]
        fmt = (self.formats if group in self.low else HIGH)[role].fitted(pair)
        y = fmt.round(value, OVERFLOW[role])
        near_zero = (error > 0) & (value.abs() <= error)
        if near_zero.any() or any(not torch.equal(fmt.round(x, OVERFLOW[role]), y) for x in (value - error, value + error)):
            raise Unsafe(f"{role} of {op.name}")
        counts = self.counts.setdefault((op.name, role), [0, 0])
        counts[0] += int(((y == 0) & (value != 0)).sum())
        counts[1] += int((fmt.round(value, math.inf).isinf()).sum())
        return y

    def step(self, images, low, sgd):
        """One step on these images with these groups low. Returns the sum of the losses."""
        self.images, self.low, self.counts = images, low, {}
        self.v, self.dv, theta, self.dtheta = {}, {}, {}, {}
        for op in self.ops:
            theta[op.name] = [self.round(op, "theta", (self.masters[p], self.master_error[p])) for p in op.params]
            inputs = [self.v[i] for i in op.inputs]
            self.v[op.name] = self.round(op, "v", op.forward(self, *inputs, *theta[op.name]))
        by_name = {op.name: op for op in self.ops}
        n = len(self.images)
        seed = torch.full((n,), sgd["loss_scale"] / n, dtype=torch.float64)
        self.dv["nll_loss"] = self.round(self.ops[-1], "dv", (seed, seed * ULP))
        for op in reversed(self.ops[1:]):
            inputs = [self.v[i] for i in op.inputs]
            dinputs, dparams = op.backward(self, self.v[op.name], self.dv[op.name], *inputs, *theta[op.name])
            for name, pair in zip(op.inputs, dinputs):
                sent = self.round(by_name[name], "dv", pair)
                # Contributions are summed in binary32 and not rounded again.
                self.dv[name] = (self.dv[name] + sent).float().double() if name in self.dv else sent
            for name, pair in zip(op.params, dparams):
                self.dtheta[name] = self.round(op, "dtheta", pair)
        if any(t.isinf().any() for t in [*self.dv.values(), *self.dtheta.values()]):
            raise Unsafe("overflow of a gradient: the step would be skipped")
        for name, new in ((f"{bn}.{k}", t) for bn, ts in self.statistics.items() for k, t in ts.items()):
            self.buffers[name] += MOMENTUM_BN * (new - self.buffers[name])
        self.update(sgd)
        return self.v["nll_loss"].sum().item()

    def update(self, sgd):
        for name, p in self.masters.items():
            d = self.dtheta[name] / sgd["loss_scale"] + sgd["weight_decay"] * p
            buf = sgd["momentum"] * self.momenta[name] + d if name in self.momenta else d
            self.momenta[name] = buf
            self.masters[name] = p - sgd["lr"] * buf
            self.master_error[name] = self.master_error[name] + ULP * 4 * (p.abs() + sgd["lr"] * buf.abs())


def demoted(sizes, ratio):
    """method.md 4: the largest groups until their share reaches the ratio."""
    low = []
    for group in sorted(range(len(sizes)), key=lambda g: (-sizes[g], g)):
        if sum(sizes[g] for g in low) >= ratio * sum(sizes):
            break
        low.append(group)
    return low


def digest(t):
    """A weighted sum, which exchanged elements change; its order is fixed, so that it is the same bits everywhere."""
    s = 0.0
    for i, x in enumerate(t.reshape(-1).tolist()):
        s += x * (i % 31 + 1)
    return s


def number(x):
    """The fewest digits that identify a binary32 number; for other numbers all digits."""
    for digits in range(1, 18):
        text = f"{x:.{digits}g}"
        if float(text) == x or digits >= 9 and torch.tensor(float(text)).float() == torch.tensor(x).float() == x:
            break
    text = text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return text[1:] if text.startswith("0.") else "-" + text[2:] if text.startswith("-0.") else "0" if text == "-0" else text


def tensor(t, short=False):
    """A tensor's dims and numbers, without spaces, in lines of at most COLUMNS characters."""
    lines, line = [], ""
    for x in t.reshape(-1).tolist():
        n = (lua_number(x, True) if short else number(x)) + ","
        if len(line) + len(n) > COLUMNS:
            lines.append(line)
            line = ""
        line += n
    lines.append(line.rstrip(","))
    return "{ dims = { %s }, data = {\n%s } }" % (", ".join(map(str, t.shape)), "\n".join(lines))


def tensors(named, indent, short=False):
    pad = " " * indent
    return "{\n" + "".join(f'{pad}  ["{k}"] = {tensor(t, short)},\n' for k, t in named.items()) + pad + "}"


def records(net):
    """One line an operator: digests of v and dv; where values underflowed or overflowed, how many, by role."""
    rows = []
    for op in net.ops:
        counts = ", ".join(f"{role} = {{ {u}, {o} }}" for (name, role), (u, o) in net.counts.items() if name == op.name and u + o)
        rows.append(f'      {{ name = "{op.name}", v = {digest(net.v[op.name])!r}, dv = {digest(net.dv[op.name])!r},'
                    f" counts = {{ {counts} }} }},\n".replace("{  }", "{}"))
    return "{\n" + "".join(rows) + "    }"


def safe_step(net, low, pixel_scale, sgd, first_draw):
    """A step on the first images without unsafe values: the net after it, its loss, the draw."""
    reasons = {}
    for draw in range(first_draw, first_draw + DRAWS):
        after = copy.deepcopy(net)
        try:
            return after, after.step(Inputs(draw)(*net.images.shape, scale=pixel_scale, grad=False), low, sgd), draw
        except Unsafe as reason:
            if str(reason).startswith("theta"):
                break  # independent of the images
            reasons[str(reason)] = reasons.get(str(reason), 0) + 1
    raise SystemExit(f"no safe images, take another seed: {reason}; {sorted(reasons.items(), key=lambda r: -r[1])}")


def train(seed, draws, loss_scales, ratio, labels, pixel_scale, whole, formats=LOW):
    """The fixture's text. draws: where the search for each step's images begins; formats: of low tensors."""
    net, text = Net(Inputs(seed), labels), ""
    net.formats = formats
    parameters, low = dict(net.masters), demoted(net.find_groups(), ratio)
    for i, (draw, loss_scale) in enumerate(zip(draws, loss_scales)):
        net, loss, draw = safe_step(net, low, pixel_scale, {**SGD, "loss_scale": loss_scale}, draw)
        print(f"seed {seed}, step {i + 1}: images of draw {draw}", flush=True)
        text += f"  {{\n    loss_scale = {loss_scale},\n    x = {tensor(net.images, True)},\n    loss = {loss!r},\n    operators = {records(net)},\n"
        text += f"    dtheta = {tensors(net.dtheta, 4)},\n"
        if i == 0 and whole:
            for role in ("v", "dv"):
                chosen = {k: t for k, t in getattr(net, role).items() if t.numel() <= 192 or k in WHOLE}
                text += f"    {role} = {tensors(chosen, 4)},\n"
        text += "  },\n"
    settings = ", ".join(f"{k} = {v}" for k, v in SGD.items())
    return (f"return {{\n  low_groups = {{ {', '.join(map(str, low))} }},\n  optimizer = {{ {settings} }},\n"
            f"  labels = {{ {', '.join(map(str, labels))} }},\n  parameters = {tensors(parameters, 2, True)},\n  steps = {{\n{text}  }},\n"
            f"  parameters_after = {tensors({k: p.float().double() for k, p in net.masters.items()}, 2)},\n"
            f"  buffers_after = {tensors({k: p.float().double() for k, p in net.buffers.items()}, 2)},\n}}\n")


DRAWS = 20000
WHOLE = ("layer1.0.relu_2",)  # written whole, as all smaller ones are: its gradient is a sum of two
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
FIXTURES = {
    # Pixels of standard deviation 8, so that some outputs of conv1 saturate; three samples, so that scale / N is rounded; a small
    # loss scale, so that gradients are subnormal and underflow.
    "resnet_tiny_low": dict(seed=1, draws=[2, 1, 1], loss_scales=[256, 0.125, 4096], ratio=1, labels=[1, 4, 0], pixel_scale=8.0,
                            whole=True),
    # With FP(6,9,0) few images are safe: one step.
    "resnet_tiny_mixed": dict(seed=2, draws=[8078], loss_scales=[256], ratio=0.5, labels=[3, 0, 2], pixel_scale=1.0,
                              whole=False),
    # Every rounding has its own bias shift: of each parameter, and of each gradient that is sent to a value with several consumers.
    # Formats with so few exponents that values underflow.
    "resnet_tiny_auto": dict(seed=3, draws=[1, 1], loss_scales=[256, 1024], ratio=1, labels=[2, 4, 1], pixel_scale=8.0, whole=False,
                             formats=AUTO),
}


def main():
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "fixtures"
    torch.set_num_threads(1)
    for name, settings in FIXTURES.items():
        text = train(**settings)
        (directory / f"{name}.lua").write_text(f"-- Made by spec/make_low_fixture.py; described in README.md.\n{text}")


if __name__ == "__main__":
    main()
