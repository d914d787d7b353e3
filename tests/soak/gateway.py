"""Publishes the workflows that it is told to, as the gateway of a platform does, which has the shim too."""

from __future__ import annotations

import json
from typing import Any

from celery import Signature, chain, group
from tasks import run


def canvas(stages: list[list[dict[str, Any]]], earlier: list[str]) -> Signature:
    """Each step reads what the stages before it left, and `earlier` ones of a run before this."""
    parts, names = [], earlier
    for stage in stages:
        signatures = [_signature({**step, "reads": names}) for step in stage]
        parts.append(signatures[0] if len(stage) == 1 else group(signatures))
        names = [*names, *(f"{step['run']}.{step['name']}" for step in stage)]
    return chain(*parts)


def _signature(step: dict[str, Any]) -> Signature:
    arguments = {"step": step}
    if step["told"]:
        arguments["context"] = {"workflow_id": step["workflow"]}
    return run.signature(kwargs=arguments, immutable=step["told"]).set(queue=step["pool"])


if __name__ == "__main__":
    while True:
        canvas(**json.loads(run.app.backend.client.blpop("wanted")[1])).apply_async()
