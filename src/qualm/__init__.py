"""Make, use, measure and mend language models, and say better, worse or cannot tell of every change."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load": "qualm.mends.apply",
    "train": "qualm.training.run",
    "tune": "qualm.teaching",
    "advise": "qualm.training.advice",
    "do": "qualm.tasks.apply",
    "explain": "qualm.inside.occlusion",
    "audit": "qualm.auditing.run",
    "prove": "qualm.auditing.prove",
    "compare": "qualm.auditing.prove",
    "mend": "qualm.mends.apply",
    "export": "qualm.mends.apply",
    "serve": "qualm.serving.run",
    "Sampling": "qualm.lm.base",
    "Case": "qualm.cases",
    "LM": "qualm.lm.base",
    "Probe": "qualm.probes.base",
    "Mend": "qualm.mends.base",
    "QualmError": "qualm.errors",
}
__all__ = [*_PUBLIC, "__version__"]  # pyrefly: ignore


def __getattr__(name: str) -> Any:
    """Public names are imported when first asked for, so that `import qualm` loads no torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'qualm' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
