"""`qualm config show`: the settings in force that were not given as flags."""

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from qualm.cli.app import CONFIGURABLE
from qualm.cli.common import Common, default_cache
from qualm.cli.settings import PROJECT, entries, layers, user_file


def config(
    action: Literal["show"] = "show",
    /,
    *,
    origin: Annotated[bool, Parameter(negative="")] = False,
    common: Common = Common(),
) -> None:
    """Show the settings from the environment, the project's file and yours; a flag is stronger than all of them.

    Args:
        origin: Say where each comes from, and show those that a stronger one hides.
    """
    found: list[dict[str, Any]] = [
        {"verb": verb, "key": key, "value": value, "origin": source, "counts": counts}
        for verb, key, value, source, counts in entries(layers(CONFIGURABLE, common.config))
        if counts or origin
    ]
    folder = common.cache_folder if common.cache else default_cache()
    files = [str(common.config or PROJECT), str(user_file())]
    document = {"schema": "qualm.config/1", "settings": found, "files": files, "cache": str(folder)}
    common.detail(f"files looked for: {', '.join(files)}; cache: {folder}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("verb", "key", "value", *(["origin", ""] if origin else [])):
        table.add_column(column)
    for entry in found:
        more = [entry["origin"], "" if entry["counts"] else "hidden"] if origin else []
        table.add_row(entry["verb"], entry["key"], str(entry["value"]), *more)
    common.result(document, table if found else "all defaults")
