"""QPyTorch, for the benchmarks.

QPyTorch compiles its extension when it is imported, without optimisation. load() compiles it with
the flags that CPFloat gets here, which makes it faster. PyTorch keeps both builds in its cache of
extensions.
"""
import functools
import importlib
import importlib.metadata
import logging
import os

logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # no warning about CUDA without a GPU

from torch.utils import cpp_extension


def load(optimised=True):
    """The modules qtorch, qtorch.quant and qtorch.optim, and their version in words."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # we measure the CPU: do not compile anything for CUDA
    original = cpp_extension.load
    if optimised:
        folder = os.path.join(cpp_extension.get_default_build_root(), "qpytorch_o3")
        os.makedirs(folder, exist_ok=True)
        cpp_extension.load = functools.partial(original, extra_cflags=["-O3", "-march=native"], build_directory=folder)
    try:
        modules = [importlib.import_module(name) for name in ("qtorch", "qtorch.quant", "qtorch.optim")]
    finally:
        cpp_extension.load = original
    return (*modules, importlib.metadata.version("qtorch") + (", compiled with -O3" if optimised else ", as it compiles itself"))
