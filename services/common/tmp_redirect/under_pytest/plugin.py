"""The hooks: which test, collector or session an attempt belongs to, and what becomes of it.

An attempt fails the phase of the test in which it happens, or the collection of the module; what belongs to neither is
listed in the end, and makes the exit status 1. Under xdist the processes that run tests report as ever; the one that
controls them lists what no report has carried.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Generator
from types import FrameType
from typing import Any, TypeVar
from unittest import SkipTest

import _pytest.config
import pytest

from ..guard import summarise
from . import options
from .attempts import Attempt, Watch
from .ledger import MOST, Ledger, attach, text
from .marked import Marked
from .shim import Shim
from .tolerance import Tolerance

NAME = "tmp_redirect watch"
HEADING = "system temp, outside of tests"
_FOUND = pytest.StashKey[list[Attempt]]()
_FAILURE = pytest.StashKey[BaseException]()
T = TypeVar("T")


def activate(pluginmanager: pytest.PytestPluginManager) -> None:
    """Install the shim and watch from now on, once. Raises `pytest.UsageError` where that can't be."""
    if pluginmanager.has_plugin(NAME):
        return
    shim = Shim()
    shim.start()
    tolerance = Tolerance()
    pluginmanager.register(Marked(tolerance), f"{NAME}: marked")
    pluginmanager.register(Plugin(pluginmanager.get_plugin("pytestconfig"), shim, tolerance), NAME)


class Plugin:
    """The hooks of one session."""

    def __init__(self, config: Any, shim: Shim, tolerance: Tolerance) -> None:
        self._config = config
        self._shim = shim
        self._tolerance = tolerance
        self._watch = Watch(self._tolerance)
        self._ledger = Ledger(self._watch)
        self._session: pytest.Session | None = None
        self._allows_all = False
        self._rest: list[Attempt] = []
        # What the program that pytest is does at its very end is seen too: atexit calls the first to register last.
        self._until_exit = _is_the_program()
        if self._until_exit:
            atexit.register(self._at_exit)
        config.add_cleanup(self._at_unconfigure)
        self._settle()

    @property
    def _is_worker(self) -> bool:
        return hasattr(self._config, "workerinput")  # which xdist sets later than this is made

    def _settle(self) -> None:
        """Take notice of the options, as far as they are known by now."""
        config = self._config
        self._allows_all = options.choice(config) == "allow"
        self._tolerance.allow_all(on=self._allows_all)
        # A tree that is tested in system temp was put there on purpose; pytest keeps its caches in it.
        named = getattr(config, "known_args_namespace", config.option)
        directories = (
            getattr(config, "_rootpath", None),
            getattr(named, "basetemp", None),
            os.environ.get("PYTEST_DEBUG_TEMPROOT"),
        )
        self._shim.allow([os.path.abspath(directory) for directory in directories if directory])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_load_initial_conftests(self) -> Generator[None, T, T]:
        """Take notice of the options before a conftest runs."""
        self._settle()
        return (yield)

    def pytest_configure(self) -> None:
        """Take notice of the options, where a conftest has asked for the plugin."""
        self._settle()

    def pytest_report_header(self) -> str:
        """Say what the plugin does, and where temp files go if the root is not a user's."""
        verb = "allows" if self._allows_all else "watches"
        root = self._shim.temporary_root
        return f"tmp_redirect: {verb} use of system temp{'' if root is None else f'; temporary root {root}'}"

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep the session, whose status tells at exit whether all was well."""
        self._session = session

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Fail what violates when it is collected, and what has a marker without a reason."""
        self._ledger.begin()
        report = yield
        found = self._ledger.end()
        refused = _refused(found)
        texts = [text(refused)] if refused else []
        if report.failed:
            report.sections += [("System temp", part) for part in texts]
        else:
            texts += [
                f"{node.nodeid}: @pytest.mark.{options.MARKER} needs a reason: {options.MARKER}(reason='why')"
                for node in report.result
                if isinstance(node, pytest.Item) and "" in options.reasons(node)
            ]
            if texts:
                report.outcome, report.longrepr, report.result = "failed", "\n\n".join(texts), []
        attach(report, found)
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what the report has carried."""
        self._ledger.note(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, T, T]:
        """Fail it if there is a violation."""
        return (yield from self._phase(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, T, T]:
        """Fail it if there is a violation."""
        return (yield from self._phase(item))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, T, T]:
        """Fail it if there is a violation."""
        return (yield from self._phase(item))

    def _phase(self, item: pytest.Item) -> Generator[None, T, T]:
        self._ledger.begin()
        try:
            result = yield
        except (pytest.skip.Exception, SkipTest):
            self._judge(item)
            raise
        except BaseException:
            item.stash[_FOUND] = self._ledger.end(item.nodeid)
            raise
        self._judge(item)
        return result

    def _judge(self, item: pytest.Item) -> None:
        found = item.stash[_FOUND] = self._ledger.end(item.nodeid)
        refused = _refused(found)
        if refused:
            failure = item.stash[_FAILURE] = pytest.fail.Exception(text(refused), pytrace=False)
            raise failure from None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Have the report carry what was found; one of another failure keeps that, and gets a section."""
        report = yield
        found = item.stash.get(_FOUND, [])
        item.stash[_FOUND] = []
        refused = _refused(found)
        if refused and call.excinfo and call.excinfo.value is not item.stash.get(_FAILURE, None):
            report.sections.append(("System temp", text(refused)))
        attach(report, found)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what the report has carried."""
        self._ledger.note(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a session in which something was found that belongs to no test."""
        if self._is_worker:
            return
        rest = self._ledger.rest()
        if self._allows_all:
            self._ledger.allowed += rest
            return
        self._rest = _refused(rest)
        if self._rest and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """List what belongs to no test, and what is allowed by the options."""
        if self._rest:
            listed = text(self._rest)
            terminalreporter.section(HEADING, red=True)
            terminalreporter.write_line(listed)
            report = pytest.CollectReport(HEADING, "failed", longrepr=listed, result=[])
            terminalreporter.stats.setdefault("error", []).append(report)  # lest the last line says that all is well
        if self._allows_all and self._ledger.allowed:
            terminalreporter.section("system temp, allowed")
            for attempt in self._ledger.allowed[:MOST]:
                terminalreporter.write_line(f"{attempt.call} of {attempt.path!r} at {attempt.where}")

    def _at_unconfigure(self) -> None:
        if self._until_exit or self._is_worker:
            atexit.unregister(summarise)  # of the guard: the summary of the tests has said it
        if not self._until_exit:
            self._say_late()
            self._watch.stop()
            self._tolerance.allow_all(on=False)
            self._shim.stop()

    def _at_exit(self) -> None:
        if os.getpid() != self._watch.pid:
            return  # a forked child that ends as its parent would
        failed = self._say_late()
        self._shim.remove_root()
        if failed and self._session is not None and self._session.exitstatus == pytest.ExitCode.OK:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(pytest.ExitCode.TESTS_FAILED)

    def _say_late(self) -> bool:
        """Tell what came after the summary, if that is not allowed; whether there was something."""
        rest = [] if self._is_worker or self._allows_all else _refused(self._ledger.rest())
        if rest:
            sys.stderr.write(f"tmp_redirect: after the end of the session\n{text(rest)}\n")
        return bool(rest)


def _refused(attempts: list[Attempt]) -> list[Attempt]:
    return [attempt for attempt in attempts if not attempt.allowed]


def _is_the_program() -> bool:
    """Whether pytest was started as a program, rather than by `pytest.main()` in one."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _pytest.config.__file__ and code.co_name in ("main", "_main"):
            return frame.f_back is not None and frame.f_back.f_code.co_name in ("console_main", "_console_main")
        frame = frame.f_back
    return False
