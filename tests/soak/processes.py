"""Temp files that are made by processes of multiprocessing; also a program of its own."""

from __future__ import annotations

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from apis import paths_of_every_api


def spawned(prefix: str) -> list[str]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(paths_of_every_api, prefix).result()


def forked(prefix: str) -> list[str]:
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=lambda: writer.send(paths_of_every_api(prefix)))
    child.start()
    writer.close()
    paths: list[str] = reader.recv()
    child.join()
    return paths


if __name__ == "__main__":
    json.dump(spawned(sys.argv[1]), sys.stdout)
