"""Times QPyTorch's rounding of an array of binary32 values; bench/round_vs_peers runs it.

usage: qpytorch_round.py [--exp E] [--man M] [--shift B] [--rounding R] [--threads N] [--seconds S] [--as-installed]
                         [--out FILE] VALUES
       qpytorch_round.py [--as-installed]     only imports (the first time, compiles) and prints the version

VALUES contains raw binary32; FILE gets the first rounded values. QPyTorch has no exponent bias
shift, so it gets the values times 2^B, multiplied before the measurement: there are as many
subnormals and overflows, and results are 2^B times as large. Its code for the CPU is a loop on one
thread, whatever N is; its "nearest" rounds ties away from zero.
"""
import argparse
import json
import statistics
import sys
import time

import numpy as np
import torch

import qpytorch

SHOWN = 65536


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exp", type=int, default=4, help="exponent bits")
    parser.add_argument("--man", type=int, default=3, help="mantissa bits")
    parser.add_argument("--shift", type=int, default=0, help="exponent bias shift")
    parser.add_argument("--rounding", choices=("nearest", "stochastic"), default="nearest")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2, help="how long to repeat")
    parser.add_argument("--as-installed", action="store_true",
                        help="use the extension as QPyTorch compiles it, without optimisation")
    parser.add_argument("--out", help="file for the first results")
    parser.add_argument("values", nargs="?", help="file of raw binary32")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    _, quant, _, version = qpytorch.load(optimised=not args.as_installed)
    row = {"version": f"{version}, PyTorch {torch.__version__}"}
    if args.values:
        x = torch.from_numpy(np.fromfile(args.values, dtype=np.float32)) * 2.0**args.shift

        def rounded():
            return quant.float_quantize(x, exp=args.exp, man=args.man, rounding=args.rounding)

        result = rounded()  # touches the memory
        if args.out:
            (result[:SHOWN] * 2.0**-args.shift).numpy().tofile(args.out)
        times = []
        began = time.perf_counter()
        while len(times) < 3 or (len(times) < 1000 and time.perf_counter() - began < args.seconds):
            start = time.perf_counter()
            result = rounded()
            times.append(time.perf_counter() - start)
        row["gelem_per_s"] = 1e-9 * x.numel() / statistics.median(times)
        row["repetitions"] = len(times)
    json.dump(row, sys.stdout)
    print()


if __name__ == "__main__":
    main()
