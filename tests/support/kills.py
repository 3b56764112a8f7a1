"""Run `electra` in processes that are killed as they are about to change a folder for the n-th time.

A server imports what the commands need, once, and forks for each of them, so that a command costs its own work alone.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from support.command_line import environment

# What Python says of changes of the file system, and which argument is their path.
CHANGES = {"open": 0, "os.rename": 0, "os.mkdir": 0, "os.rmdir": 0, "os.remove": 0, "os.link": 1, "os.symlink": 1}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
MODULES = ("vocab", "cache", "finetune", "import_", "export", "predict")


class Ended(NamedTuple):
    """Hold how a command ended: its exit code, minus 9 if it was killed, and the changes that it came to."""

    code: int
    changes: int


class Kills:
    """Commands that a server runs; each may be killed."""

    def __init__(self, server: subprocess.Popen[str], log: Path) -> None:
        self._server, self.log = server, log

    def run(self, arguments: list[str], folder: Path, *, before: int | None) -> Ended:
        """Run `electra ARGUMENTS`, killed right before its n-th change below a folder; None to let it end."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        asked = {"arguments": arguments, "folder": str(folder), "before": before, "log": str(self.log)}
        print(json.dumps(asked), file=self._server.stdin, flush=True)
        return Ended(*json.loads(self._server.stdout.readline()))


@contextlib.contextmanager
def killing(cache: Path) -> Iterator[Kills]:
    """Start a server; `cache` holds compiled programs, and `kills.log`, what the last command said."""
    tests = str(Path(__file__).parents[1])
    paths = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "support.kills"]
    # One device, of which a forked process has few threads.
    with subprocess.Popen(
        command,
        env=environment(cache) | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        cache.mkdir(exist_ok=True)
        yield Kills(server, cache / "kills.log")
        assert server.stdin is not None
        server.stdin.close()


def below(folder: str, path: Any, directory: int) -> bool:
    """Return whether a path, relative to an open directory unless that is -1, is below a folder."""
    if isinstance(path, int):
        return False
    name = os.fsdecode(path)
    if directory != -1:
        name = os.path.join(os.readlink(f"/proc/self/fd/{directory}"), name)
    return os.path.abspath(name).startswith(f"{folder}{os.sep}")


def hook(folder: str, before: int | None, counted: list[int]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that counts the changes below a folder, and kills the process right before one of them."""

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or (event == "open" and not arguments[2] & WRITES):
            return
        directory = arguments[-1] if event in ("os.mkdir", "os.rmdir", "os.remove") else -1
        if below(folder, arguments[CHANGES[event]], directory):
            counted[0] += 1
            if counted[0] == before:
                os.kill(os.getpid(), signal.SIGKILL)

    return count


def serve() -> None:
    """Answer each line of standard input by how the command that it asks for ended."""
    import importlib

    from electra_jax import cli, runtime

    runtime.load_tensorflow_quietly()
    for name in MODULES:
        importlib.import_module(f"electra_jax.commands.{name}")
    for line in sys.stdin:
        asked = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            counted = [0]
            sys.addaudithook(hook(asked["folder"], asked["before"], counted))
            code = 1
            try:
                code = cli.main(asked["arguments"])
                sys.stdout.flush()
            finally:
                os.write(writing, str(counted[0]).encode())
                os._exit(code)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reading) as stream:
            changes = stream.read()
        print(json.dumps([os.waitstatus_to_exitcode(status), int(changes or asked["before"])]), flush=True)


if __name__ == "__main__":
    serve()
