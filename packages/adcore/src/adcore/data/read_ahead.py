"""Threads that read images while a model works, or in turns with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from threading import Barrier
from typing import TypeVar

import torch

GROUP = 16  # images that are read together

T, K = TypeVar("T"), TypeVar("K")


def read_ahead(items: Iterable[T], ahead: int = 1) -> Generator[T, None, None]:
    """The same items, none of which is None: one thread makes the next `ahead` while the model works on this one.

    It starts immediately and uses one core, so that it does not compete with the model.
    """
    iterator, pool = iter(items), _readers(1)
    waiting = deque(pool.submit(next, iterator, None) for _ in range(ahead))
    return _made(pool, iterator, waiting)


def _made(
    pool: ThreadPoolExecutor, iterator: Iterator[T], waiting: deque[Future[T | None]]
) -> Generator[T, None, None]:
    with _ending(pool):
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, iterator, None))
            yield item


def read_together(fetch: Callable[[K], T], keys: Iterable[K]) -> Generator[T, None, None]:
    """`fetch(key)` for all keys in their order: as many cores as a model has read a group, then the model has them all.

    The first group starts immediately. Taking turns is faster than reading beside the model where both take similar time: each
    operation of the model would wait for the core that reads.
    """
    threads = torch.get_num_threads()
    pool, iterator = _readers(threads), iter(keys)

    def begin() -> deque[Future[T]]:
        return deque(pool.submit(fetch, key) for key in islice(iterator, max(GROUP, threads)))

    return _in_turns(pool, begin(), begin)


def _in_turns(
    pool: ThreadPoolExecutor, group: deque[Future[T]], begin: Callable[[], deque[Future[T]]]
) -> Generator[T, None, None]:
    with _ending(pool):
        while group:
            wait(group)
            while group:  # releases finished items
                yield group.popleft().result()
            group = begin()


def _readers(count: int) -> ThreadPoolExecutor:
    """Threads that use one core each."""
    threads = torch.get_num_threads()
    started = Barrier(count + 1, timeout=60)  # if one cannot start, the others must not wait forever

    def start() -> None:
        torch.get_num_threads()  # the first call in a thread sets the number that new threads start with
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, initializer=start)
    for _ in range(count):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(threads)  # the number for threads that start later, which the readers changed
    return pool


@contextmanager
def _ending(pool: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Shut the pool down at the end of the block; pending work is cancelled."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
