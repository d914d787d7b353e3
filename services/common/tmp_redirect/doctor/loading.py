"""Whether a fresh interpreter loads the shim, by which file, and what keeps it from doing so."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.util import cache_from_source
from pathlib import Path

from ..location import AUTOLOAD, PACKAGE
from .case import Case
from .finding import Finding
from .interpreter import SECONDS, bypassing


def shim(case: Case) -> Iterator[Finding]:
    """Whether it is at work there."""
    answer, facts = case.answer, case.answer.facts
    if answer.status is None:
        advice = "see what its sitecustomize.py and .pth files do: python -v -c pass"
        yield Finding("shim", "problem", f"a fresh interpreter has not started within {SECONDS:g} s", advice)
    elif answer.said and answer.status == 78:
        advice = "correct that; with TMP_REDIRECT=off, programs run without the shim"
        yield Finding("shim", "stops", answer.said, advice)
    elif facts is None:
        advice = "see what it says: python -c pass"
        yield Finding("shim", "problem", f"a fresh interpreter ends with status {answer.status}", advice)
    elif facts.active:
        by = f", by {facts.loaded_by}" if facts.loaded_by else ""
        yield Finding("shim", "ok", f"a fresh interpreter loads it{by}")
    elif answer.said:
        yield Finding("shim", "problem", answer.said, "correct that")
    elif case.is_off:
        yield Finding("shim", "note", "not loaded, as it is off")
    else:
        yield Finding("shim", "problem", "a fresh interpreter doesn't load it, and runs unpatched", _way_in(case))


def _way_in(case: Case) -> str:
    flags, found = bypassing(), _sitecustomizes(case)
    if flags:
        return f"start Python without {' '.join(flags)}"
    if found and not _is_ours(found[0]):
        return f"{found[0]} is found first, and doesn't run ours: put the directory of ours before it on PYTHONPATH"
    return "put the directory that holds its sitecustomize.py first on PYTHONPATH, or run tmp-redirect install-site"


def sitecustomize(case: Case) -> Iterator[Finding]:
    """Which files of that name there are, and which were run. Python itself runs the first."""
    facts, found = case.facts, _sitecustomizes(case)
    if facts is None:
        return
    others = [path for path in found if not _is_ours(path)]
    if case.answer.has_failed:
        advice = "see why, and remove or repair it: PYTHONVERBOSE=1 python -c pass"
        yield Finding("sitecustomize", "problem", f"one fails at each start: {', '.join(others) or 'ours'}", advice)
    elif not others:
        yield Finding("sitecustomize", "ok", "there is none but ours" if found else "there is none")
    elif facts.sitecustomize and _same(others[0], facts.sitecustomize):
        ours = facts.loaded_by if facts.active else None
        before = f"{ours} has run it, which shadows it" if ours and _shadows(ours, others[0], found) else "it was run"
        yield Finding("sitecustomize", "ok", f"{others[0]}: {before}{_and_not(others[1:])}")
    elif facts.active and found and others[0] == found[0]:
        text = f"{others[0]} comes first, and has run {facts.loaded_by}{_and_not(others[1:])}"
        yield Finding("sitecustomize", "ok", text)
    else:
        text = f"not run: {', '.join(others)}"
        yield Finding("sitecustomize", "note", text, "see which is first on the path, and whether it runs the next")


def flags(case: Case) -> Iterator[Finding]:
    """Flags that bypass the shim; this interpreter's, which were given to the fresh one."""
    found = " ".join(bypassing())
    if not found:
        text = "none of -I, -E, -S; a Python that is started with one has the directories in TMPDIR, but no shim"
        yield Finding("flags", "ok", text)
    elif case.answer.facts is not None and case.answer.facts.active:
        yield Finding("flags", "ok", f"the shim is loaded in spite of {found}")
    else:
        text = f"{found} keeps Python from loading the shim{'' if sys.flags.no_site else ' from PYTHONPATH'}"
        other_way = "" if sys.flags.no_site else ", or run tmp-redirect install-site"
        yield Finding("flags", "problem", text, f"start Python without {found}{other_way}")


def python_path(case: Case) -> Iterator[Finding]:
    """Whether it leads to the shim, and holds wherever a process is started."""
    value = case.environ.get("PYTHONPATH", "")
    entries = value.split(os.pathsep) if value else []
    leads = any(_is_ours(os.path.join(entry, "sitecustomize.py")) for entry in entries)
    facts = case.answer.facts
    is_reached = bool(case.answer.said or (facts and facts.active))
    if not all(map(os.path.isabs, entries)):
        text = f"{value!r} has an entry that isn't absolute, or empty: it means whatever directory a process is in"
        yield Finding("PYTHONPATH", "note", text, "remove it, or write it out")
    if leads or is_reached or case.is_off:
        reason = "; the shim is loaded without it" if is_reached and not leads else ""
        yield Finding("PYTHONPATH", "ok", (value or "unset") + reason)
    else:
        text = f"{value or 'unset'}: it doesn't lead to the sitecustomize.py of the shim"
        advice = f"PYTHONPATH={os.pathsep.join([AUTOLOAD, *entries])}"
        yield Finding("PYTHONPATH", "problem", text, f"{advice}, or run tmp-redirect install-site")


def package(case: Case) -> Iterator[Finding]:
    """Whether this user may read all of it, and whether this doctor is of the package that is loaded."""
    facts = case.answer.facts
    directory = os.path.dirname(facts.package) if facts and facts.package else PACKAGE
    unreadable = [path for path in _files(directory) if not os.access(path, os.R_OK)]
    if facts and facts.loaded_by and not os.access(facts.loaded_by, os.R_OK):
        unreadable.append(facts.loaded_by)
    if unreadable:
        text = f"uid {os.geteuid()} can't read {len(unreadable)} of its files: {unreadable[0]}"
        yield Finding("package", case.fatal, text, f"chmod -R a+rX {directory}")
    elif not os.path.samefile(directory, PACKAGE):
        advice = f"python {directory} doctor"
        yield Finding("package", "note", f"{directory} is loaded, and this doctor is of {PACKAGE}", advice)
    else:
        version = f"version {facts.version}, " if facts and facts.version else ""
        yield Finding("package", "ok", f"{version}{directory}")


def bytecode(case: Case) -> Iterator[Finding]:
    """Whether each start compiles the shim again: the interpreter that was just started has cached it, if it could."""
    facts = case.answer.facts
    if facts is None or not facts.active or facts.package is None:
        return
    cached = cache_from_source(os.path.join(os.path.dirname(facts.package), "startup.py"))
    if os.path.exists(cached):
        yield Finding("bytecode", "ok", f"cached in {os.path.dirname(cached)}")
    else:
        text = f"not cached in {os.path.dirname(cached)}: each start of Python compiles it, and takes twice as long"
        advice = f"in the image: RUN python -m compileall -q {os.path.dirname(facts.package)}"
        yield Finding("bytecode", "note", text, advice)


def _sitecustomizes(case: Case) -> list[str]:
    """In the order of the path; with `-S` none is looked for."""
    specs = [PathFinder.find_spec("sitecustomize", [entry]) for entry in (case.facts.path if case.facts else [])]
    return list(dict.fromkeys(spec.origin for spec in specs if spec is not None and spec.origin is not None))


def _is_ours(path: str) -> bool:
    """Whether it is a sitecustomize.py that starts the shim, wherever the package is."""
    try:
        return b"services.common.tmp_redirect" in Path(path).read_bytes()
    except OSError:
        return False


def _shadows(ours: str, other: str, found: list[str]) -> bool:
    return ours in found and found.index(ours) < found.index(other)


def _and_not(others: list[str]) -> str:
    return f"; not run, as without the shim: {', '.join(others)}" if others else ""


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _files(directory: str) -> Iterator[str]:
    for at, _, names in os.walk(directory, onerror=_raise):
        yield from (os.path.join(at, name) for name in names if name.endswith(".py"))


def _raise(error: OSError) -> None:
    raise error
