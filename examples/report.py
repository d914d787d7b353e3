"""Print what the demo found: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.evidence import OUTSIDE, Pass, TempFile

Sites = dict[tuple[str, str], int]
WIDTH_WITHOUT_TERMINAL = 110


def print_json(before: Pass, after: Pass, sites: Sites, findings: list[str]) -> None:
    """Print the result as one JSON document."""
    document = {
        "ok": not findings,
        "findings": findings,
        "root": str(after.root),
        "call_sites": [
            {
                "site": site,
                "workflow": None if workflow == OUTSIDE else workflow,
                "before": [str(file.path) for file in before.files_of(site, workflow)],
                "after": [str(file.path) for file in after.files_of(site, workflow)],
            }
            for site, workflow in sites
        ],
        "left_behind": {"before": _left_behind(before), "after": _left_behind(after)},
        "in_system_temp": {
            "before": [str(path) for path in before.in_system_temp(before.marked)],
            "after": [str(path) for path in after.in_system_temp(after.marked)],
        },
    }
    print(json.dumps(document, indent=2))


def print_tables(before: Pass, after: Pass, sites: Sites, findings: list[str]) -> None:
    """Print the result as two tables and a verdict."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL, highlight=False)
    console.print(_whereabouts(before, after, sites))
    console.print(_leftovers(before, after))
    console.print(Text(f"$ROOT is {after.root}; the evidence is what inotify reported", style="dim"), soft_wrap=True)
    for line in _verdict(after, findings):
        console.print(line, soft_wrap=True)


def _verdict(after: Pass, findings: list[str]) -> list[Text]:
    if findings:
        return [Text(f"FAILED {finding}", style="bold red") for finding in findings]
    text = f"OK all {len(after.files)} temp files went to the workspace of their own workflow, none to system temp"
    return [Text(text, style="bold green")]


def _whereabouts(before: Pass, after: Pass, sites: Sites) -> Table:
    table = Table(title="Where the temp files went", title_justify="left")
    for heading in ("call site", "workflow", "files", "before (TMP_REDIRECT unset)", "after (TMP_REDIRECT=enforce)"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "files" else "left")
    previous = None
    for site, workflow in sites:
        if previous not in (None, site):
            table.add_section()
        old, new = before.files_of(site, workflow), after.files_of(site, workflow)
        right = bool(new) and all(after.is_home(file) for file in new)
        table.add_row(
            "" if site == previous else site,
            "none active" if workflow == OUTSIDE else workflow,
            str(len(new)),
            Text(_directories(before, old)),
            Text(_directories(after, new), style="green" if right else "bold red"),
        )
        previous = site
    return table


def _leftovers(before: Pass, after: Pass) -> Table:
    table = Table(title="What was left behind when the workflows had ended", title_justify="left")
    for heading in ("pass", "path", "call site", "workflow"):
        table.add_column(heading, overflow="fold")
    for name, run in (("before", before), ("after", after)):
        stray = run.in_system_temp(run.left_behind)
        if not stray:
            table.add_row(name, Text("nothing in system temp", style="green"), "", "")
        for path in stray + [path for path in run.left_behind if path not in stray]:
            file = run.file_at(path) or TempFile("unknown", "unknown", path)
            style = "yellow" if path in stray else "dim"
            table.add_row(name, Text(_short(run, path), style=style), file.site, file.workflow)
        table.add_section()
    return table


def _directories(run: Pass, files: list[TempFile]) -> str:
    return "\n".join(dict.fromkeys(_short(run, file.path.parent) for file in files)) or "nothing logged"


def _short(run: Pass, path: Path) -> str:
    return f"$ROOT/{path.relative_to(run.root)}" if path.is_relative_to(run.root) else str(path)


def _left_behind(run: Pass) -> list[dict[str, Any]]:
    return [
        {
            "path": str(path),
            "in_system_temp": bool(run.in_system_temp([path])),
            "site": file.site if (file := run.file_at(path)) else None,
            "workflow": file.workflow if file and file.workflow != OUTSIDE else None,
        }
        for path in run.left_behind
    ]
