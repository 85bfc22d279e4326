"""Where the tasks of a pipeline run: in this process, in several of this machine, or on Ray.

A task is a function at the top of a module and its arguments; it writes files, and what it gives back is small. Results
come in the order of the tasks, however many run at once, so nothing that is made hangs on where it was made.
"""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from qualm.errors import MissingExtra, QualmError, Unreachable, UsageError

Run = Callable[[Callable[..., Any], Iterable[tuple]], Iterator[Any]]
AHEAD = 3  # tasks given out for each worker, so that none waits for the slowest


@contextmanager
def workers(count: int = 1, on: str = "") -> Iterator[Run]:
    """A function that runs `function(*task)` for each task: by `count` processes (0: one a core), or `on` Ray.

    `on` is "ray" for a cluster of this machine's own, or the address of one, ray://HOST:PORT; its machines must see the
    output folder under the same path. Raises UsageError for any other, MissingExtra without ray, Unreachable if there
    is no cluster, QualmError if a process is ended from outside.
    """
    if count < 0:
        raise UsageError(f"must be 0 or more, not {count}", where="workers")
    if on:
        with _ray(on, count) as run:
            yield run
    elif (count or cores()) == 1:
        yield here
    else:
        with _processes(count or cores()) as run:
            yield run


def here(function: Callable[..., Any], tasks: Iterable[tuple]) -> Iterator[Any]:
    """Each task in turn, in this process."""
    return (function(*task) for task in tasks)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _processes(count: int) -> Iterator[Run]:
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of running threads
    with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent) as pool:

        def run(function: Callable[..., Any], tasks: Iterable[tuple]) -> Iterator[Any]:
            def submit(task: tuple) -> Any:
                return pool.submit(function, *task)

            try:
                yield from _in_order(tasks, count, submit, lambda future: future.result())
            except BrokenProcessPool as error:
                raise QualmError("a worker was ended from outside", then="run it again; it goes on") from error

        try:
            yield run
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """A worker whose parent is killed would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _ray(on: str, count: int) -> Iterator[Run]:
    if on != "ray" and not on.startswith("ray://"):
        raise UsageError(f"must be ray or ray://HOST:PORT, not {on!r}", where="on")
    try:
        import ray  # noqa: PLC0415  # pyrefly: ignore[missing-import]
    except ImportError as error:
        raise MissingExtra("ray is not installed", then="pip install 'qualm-lm[scale]'") from error
    started = not ray.is_initialized()
    if started:
        try:
            about = {"num_cpus": count or None, "include_dashboard": False} if on == "ray" else {"address": on}
            ray.init(**about, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        except ConnectionError as error:
            raise Unreachable(f"no Ray cluster answers ({error})", where=on) from error
    slots = count or int(ray.cluster_resources().get("CPU", 1))

    def run(function: Callable[..., Any], tasks: Iterable[tuple]) -> Iterator[Any]:
        remote = ray.remote(function)
        try:
            yield from _in_order(tasks, slots, lambda task: remote.remote(*task), ray.get)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, QualmError) else error from None

    try:
        yield run
    finally:
        if started:
            ray.shutdown()


def _in_order(
    tasks: Iterable[tuple], count: int, submit: Callable[[tuple], Any], result: Callable[[Any], Any]
) -> Iterator[Any]:
    """At most AHEAD * count tasks are out at a time."""
    out: deque[Any] = deque()
    for task in tasks:
        out.append(submit(task))
        if len(out) >= AHEAD * count:
            yield result(out.popleft())
    while out:
        yield result(out.popleft())
