"""Two-layer ReLU networks on data larger than memory, with nothing to tune."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from altrelu_dist.version import __version__

if TYPE_CHECKING:
    from altrelu_dist.class_metrics import ClassScore, evaluate_classes
    from altrelu_dist.data import DataSet, convert, describe, open_dataset
    from altrelu_dist.diagnosis import Diagnosis, diagnose
    from altrelu_dist.encoding import Encoder
    from altrelu_dist.estimators import AltReLUClassifier, AltReLURegressor
    from altrelu_dist.exports import export
    from altrelu_dist.jobs import Job, submit
    from altrelu_dist.metrics import TargetScore, evaluate
    from altrelu_dist.network import Network
    from altrelu_dist.planning import Plan, plan
    from altrelu_dist.training.progress import Progress

# Public names and where they live; imported when first used, because scikit-learn, Dask and Zarr
# take longer to import than many a fit.
_HOMES = {
    "AltReLUClassifier": "estimators",
    "AltReLURegressor": "estimators",
    "ClassScore": "class_metrics",
    "DataSet": "data",
    "Diagnosis": "diagnosis",
    "Encoder": "encoding",
    "Job": "jobs",
    "Network": "network",
    "Plan": "planning",
    "Progress": "training.progress",
    "TargetScore": "metrics",
    "convert": "data",
    "describe": "data",
    "diagnose": "diagnosis",
    "evaluate": "metrics",
    "evaluate_classes": "class_metrics",
    "export": "exports",
    "open_dataset": "data",
    "plan": "planning",
    "submit": "jobs",
}

__all__ = [
    "AltReLUClassifier",
    "AltReLURegressor",
    "ClassScore",
    "DataSet",
    "Diagnosis",
    "Encoder",
    "Job",
    "Network",
    "Plan",
    "Progress",
    "TargetScore",
    "__version__",
    "convert",
    "describe",
    "diagnose",
    "evaluate",
    "evaluate_classes",
    "export",
    "open_dataset",
    "plan",
    "submit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
