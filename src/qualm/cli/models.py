"""The model a verb is given, and what the command line knows besides: the cache, the key of an endpoint."""

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from qualm.cli import rooms
from qualm.cli.common import Common

if TYPE_CHECKING:
    from qualm.lm.base import LM

OPENAI = "https://api.openai.com/v1"


def load(spec: str, common: Common) -> "LM":
    """The model that `spec` names."""
    if spec.startswith(("http://", "https://")):
        url, _, name = spec.partition("#")
        return rooms.endpoint.Endpoint(url, name, key=key_for(url))
    return rooms.apply.load(spec, cache=common.cache_folder)


def key_for(url: str) -> str:
    """$QUALM_KEY; $OPENAI_API_KEY goes to the host it belongs to ($OPENAI_BASE_URL's) and nowhere else."""
    if key := os.environ.get("QUALM_KEY"):
        return key
    home = os.environ.get("OPENAI_BASE_URL") or OPENAI
    return os.environ.get("OPENAI_API_KEY", "") if urlsplit(url).netloc == urlsplit(home).netloc else ""
