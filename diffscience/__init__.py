"""diffscience: diffusion in one and two dimensions where the truth is known.

The names below load when first used, so that importing the package costs nothing: the exact core
needs NumPy alone, and only the learned half imports torch.

>>> import diffscience as ds
>>> law = ds.gallery.julia_bimodal()
>>> oracle = ds.Oracle(law, ds.VP())
>>> oracle.score([[0.0]], 0.5).shape
(1, 1)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS: dict[str, str] = {  # public name -> the module that defines it
    "ArgumentError": "errors",
    "Transition": "transition",
    "Process": "process",
    "VP": "process",
    "Cosine": "process",
    "SubVP": "process",
    "VE": "process",
    "VEGeometric": "process",
    "EDM": "process",
    "RectifiedFlow": "process",
    "Sigmoid": "process",
    "Polynomial": "process",
    "Chain": "chain",
    "Target": "targets",
    "GaussianMixture": "mixture",
    "Boxes": "boxes",
    "Rings": "rings",
    "Curve": "curves",
    "Counted": "models",
    "Model": "models",
    "Oracle": "models",
    "Network": "network",
}
_MODULES = [
    "bounds",
    "budget",
    "doctor",
    "engines",
    "ensembles",
    "evaluation",
    "fits",
    "fokker_planck",
    "fused",
    "gallery",
    "girsanov",
    "grids",
    "guidance",
    "julia",
    "langevin",
    "likelihood",
    "losses",
    "metrics",
    "nets",
    "noise",
    "notes",
    "plots",
    "reverse",
    "samplers",
    "solvers",
    "store",
    "study",
    "sweep",
    "testing",
    "tilted",
    "times",
    "train",
    "variances",
    "weightings",
]

__all__ = [
    "EDM",
    "VE",
    "VP",
    "ArgumentError",
    "Boxes",
    "Chain",
    "Cosine",
    "Counted",
    "Curve",
    "GaussianMixture",
    "Model",
    "Network",
    "Oracle",
    "Polynomial",
    "Process",
    "RectifiedFlow",
    "Rings",
    "Sigmoid",
    "SubVP",
    "Target",
    "Transition",
    "VEGeometric",
    "__version__",
    "bounds",
    "budget",
    "doctor",
    "engines",
    "ensembles",
    "evaluation",
    "fits",
    "fokker_planck",
    "fused",
    "gallery",
    "girsanov",
    "grids",
    "guidance",
    "julia",
    "langevin",
    "likelihood",
    "losses",
    "metrics",
    "nets",
    "noise",
    "notes",
    "plots",
    "reverse",
    "samplers",
    "solvers",
    "store",
    "study",
    "sweep",
    "testing",
    "tilted",
    "times",
    "train",
    "variances",
    "weightings",
]

if TYPE_CHECKING:
    from . import (
        budget,
        doctor,
        engines,
        ensembles,
        evaluation,
        fused,
        gallery,
        girsanov,
        grids,
        guidance,
        julia,
        likelihood,
        losses,
        metrics,
        nets,
        noise,
        notes,
        plots,
        reverse,
        samplers,
        solvers,
        store,
        study,
        sweep,
        testing,
        tilted,
        times,
        train,
        variances,
        weightings,
    )
    from .boxes import Boxes
    from .chain import Chain
    from .curves import Curve
    from .errors import ArgumentError
    from .mixture import GaussianMixture
    from .models import Counted, Model, Oracle
    from .network import Network
    from .process import (
        EDM,
        VE,
        VP,
        Cosine,
        Polynomial,
        Process,
        RectifiedFlow,
        Sigmoid,
        SubVP,
        VEGeometric,
    )
    from .rings import Rings
    from .targets import Target
    from .transition import Transition


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
