"""Child process of call site 4: measures a WAV file and writes the result to the file it's told to.

Its parent parses what it prints: nothing but the status goes to stdout.
"""

from __future__ import annotations

import array
import json
import sys
import wave


def main(audio: str, output: str) -> int:
    """Write the result for `audio` to `output`, print a status and return the exit status."""
    try:
        result = measure(audio)
    except (OSError, EOFError, wave.Error) as error:
        print(json.dumps({"error": str(error)}))
        return 1
    with open(output, "w", encoding="utf-8") as file:
        json.dump(result, file)
    print(json.dumps({"output": output}))
    return 0


def measure(audio: str) -> dict[str, float]:
    """Return duration and loudest sample of a 16-bit WAV file."""
    with wave.open(audio, "rb") as file:
        samples = array.array("h", file.readframes(file.getnframes()))
        return {"seconds": round(len(samples) / file.getframerate(), 2), "peak": max(map(abs, samples), default=0)}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
