"""Copies of memory, timed on all threads at once."""

from __future__ import annotations

import threading
from time import perf_counter

import numpy as np

from rir_deploy.roofline.ceilings import Copy

# Bytes of source and copy together, over all threads: within the second-level caches of most CPUs, within the third,
# and beyond both.
WORKING_SETS = (1 << 20, 4 << 20, 16 << 20, 256 << 20)
# A thread's copy has to be much longer than Python takes to start the next.
_SMALLEST = 64 << 10


def measure_copy(working_set_bytes: int, threads: int, seconds: float) -> Copy:
    """The bandwidth of ``threads`` threads that each copy their part over and over for ``seconds``."""
    size = max(working_set_bytes // (2 * threads), _SMALLEST)
    rates, barrier = [0.0] * threads, threading.Barrier(threads)

    def work(index: int) -> None:
        source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
        np.copyto(target, source)
        barrier.wait()
        copies, start = 0, perf_counter()
        while (now := perf_counter()) < start + seconds or copies == 0:
            np.copyto(target, source)  # lets the other threads run
            copies += 1
        rates[index] = 2 * size * copies / (now - start) / 1e9

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Copy(2 * size * threads, sum(rates))
