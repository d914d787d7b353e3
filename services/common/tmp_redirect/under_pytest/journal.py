"""Reads what processes append to the journal of the guard."""

from __future__ import annotations

import json
import os
from typing import Any


class JournalReader:
    """The lines that were appended to `path` since this was made, or since the last look."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None
        self._offset = 0
        state = self._state(path)
        if state is not None:
            self._file, self._offset = state

    def read(self) -> list[dict[str, Any]]:
        """The new lines, parsed; one that is not complete yet is left for the next look."""
        state = self._state(self._path)
        if state is None:
            return []
        lines = []
        file, size = state
        if file != self._file:
            if self._file is not None:  # rotated: the rest of what was read so far is in the file before
                lines = self._lines_of(self._path + ".1", self._file)
            self._file, self._offset = file, 0
        if size > self._offset:
            lines += self._lines_of(self._path, file)
        return lines

    def _lines_of(self, path: str, file: tuple[int, int]) -> list[dict[str, Any]]:
        try:
            with open(path, "rb") as stream:
                found = os.fstat(stream.fileno())
                if (found.st_dev, found.st_ino) != file:
                    return []  # rotated once more, just now
                stream.seek(self._offset)
                text = stream.read()
        except OSError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [entry for line in complete.splitlines() if isinstance(entry := _parsed(line), dict)]

    @staticmethod
    def _state(path: str) -> tuple[tuple[int, int], int] | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return (found.st_dev, found.st_ino), found.st_size


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
