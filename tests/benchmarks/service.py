"""Seconds of requests to `omiad serve`, and its memory, with several clients at once.

    omiad serve model.ckpt --port 8000
    python tests/benchmarks/service.py photos/ --port 8000 --requests 10000 --clients 8

Each client sends one photograph after another on a connection of its own.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `client`

from client import Client

from omiad.prediction.photographs import find_photographs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    photographs = [each.path for each in find_photographs(arguments.photos)][:100]
    files = [(path.name, path.read_bytes()) for path in photographs]

    def ask(number: int) -> list[float]:
        seconds = []
        client = Client(arguments.port)
        with closing(client.connection):
            for i in range(number, arguments.requests, arguments.clients):
                start = time.perf_counter()
                status, _ = client.post([files[i % len(files)]])
                seconds.append(time.perf_counter() - start)
                assert status == 200, status
        return seconds

    def figure(name: str) -> float:
        client = Client(arguments.port)
        with closing(client.connection):
            lines = client.get("/metrics")[1].splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])

    ask(arguments.requests - arguments.clients)  # to warm up
    before, start = figure("process_resident_memory_bytes"), time.perf_counter()
    with ThreadPoolExecutor(arguments.clients) as pool:
        times = [each for found in pool.map(ask, range(arguments.clients)) for each in found]
    whole, after = time.perf_counter() - start, figure("process_resident_memory_bytes")
    p50, p95, p99 = 1000 * np.percentile(times, (50, 95, 99))
    batches = figure("omiad_batch_photographs_sum") / figure("omiad_batch_photographs_count")
    print(f"{len(times)} requests of {arguments.clients} clients in {whole:.1f} s")
    print(f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms; {len(times) / whole:.1f} per s")
    print(f"{batches:.2f} photographs in a batch on average")
    print(f"memory {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after")


if __name__ == "__main__":
    main()
