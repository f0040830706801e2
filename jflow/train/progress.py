"""What a user sees and does while `fit` runs: the bar, Ctrl-C, and the pace."""

import contextlib
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from jflow.parallel import agree

# Long enough that Python's share is negligible, short enough for a bar that moves.
SECONDS_PER_DISPATCH = 0.5


@contextlib.contextmanager
def progress_bar(shown: bool, start: int, steps: int) -> Iterator[Callable]:
    """A bar in the terminal or notebook: `update(count, **numbers)`.

    Without tqdm, or in processes other than the first, there is none.
    """
    bar = _tqdm(total=steps, initial=start) if shown else None

    def update(count: int, **numbers: Any) -> None:
        if bar is not None:
            bar.set_postfix(
                {name: f"{value:.4g}" for name, value in numbers.items()},
                refresh=False,
            )
            bar.update(count)

    try:
        yield update
    finally:
        if bar is not None:
            bar.close()


def _tqdm(**options):
    if jax.process_index() != 0:
        return None
    try:
        # In a notebook without ipywidgets tqdm draws with characters, and warns.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*IProgress not found.*")
            from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(desc="fit", unit="step", dynamic_ncols=True, **options)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Hold the first Ctrl-C or SIGTERM until it is asked for; a second acts at once.

    An interrupt that came between a step and the assignment of what it returned would
    lose the state, since the step was given the old one's memory.
    """
    pressed, before = [], {}

    def handler(number, frame):
        if pressed:
            signal.signal(number, before[number])
            signal.raise_signal(number)
        pressed.append(number)

    # Only the main thread may set handlers; elsewhere signals go there anyway.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous = signal.getsignal(number)
            # What is not Python's cannot be put back; an ignored signal stays so.
            if previous is not None and previous is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield lambda: bool(pressed)
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def pacer(
    steps_per_dispatch: int | None, mesh: Mesh | None
) -> tuple[Callable, Callable]:
    """How many steps to send at once: `(count, record)`.

    `count(limit)` is what to send next, `record(steps)` says that they are done. Starts
    with one step, which compiles, and then aims at half a second. Every process of the
    mesh sends the same number, since each takes part in each step.
    """
    if steps_per_dispatch is not None:
        return (lambda limit: min(steps_per_dispatch, limit)), (lambda steps: None)
    planned, began, warm = 1, 0.0, False

    def count(limit: int) -> int:
        nonlocal began
        began = time.perf_counter()
        return min(agree(planned, mesh), limit)

    def record(steps: int) -> None:
        nonlocal planned, warm
        seconds = time.perf_counter() - began
        if warm and steps:
            aim = int(SECONDS_PER_DISPATCH * steps / max(seconds, 1e-9))
            # A short first measure is mostly overhead, so the pace grows by degrees.
            planned = max(1, min(aim, 16 * planned))
        warm = True

    return count, record
