"""That `make conformance` can fail: each way in which two runs of a suite may differ is found, on real runs too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import interpreters
from tests.conformance import cpython, differences, junit
from tests.conformance.both import Both, Run, check_namespaces
from tests.conformance.comparison import Comparison, compare
from tests.conformance.suite import SuiteError
from tests.conformance.verdict import Job, judged

# Its tests: one that is the same on both sides, one that isn't; `nothing` writes no report.
SCRIPT = """
import sys, tempfile
tempfile.mkdtemp()
report, *tests = sys.argv[1:]
def same(): tempfile.NamedTemporaryFile().close()
def system_temp(): open("/tmp/left", "w").close()
cases = []
for test in (same, system_temp):
    if not tests or f"tiny.{test.__name__}" in tests:
        try:
            test()
            what = ""
        except OSError:
            what = "<error/>"
        cases.append(f'<testcase classname="tiny" name="{test.__name__}">{what}</testcase>')
if "nothing" not in tests:
    open(report, "w").write(f"<testsuite>{''.join(cases)}</testsuite>")
"""


class Tiny:
    """A suite in one script, to which `arguments` are passed on."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments

    def prepare(self, work: Path, python: Path) -> Path:
        work.mkdir()
        (work / "tiny.py").write_text(SCRIPT)
        return python

    def directory(self, work: Path) -> Path:
        return work

    def command(self, python: Path, report: Path, tests: Sequence[str] = ()) -> list[str]:
        return [str(python), "tiny.py", str(report), *self.arguments, *tests]


@pytest.fixture
def both(tmp_path, overlay):
    try:
        check_namespaces()
    except SuiteError as error:
        pytest.skip(str(error))

    def prepared(suite: Tiny, shim: Path = overlay) -> Both:
        return Both(suite, suite.prepare(tmp_path / "suite", interpreters.this()), tmp_path, shim)

    return prepared


def test_a_suite_is_run_on_both_sides_and_what_differs_is_found(both, tmp_path):
    found = compare(both(Tiny()), tmp_path / "logs")

    assert found.without == {"tiny.same": "passed", "tiny.system_temp": "passed"}
    assert found.differing == {"tiny.system_temp": ("passed", "error")}
    assert not found.unsteady
    assert found.left[0] == ["left", *found.left[0][1:]] and found.left[1] == []
    assert "refused: open of '/tmp/left'" in (tmp_path / "logs" / "with.log").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"suite", "logs"}


def test_a_suite_that_says_nothing_is_an_error(both, tmp_path):
    with pytest.raises(SuiteError, match="it ran nothing and ended with status 0"):
        compare(both(Tiny("nothing")), tmp_path / "logs")


def test_a_shim_that_is_not_at_work_is_an_error(both, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SuiteError, match=r"with the shim, a process says \[false,"):
        compare(both(Tiny(), empty), tmp_path / "logs")


class Scripted:
    """Stands for a suite whose runs come out as foretold: the outcomes of one test without the shim and with it."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.pairs = list(pairs)

    def run(self, *tests: str) -> tuple[Run, ...]:
        return tuple(Run({"test": outcome} if outcome else {}, [], "log") for outcome in self.pairs.pop(0))


@pytest.mark.parametrize(
    ("pairs", "differs"),
    [
        ([("passed", "failed")] * 4, True),
        ([("passed", "skipped")] * 4, True),
        ([("passed", "")] * 4, True),
        ([("passed", "failed"), *[("passed", "passed")] * 4], False),
        ([("passed", "failed"), *[("failed", "failed")] * 3, ("passed", "passed")], False),
        ([("passed", "failed"), *[("passed", "passed")] * 3, ("passed", "failed")], True),  # depends on those before
    ],
)
def test_what_differs_each_time_is_a_difference_and_what_does_now_and_then_is_unsteady(pairs, differs, tmp_path):
    scripted = Scripted(*pairs)
    found = compare(scripted, tmp_path)

    assert (list(found.differing), list(found.unsteady)) == ((["test"], []) if differs else ([], ["test"]))
    assert not scripted.pairs


def test_counts_of_an_unsteady_test(tmp_path):
    found = compare(Scripted(("passed", "failed"), *[("passed", "passed")] * 4), tmp_path)

    assert found.unsteady == {"test": "passed 5 / failed 1, passed 4"}


def test_outcomes_are_the_worst_that_the_report_and_the_log_say(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase name="a.A.good"/><testcase classname="a" name="bad"><failure/></testcase>'
        '<testcase name="a.A.left_out"><skipped/></testcase><testcase/><testcase name="a.A.odd"><error/></testcase>'
        '<testcase name="a.A.odd"/><testcase name="a.A.unexpected"><outcome/></testcase></testsuite></testsuites>'
    )
    outcomes = junit.read(report)
    assert outcomes == {
        "a.A.good": "passed",
        "a.bad": "failed",
        "a.A.left_out": "skipped",
        "a.A.odd": "error",
        "a.A.unexpected": "failed",
    }
    assert junit.read(tmp_path / "none.xml") == {}
    report.write_text(report.read_text()[:-9])
    assert junit.read(report) == {}

    log = "FAIL: good (a.A.good) (i=1)\nERROR: old (a.A)\nERROR: setUpClass (a.A)\ntest test_x crashed -- Traceback\n"
    for test, outcome in cpython.from_log(log):
        junit.add(outcomes, test, outcome)
    assert outcomes["a.A.good"] == "failed" and outcomes["a.A.old"] == outcomes["a.A.setUpClass"] == "error"
    assert outcomes["test_x"] == "error"


def test_a_test_of_pytest_is_found_by_its_id(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "test_a.py").touch()

    assert junit.node_id(tmp_path, "t.test_a.test_it") == "t/test_a.py::test_it"
    assert junit.node_id(tmp_path, "t.test_a.TestIt.test_it[a.b-c]") == "t/test_a.py::TestIt::test_it[a.b-c]"


def test_a_listed_difference_that_does_not_occur_is_stale():
    listed = [differences.Difference(("3.12", "3.13"), "suite", "test", "reason")]

    assert differences.stale(listed, {("3.12", "suite"): ["test"], ("3.13", "suite"): []}) == ["3.13 suite test"]
    assert differences.stale(listed, {("3.12", "other"): []}) == []


def test_the_list_has_reasons_and_a_line_without_one_is_an_error(tmp_path):
    assert all(entry.reason for entry in differences.read())

    file = tmp_path / "differences.txt"
    file.write_text("# comment\n3.12 suite a test[x y]: it asserts /tmp\n")
    assert differences.read(file) == [differences.Difference(("3.12",), "suite", "a test[x y]", "it asserts /tmp")]
    file.write_text("\n3.12 suite test\n")
    with pytest.raises(ValueError, match=r"differences\.txt:2: not `versions suite test-id: reason`"):
        differences.read(file)


def test_only_what_is_not_listed_is_complained_of():
    job = Job("3.12.1", Path("python"), "suite")
    found = {job: Comparison({"a": "passed"}, {"a": "failed"}, {"a": ("passed", "failed")})}
    entry = differences.Difference(("3.12",), "suite", "a", "reason")

    assert judged(found, [])[1] == ["DIFFERS 3.12.1 suite a"]
    assert judged(found, [entry])[1] == []
    found[job] = Comparison({"a": "passed"}, {"a": "passed"})
    assert judged(found, [entry])[1] == ["STALE 3.12 suite a: listed, but it doesn't differ"]
    assert judged({job: SuiteError("broken")}, [])[1] == ["ERROR 3.12.1 suite: broken"]
    assert judged({job: SuiteError(cpython.NOT_THERE)}, [])[1] == []
