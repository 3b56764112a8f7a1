"""Outside of a training loop a signal ends a command at once, also where the exception that it raises is lost."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from electra_jax import cli
from electra_jax.errors import PREEMPTED
from electra_jax.training.stop import Ending, Stop, ended_by_signals, handled_by

SIGNALS = {signal.SIGTERM: PREEMPTED, signal.SIGHUP: PREEMPTED, signal.SIGINT: 2}
# A command that begins with what swallows a signal's exception, or with what lets no handler run.
LOSES = """
import hashlib, sys, time
from electra_jax import cli
from electra_jax.training import stop

def swallow(*_):
    words = ["ready"]
    while True:
        try:
            # Within, because the signal may come as soon as this is read.
            while words:
                print(words.pop(), flush=True)
            time.sleep(60)
        except BaseException:
            print("swallowed", flush=True)

def compute(*_):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

# A busy machine takes a while to print; C code prints nothing.
stop.PATIENCE_SECONDS = {"swallow": 5.0, "compute": 0.3}[sys.argv[1]]
cli.run_command = {"swallow": swallow, "compute": compute}[sys.argv[1]]
raise SystemExit(cli.main(["evaluate"]))
"""


@pytest.fixture(autouse=True)
def signals_are_heard() -> Iterator[None]:
    """The tests themselves may have been started to outlive their terminal, or in the background of a script."""
    heard = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_the_start_or_in_the_last_writing_ends_a_command(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    cleaned = []

    def writes(*_: object) -> None:
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(cli, "run_command", writes)
    assert cli.main(["evaluate"]) == SIGNALS[number]
    assert cleaned == [True]
    words = "interrupted" if number == signal.SIGINT else f"ended by {number.name}: run the same command again"
    assert capsys.readouterr().err == f"electra: {words}\n"
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("how", "number"), [("swallow", signal.SIGTERM), ("compute", signal.SIGINT)])
def test_a_signal_whose_exception_is_lost_ends_the_process_all_the_same(how: str, number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", LOSES, how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(timeout=60) == SIGNALS[number]
    assert process.stdout.read() == ("swallowed\n" if how == "swallow" else "")


def test_a_training_loop_stops_for_a_signal_that_was_lost_before_it_began() -> None:
    with ended_by_signals():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        stop = Stop()
        with handled_by(stop):
            assert stop.requested == "SIGTERM"
        again = Stop()
        assert isinstance(signal.getsignal(signal.SIGTERM), Ending)
    with handled_by(again):
        assert again.requested is None


def test_what_a_process_ignores_stays_ignored() -> None:
    """A command in the background of a script ignores Ctrl-C, and one under nohup the end of the terminal."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ended_by_signals():
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_nothing_is_left_of_it() -> None:
    def left() -> tuple[int, int]:
        for thread in threading.enumerate():
            if thread.name.endswith("(watch)"):
                thread.join(timeout=10)
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    before = left()
    for _ in range(3):
        with ended_by_signals():
            pass
    assert left() == before
