"""Measures the server under load: python -m webapp.load_test

Clients post the example photos to the API as fast as it answers. It prints the captions a second, how long an answer
took, the memory of the server at the beginning and at the end, and the captioner's own captions a second, in batches
and without a server. It prints CPU time, too: where the machine has other work to do, only CPU time can be compared.
"""

import argparse
import http.client
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from webapp.local_server import REPOSITORY, local_server

BATCH_SIZE = 8
PHOTOS = [path.read_bytes() for path in sorted((REPOSITORY / "examples").glob("*.jpg"))]


def main() -> None:
    parser = argparse.ArgumentParser(description="Load the server on this machine, and print how it does.")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1, help="gunicorn's processes")
    parser.add_argument("--alone", action="store_true", help="measure the captioner alone, in this process")
    options = parser.parse_args()
    if options.alone:
        print(*alone(options.seconds))
        return
    # In a process of its own, so that its memory and threads are gone before the server starts.
    command = [sys.executable, "-m", "webapp.load_test", "--alone", "--seconds", str(options.seconds / 3)]
    rates = [measure_alone(command)]
    with local_server(WEB_CONCURRENCY=str(options.workers)) as (address, master):
        load(address, options.clients, 15)  # until every worker is warm
        before, cpu = memory(master), cpu_seconds(master)
        started = time.monotonic()
        statuses, seconds = load(address, options.clients, options.seconds)
        rate = statuses[200] / (time.monotonic() - started)
        after, cpu = memory(master), (cpu_seconds(master) - cpu) / statuses[200]
    # The speed of a shared machine changes: measured before and after.
    rates.append(measure_alone(command))
    mean, cpu_alone = np.mean(rates, axis=0)
    print(f"clients {options.clients}, workers {options.workers}, answers by status {dict(statuses)}")
    print(f"server: {rate:.1f} captions a second, {rate / mean:.0%} of the captioner alone")
    print(f"captioner alone, batches of {BATCH_SIZE}: {rates[0][0]:.1f} before and {rates[1][0]:.1f} after")
    print(f"CPU time a caption: {1000 * cpu:.0f} ms, the captioner alone {1000 * cpu_alone:.0f} ms")
    print("an answer: " + ", ".join(f"p{p} {1000 * np.percentile(seconds, p):.0f} ms" for p in (50, 95, 99)))
    print(f"memory: {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after")
    if set(statuses) != {200}:
        sys.exit("there were errors.")


def measure_alone(command: list[str]) -> tuple[float, ...]:
    """What `alone` returns in another process."""
    printed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    return tuple(map(float, printed.split()))


def alone(seconds: float) -> tuple[float, float]:
    """Captions a second of the captioner alone, and CPU time a caption; photos are decoded while it works."""
    from caption_generator.captioner import Captioner

    captioner = Captioner.load()
    paths = sorted((REPOSITORY / "examples").glob("*.jpg"))
    list(captioner.caption_files(paths, BATCH_SIZE))  # warm
    done, started, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() - started < seconds:
        done += len(list(captioner.caption_files(paths * 4, BATCH_SIZE)))
    return done / (time.monotonic() - started), (time.process_time() - cpu) / done


def load(address: str, clients: int, seconds: float) -> tuple[Counter, list[float]]:
    """Post photos from several clients.

    Returns:
        The number of answers by status, and how long each answer took.
    """
    statuses, times, lock = Counter(), [], threading.Lock()
    deadline = time.monotonic() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        while time.monotonic() < deadline:
            number += 1
            started = time.monotonic()
            try:
                connection.request("POST", "/api/caption", PHOTOS[number % len(PHOTOS)], {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                response.read()
                status = response.status
            except OSError as error:
                status = type(error).__name__
                connection.close()
            with lock:
                statuses[status] += 1
                times.append(time.monotonic() - started)
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses, times


def memory(master: int) -> int:
    """Bytes of memory that gunicorn's processes have for themselves (their resident pages)."""
    pages = (int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in processes(master))
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(master: int) -> float:
    """The CPU time of gunicorn's processes so far."""
    fields = (Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split() for process in processes(master))
    return sum(int(row[11]) + int(row[12]) for row in fields) / os.sysconf("SC_CLK_TCK")


def processes(master: int) -> list[str]:
    """Gunicorn's master and workers."""
    return [str(master), *Path(f"/proc/{master}/task/{master}/children").read_text().split()]


if __name__ == "__main__":
    main()
