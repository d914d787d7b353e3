"""The shim that one writes first: `wrapt` at the start of each interpreter, `tempfile.tempdir` set by Celery's signals.

It takes part in the comparisons. What it lacks is measured in `isolation`, what it costs in `peers` and `peer_tasks`.
"""

import os
import tempfile
from typing import Any

import wrapt


@wrapt.patch_function_wrapper("tempfile", "gettempdir")
def _gettempdir(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> str:
    directory: str = wrapped()
    os.makedirs(directory, exist_ok=True)
    return directory


@wrapt.when_imported("celery.signals")
def _follow_tasks(signals: Any) -> None:
    def begin(kwargs: Any, **_: object) -> None:
        if "context" in kwargs:
            tempfile.tempdir = os.path.join(os.environ["BENCHMARK_ROOT"], kwargs["context"]["workflow_id"], "tmp")

    def end(**_: object) -> None:
        tempfile.tempdir = None

    signals.task_prerun.connect(begin, weak=False)
    signals.task_postrun.connect(end, weak=False)
