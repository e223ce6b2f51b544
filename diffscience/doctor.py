"""The self-check: what is installed, which devices there are, and whether the laws hold here.

    diffscience doctor        (or python -m diffscience doctor)

For a few targets p_0 and processes, each law is measured at sampled points and printed on one line:

    ok   semigroup      2.1e-14 <= 1e-12   at(s), then between(s, t), is at(t)

The errors are those of `diffscience.testing`, relative above 1. The exit status is 0 where every
required package is there and every law holds, else 1. Nothing is written, and nothing is read but
the installed package itself; it takes a few seconds, most of them for importing torch.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

from . import __version__

__all__ = ["main"]

_REQUIRED: tuple[str, ...] = (
    *("numpy", "scipy", "torch", "torchsde", "torchdiffeq", "matplotlib", "pandas"),
    *("array-api-compat", "numba", "POT", "scikit-learn", "tqdm", "tabulate", "pillow"),
    *("safetensors", "platformdirs", "pyarrow", "threadpoolctl"),
)
_OPTIONAL = (
    *("distributed", "submitit"),
    *("jax", "mpmath", "pytest", "hypothesis", "array-api-strict"),
)
_TARGETS = ("julia_bimodal", "skewed_pair", "rings", "checkerboard", "s_curve", "empirical")
_PROCESSES = ("VP", "EDM", "RectifiedFlow", "Chain.linear")

_CHEAP = ("julia_bimodal", "julia_trimodal", "rings", "empirical")  # to integrate

Check = tuple[str, float, str, tuple[str, ...], Callable[[Any, Any], float]]


def main() -> int:
    """Print the report; 0 if all is well, else 1.

    >>> from unittest import mock
    >>> with mock.patch("builtins.print"):
    ...     main()
    0
    """
    print(f"diffscience {__version__}, Python {platform.python_version()}, {platform.platform()}")
    missing = _packages()
    print(f"devices: {_devices()}")
    print(f"compiled mixture kernel: {_kernel()}")
    failed = _laws()
    if missing:
        print(f"missing: {', '.join(missing)}")
    if failed:
        print(f"broken: {', '.join(failed)}")
    if not (missing or failed):
        print("all is well")
    return 1 if missing or failed else 0


def _packages() -> list[str]:
    """Print the versions of the packages; the required ones that are missing."""
    missing, found = [], []
    for name in (*_REQUIRED, *_OPTIONAL):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} -")
            if name in _REQUIRED:
                missing.append(name)
    for i in range(0, len(found), 5):
        print("  " + ", ".join(found[i : i + 5]))
    return missing


def _devices() -> str:
    try:
        import torch
    except ImportError as error:
        return f"unknown ({error})"
    names = [f"cpu ({torch.get_num_threads()} threads)"]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(count)]
    if torch.backends.mps.is_available():
        names.append("mps")
    return ", ".join(names)


def _kernel() -> str:
    from . import fused

    return "available" if fused.available() else "not available; NumPy takes its place, more slowly"


# ---------------------------------------------------------------- laws


def _laws() -> list[str]:
    """Print one line for each law; the names of those that do not hold."""
    from . import gallery, testing

    laws = {name: gallery.ALL[name]() for name in sorted({*_TARGETS, *_CHEAP})}
    paths = {name: testing.processes()[name] for name in _PROCESSES}
    print(f"laws, on {len(laws)} targets and {len(paths)} processes:")
    failed = []
    for name, limit, words, targets, measure in _checks():
        errors, broken = [0.0], ""
        for target in targets:
            for path, process in paths.items():
                try:
                    errors.append(measure(laws[target], process))
                except Exception as error:  # whatever is wrong here belongs in the report
                    broken = broken or f"{target} under {path}: {type(error).__name__}: {error}"
        if broken:
            failed.append(name)
            print(f"  FAIL {name:<14} {broken}")
        else:
            print(f"  ok   {name:<14} {max(errors):.1e} <= {limit:.0e}   {words}")
    return failed


def _checks() -> Iterator[Check]:
    """Name, limit, statement, targets and measurement of each law."""
    from . import testing
    from .chain import Chain
    from .models import Oracle

    def moved(law: Any, process: Any) -> tuple[Any, Any]:
        import torch

        x, t = testing.states(law, process, testing.times(process, (0.1, 0.5, 0.9)), 3)
        return law.diffuse(process.at(t)), torch.as_tensor(x)

    def late(law: Any, process: Any) -> Any:
        return law.diffuse(process.at(float(testing.times(process, (0.8,))[0])))

    def score(law: Any, process: Any) -> float:
        return testing.assert_score_is_gradient(*moved(law, process), tolerance=1e-10)

    def hessian(law: Any, process: Any) -> float:
        return testing.assert_hessian_is_jacobian(*moved(law, process), tolerance=1e-10)

    def semigroup(law: Any, process: Any) -> float:
        return testing.assert_semigroup(law, process, tolerance=1e-12, n=2)

    def equation(law: Any, process: Any) -> float:
        if isinstance(process, Chain):  # it has no time derivative
            return 0.0
        return testing.assert_fokker_planck(law, process, tolerance=1e-10, n=2)

    def posterior(law: Any, process: Any) -> float:
        t = testing.times(process, (0.8,))
        return testing.assert_tweedie(Oracle(law, process), law, t, tolerance=1e-8)

    def mass(law: Any, process: Any) -> float:
        return testing.assert_mass_one(late(law, process), tolerance=1e-10)

    def samples(law: Any, process: Any) -> float:
        moved = late(law, process)
        return testing.assert_samples_follow(moved.sample(4000, 1), moved, alpha=1e-6)

    yield "score", 1e-10, "score = grad log p", _TARGETS, score
    yield "Hessian", 1e-10, "Hessian = grad score", _TARGETS, hessian
    yield "semigroup", 1e-12, "at(s), then between(s, t), is at(t)", _TARGETS, semigroup
    yield "Fokker-Planck", 1e-10, "p_t solves the SDE's own equation", _TARGETS, equation
    yield "Tweedie", 1e-8, "x0 is the posterior mean by Bayes' rule", _CHEAP, posterior
    yield "mass", 1e-10, "the density integrates to 1", _CHEAP, mass
    yield "samples", 1.0, "cdf gap over its limit at a false-alarm rate of 1e-6", _CHEAP, samples


if __name__ == "__main__":
    sys.exit(main())
