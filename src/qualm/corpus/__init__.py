"""Documents: read, clean, dedup, filter, scrub, split by content, pack for training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qualm.corpus.building import build
    from qualm.corpus.cleaning import clean
    from qualm.corpus.collecting import collect
    from qualm.corpus.deduping import dedup
    from qualm.corpus.documents import Document, read, split
    from qualm.corpus.filtering import filter_, keep
    from qualm.corpus.packing import Packed, load, pack
    from qualm.corpus.pipeline import Pipeline
    from qualm.corpus.scrubbing import scrub
    from qualm.corpus.settings import (
        Cleaning,
        Collecting,
        Deduping,
        Filtering,
        Keeping,
        Packing,
        Running,
        Scrubbing,
        Splitting,
    )

_PUBLIC = {
    **dict.fromkeys(("Document", "read", "split"), "documents"),
    **dict.fromkeys(("Packed", "load", "pack"), "packing"),
    **dict.fromkeys(
        (
            "Cleaning",
            "Collecting",
            "Deduping",
            "Filtering",
            "Keeping",
            "Packing",
            "Running",
            "Scrubbing",
            "Splitting",
        ),
        "settings",
    ),
    **{
        "build": "building",
        "clean": "cleaning",
        "collect": "collecting",
        "dedup": "deduping",
        "filter_": "filtering",
        "keep": "filtering",
        "scrub": "scrubbing",
        "Pipeline": "pipeline",
    },
}
__all__ = [
    "Cleaning",
    "Collecting",
    "Deduping",
    "Document",
    "Filtering",
    "Keeping",
    "Packed",
    "Packing",
    "Pipeline",
    "Running",
    "Scrubbing",
    "Splitting",
    "build",
    "clean",
    "collect",
    "dedup",
    "filter_",
    "keep",
    "load",
    "pack",
    "read",
    "scrub",
    "split",
]


def __getattr__(name: str) -> Any:
    """Imported when first asked for, so that settings can be had without numpy."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'qualm.corpus' has no attribute {name!r}")
    return getattr(import_module(f"qualm.corpus.{_PUBLIC[name]}"), name)
