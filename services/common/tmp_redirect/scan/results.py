"""What a scan of logs finds, printed while it is found: as lines of text, or as JSON."""

from __future__ import annotations

import json


class Results:
    """Prints one result at a time, as a line of text, or as an element of a JSON array, which `close` ends."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._separator = "["

    def add(self, element: object, text: object) -> None:
        """Print `element` if the output is JSON, else `text`."""
        if self._as_json:
            print(self._separator, json.dumps(element), sep="\n", flush=True)
            self._separator = ","
        else:
            print(text, flush=True)

    def close(self) -> None:
        """End the array."""
        if self._as_json:
            print("[]" if self._separator == "[" else "]")
