"""Files read in a process of its own: what hangs or eats memory there is ended, and a new one reads the next file.

The two talk in lines of JSON. The reader is a fresh interpreter, no copy of this one: it holds nothing but formats.
"""

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from qualm.corpus.document import Document
from qualm.corpus.formats.base import Taken
from qualm.corpus.settings import Collecting
from qualm.corpus.taking import Taker, TellTaken, kinds
from qualm.errors import InputError, MissingExtra, QualmError

try:
    import resource
except ImportError:  # not on Windows, where time is bounded and memory is not
    resource = None

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from qualm.corpus.apart import main; main()"
_AHEAD = 8  # documents read ahead
_STARTING = 60.0  # seconds
_ERRORS = {kind.__name__: kind for kind in (InputError, MissingExtra, QualmError)}


class Apart:
    """A reader in another process, started when first asked; close it when done."""

    def __init__(self, settings: Collecting, tell: TellTaken):
        self.settings, self.tell = settings, tell
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[bytes] = queue.Queue(_AHEAD)

    def file(self, path: Path, name: str) -> Iterator[Document]:
        """As `Taker.file`; a file on which the reader hangs or dies is one that cannot be used."""
        here, taken = Taker(self.settings, self.tell), Taken(name)
        done = False
        try:
            self._ask(path, name)
            while not done:
                answer = self._answer(str(path))
                if "document" in answer:
                    taken.documents += 1
                    yield _document(answer["document"])
                elif "taken" in answer:
                    self.tell(Taken(**answer["taken"]))
                else:
                    done = True
                    if error := answer.get("error"):
                        raise _ERRORS[error["kind"]](error["what"], where=error["where"], then=error["then"])
        except InputError as error:
            here.failed(taken, error)
        finally:
            if not done:
                self.close()

    def close(self) -> None:
        """End the reader, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            while process.poll() is None:
                with contextlib.suppress(queue.Empty):
                    self._answers.get(timeout=0.01)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def _ask(self, path: Path, name: str) -> None:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        asked = {"path": str(path.absolute()), "name": name, "settings": dataclasses.asdict(self.settings)}
        try:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise InputError("its reader does not start", where=str(path), then="see qualm doctor") from error

    def _start(self) -> None:
        self._answers = queue.Queue(_AHEAD)
        command = [sys.executable, "-c", _START, json.dumps([entry or str(Path.cwd()) for entry in sys.path])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, **pipes)
        assert self._process.stdout is not None
        threading.Thread(target=_listen, args=(self._process.stdout, self._answers), daemon=True).start()
        with contextlib.suppress(queue.Empty):
            self._answers.get(timeout=_STARTING)  # that it is ready

    def _answer(self, where: str) -> Mapping[str, Any]:
        seconds = self.settings.seconds
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise InputError(f"took longer than {seconds:g} s", where=where, then="raise --seconds") from None
        if not line:
            assert self._process is not None
            code = self._process.wait()
            if code == -getattr(signal, "SIGALRM", 0):
                raise InputError(f"took longer than {seconds:g} s", where=where, then="raise --seconds")
            raise InputError(f"ended its reader ({_told(code)})", where=where, then="mend it, or raise --memory")
        return json.loads(line)


def _listen(stream: BinaryIO, answers: "queue.Queue[bytes]") -> None:
    """Lines as they come; an empty one at the end."""
    with contextlib.suppress(ValueError):  # closed meanwhile
        for line in stream:
            answers.put(line)
    with contextlib.suppress(queue.Full):
        answers.put(b"", timeout=1)


def _told(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def _document(told: Mapping[str, Any]) -> Document:
    return Document(told["id"], told["text"], tuple(told["messages"]), told["source"], told["meta"])


def main() -> None:
    """The reader: asked a file a line, it answers a line a document, what became of each file, and that it is done."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a parser prints is no answer

    def say(**told: Any) -> None:
        answers.write(json.dumps(told).encode() + b"\n")
        answers.flush()

    kinds()  # imports what reads
    say(ready=True)
    with open(0, "rb") as asked:
        for line in asked:
            request = json.loads(line)
            settings = Collecting(**request["settings"])
            _limit(settings)

            try:
                taker = Taker(settings, lambda taken: say(taken=dataclasses.asdict(taken)))
                for document in taker.file(Path(request["path"]), request["name"]):
                    _watch(0)
                    say(
                        document={
                            name: getattr(document, name) for name in ("id", "text", "messages", "source", "meta")
                        }
                    )
                    _watch(settings.seconds)
            except QualmError as error:
                kind = next(name for name, kind in _ERRORS.items() if isinstance(error, kind))
                say(error={"kind": kind, "what": error.what, "where": error.where, "then": error.then})
            else:
                say(done=True)
            _watch(0)


def _limit(settings: Collecting) -> None:
    """From here on so much more memory, and so long for the next document, even if nobody waits for it any more."""
    _watch(settings.seconds)
    if resource is not None:
        held = Path("/proc/self/statm")
        now = int(held.read_text().split()[0]) * resource.getpagesize() if held.exists() else 2**30
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = now + settings.memory
        resource.setrlimit(resource.RLIMIT_AS, (wanted if limit < 0 else min(wanted, limit), limit))


def _watch(seconds: float) -> None:
    """Be ended after so long, even inside a parser; 0 for never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 1.5 * seconds)
