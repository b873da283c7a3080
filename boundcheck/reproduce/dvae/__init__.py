"""The denoising experiment of Im et al. (2015): VAEs trained in six ways, both readings beside their evidence.

Everything that needs torch is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boundcheck.reproduce.dvae.experiment import Experiment, Row, model_file, reproduce
    from boundcheck.reproduce.dvae.figure import plot
    from boundcheck.reproduce.dvae.images import Images, digits, read_images
    from boundcheck.reproduce.dvae.networks import DenoisingVAE
    from boundcheck.reproduce.dvae.training import train

_HOME = {
    "DenoisingVAE": "networks",
    "Experiment": "experiment",
    "Images": "images",
    "Row": "experiment",
    "digits": "images",
    "model_file": "experiment",
    "plot": "figure",
    "read_images": "images",
    "reproduce": "experiment",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


__all__ = [
    "DenoisingVAE",
    "Experiment",
    "Images",
    "Row",
    "digits",
    "model_file",
    "plot",
    "read_images",
    "reproduce",
    "train",
]
