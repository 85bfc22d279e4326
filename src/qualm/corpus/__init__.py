"""Documents: read, split by content, pack for training."""

from qualm.corpus.documents import Document, read, split
from qualm.corpus.packing import Packed, load, pack

__all__ = ["Document", "Packed", "load", "pack", "read", "split"]
