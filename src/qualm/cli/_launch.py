"""Several processes that train together: `start` starts them on this machine, `joined` is each one's side.

They are told who they are by the variables that torchrun sets, so `joined` serves what torchrun started as well. They
are not started through torchrun's own agent: that one ends a run with SIGTERM, which means "save and stop" here, gives
up on a save that takes longer than 30 seconds, and starts again after a wrong flag as after a lost machine.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist

from qualm.cli.processes import Processes
from qualm.cli.stop import SIGNALS, TERMINATED, Terminated, hear
from qualm.errors import MissingExtra, QualmError, UsageError
from qualm.training.parallel import LostRank

HERE = "127.0.0.1"
POLL, GRACE = 0.05, 20.0  # seconds between two looks at the processes; from the end of one to that of the others
HUNG = timedelta(hours=2)  # without a word of another process: longer than preparing a text or a validation takes
LAUNCHED = "QUALM_LAUNCHED"  # set by `start`, which tells of a process that was killed
ENDED = "ended"  # the key of the process that tells of an error, and its exit code


def start(processes: Processes, tokens: Sequence[str]) -> int:
    """Run `qualm TOKENS` as several processes; returns their exit code.

    If one is killed, all end, and are started again up to `restarts` times: they go on from the last checkpoint. Raises
    QualmError when that is used up.
    """
    _check_gloo()
    number = 0
    for left in range(processes.restarts, -1, -1):
        code, number = _run(processes.nproc, tokens)
        if code is not None:
            return code
        if left:
            again = f"starting again ({left - 1} more if need be)"
            print(f"qualm: a process was killed (signal {number}); {again}", file=sys.stderr, flush=True)
    raise QualmError(f"a process was killed (signal {number})", then="run it again to go on from the last checkpoint")


def _run(count: int, tokens: Sequence[str]) -> tuple[int | None, int]:
    """The exit code of processes that ran once, None if one was lost; and the signal that it was lost to."""
    store = _store()
    shared = os.environ | {"MASTER_ADDR": HERE, "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), LAUNCHED: "yes"}
    shared.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // count)))
    command, workers = [sys.executable, "-m", "qualm", *tokens], list[subprocess.Popen[bytes]]()
    with _passed_on(workers):
        try:
            for rank in range(count):
                own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                workers.append(subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, start_new_session=True))
            _wait(workers)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    codes = [worker.returncode for worker in workers]
    said = [code for code in codes if code > 0 and code != LostRank.exit_code]
    lost = [-code for code in codes if code < 0]
    if said or not any(codes):
        return (said or [0])[0], 0
    return None, (lost or [0])[0]


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until all have ended, or GRACE seconds have passed since one ended in an error."""
    until = float("inf")
    while any(worker.poll() is None for worker in workers) and time.monotonic() < until:
        if any(worker.returncode for worker in workers):
            until = min(until, time.monotonic() + GRACE)
        time.sleep(POLL)


@contextmanager
def _passed_on(workers: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to all processes, which save and stop; here nothing ends before they have."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        hear()
        for worker in workers:
            worker.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _store() -> dist.TCPStore:
    """Where the processes meet, on a port that is free."""
    try:
        return dist.TCPStore(HERE, 0, is_master=True, wait_for_workers=False)
    except RuntimeError as error:
        raise QualmError(
            f"the processes have no port to meet on ({_first_line(error)})", then="say --nproc 1, or allow loopback"
        ) from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_gloo() -> None:
    if not (dist.is_available() and dist.is_gloo_available()):
        raise MissingExtra("this torch cannot train on several processes: it has no gloo", then="say --nproc 1")


@contextmanager
def joined() -> Iterator[bool]:
    """Join the processes that `start` or torchrun started; alone where the environment names none.

    Yields whether this process speaks for all. Of an error that several meet, the first tells; the others end with its
    exit code. Raises QualmError if the others cannot be reached.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield True
        return
    store = _join()
    rank = dist.get_rank()
    try:
        yield rank == 0
    except QualmError as error:
        teller, code = store.compare_set(ENDED, "", f"{rank} {error.exit_code}").decode().split()
        if int(teller) != rank or (isinstance(error, LostRank) and LAUNCHED in os.environ):
            raise SystemExit(int(code)) from error
        raise
    except (KeyboardInterrupt, Terminated) as error:
        if rank:
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else TERMINATED) from error
        raise
    else:
        dist.barrier()  # nobody hangs up on one that still speaks
    finally:
        if dist.get_backend() == "gloo" or not sys.exc_info()[0]:  # NCCL waits for processes that are gone
            dist.destroy_process_group()


def _join() -> dist.Store:
    _check_gloo()
    # Imported later, its defaults keep the group alive, and gloo's threads with it; one of these that lets go of a
    # tensor while Python ends aborts the process.
    importlib.import_module("torch.distributed.nn.functional")
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if dist.is_nccl_available() else "gloo"
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=HUNG))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=HUNG)
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE is set, but {_first_line(error)}", then="start with torchrun, or unset it"
        ) from error
    except RuntimeError as error:
        raise QualmError(
            f"the other processes cannot be reached ({_first_line(error)})", then="look at MASTER_ADDR and MASTER_PORT"
        ) from error
    return dist.PrefixStore("qualm", store)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
