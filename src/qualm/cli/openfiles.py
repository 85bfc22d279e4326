"""How many files and connections this process may have open."""

try:
    import resource
except ImportError:  # not on this system, which has no such limit
    resource = None  # type: ignore[assignment]

SPARE = 128  # files beside the connections


def allow_many(connections: int) -> None:
    """Raise this process's own limit of open files, as far as the system lets it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
