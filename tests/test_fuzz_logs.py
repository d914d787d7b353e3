"""Whatever is in a log or a source file: no crash, no path overlooked, and JSON that is JSON."""

from __future__ import annotations

import gzip
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.common.tmp_redirect import cli
from services.common.tmp_redirect.command_output import FINDINGS, OK
from services.common.tmp_redirect.doctor.mounts import meaning, mount_of
from services.common.tmp_redirect.scan import formats, lines, logs, python, streams
from services.common.tmp_redirect.scan.finding import NotChecked
from services.common.tmp_redirect.scan.kinds import DOCKERFILE, ENV, SHELL, YAML
from services.common.tmp_redirect.under_pytest.journal import JournalReader
from tests.fuzzing import JSON, TRICKY_TEXT, fuzz

pytestmark = pytest.mark.usefixtures("no_settings")

PIECES = [
    *(b"/tmp/x", b" /tmp/x", b"/var/tmp", b"/usr/tmp/", b"//tmp", b"tmp", b"/share/w/tmp/y", b"file:///tmp/x", b"/"),
    *(b"\n", b"\r", b"\r\n", b"\0", b"\x1b[31m", b"\x1b[0m", b"\x1b", b"\\u001b[1m", b"\x85", b"\xff", b"\xe4"),
    *("中".encode(), "中".encode("gb18030"), "。".encode("gb18030"), "→".encode(), b"\xef\xbb\xbf", b"\x1f\x8b"),
    *(b'"', b"'", b"`", b"(", b")", b"[", b"]", b"{", b"}", b"$(", b"${", b"$", b"#", b"=", b":", b";", b"|", b"&&"),
    *(b">", b"<", b'{"msg": "', b'\\"', b"GET /tmp/x HTTP/1.1", b" ", b"\t", b"a", b"9", b"-", b"- ", b"  ", b"\\\n"),
    *(b"<<EOF", b"noqa", b"RUN ", b"ENV ", b"ONBUILD ", b"rm ", b"cp ", b"tee ", b"cat <<'EOF'\n", b"key: ", b"\\"),
    *(b"state: absent", b"tar -xf ", b"# ", b"x = ", b"open(", b", 'w'", b"f'", b"b'", b"{x}", b"\n  ", b"import os"),
    *(b"# coding: ", b"rot13", b"latin-1", b"utf-7", b"\x81", b"\xff\xfe"),
]  # fmt: skip
CONTENT = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join) | st.binary(max_size=200)


def command(*arguments: object) -> tuple[int, str, str]:
    """The status of the command line, and what it says."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = cli.main([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


@given(content=CONTENT)
@fuzz(100)
def test_a_log_of_any_bytes(content: bytes, tmp_path: Path) -> None:
    log, packed = tmp_path / "log", tmp_path / "log.gz"
    log.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    status, out, err = command("scan-logs", "--json", log)
    found = json.loads(out)
    assert (status == FINDINGS) == bool(found) or "was not read to its end" in err
    status, text, err = command("scan-logs", log)
    assert len(text.split("\n")) == len(found) + 1 and text.replace("\n", "").isprintable() and "Traceback" not in err
    if not content.startswith(b"\x1f\x8b"):
        assert status in (OK, FINDINGS)
        inside = json.loads(command("scan-logs", "--json", packed)[1])
        if not content.startswith((b"\xff\xfe", b"\xfe\xff")):  # by which UTF-16 is known, but not in a compressed file
            assert [{**mention, "file": ""} for mention in inside] == [{**mention, "file": ""} for mention in found]


@given(before=CONTENT, after=CONTENT, path=st.sampled_from(["/tmp/here", "/var/tmp/here", "/usr/tmp/here"]))
@fuzz(100)
def test_a_path_that_stands_alone_is_found_whatever_is_around_it(
    before: bytes, after: bytes, path: str, tmp_path: Path
) -> None:
    assume(not before.startswith((b"\x1f\x8b", b"\xff\xfe", b"\xfe\xff")))
    log = tmp_path / "log"
    log.write_bytes(before + b" " + path.encode() + b" " + after)
    assert path in [mention.path for mention in logs.mentions(str(log))]


LONG = [
    b"x",
    b" ",
    b"\x1b[31m",
    b"\x1b[0m",
    "中".encode(),
    "中".encode("gb18030"),
    "𠀀".encode("gb18030"),
    b"\xff",
    b"/a",
    b" /tmp/b",
]


@given(
    repeated=st.lists(st.tuples(st.sampled_from(LONG), st.integers(1, 400)), min_size=1, max_size=6),
    place=st.integers(0, 6),
)
@fuzz(100)
def test_a_path_in_a_huge_line_is_found_wherever_its_pieces_meet(
    repeated: list[tuple[bytes, int]], place: int, tmp_path: Path
) -> None:
    log, parts = tmp_path / "log", [part * times for part, times in repeated]
    log.write_bytes(b"".join([*parts[:place], b" /tmp/here ", *parts[place:]]))
    with pytest.MonkeyPatch.context() as small:
        small.setattr(streams, "LONGEST", 1000)
        small.setattr(streams, "OVERLAP", 250)
        found = [mention.path for mention in logs.mentions(str(log))]
    assert found.count("/tmp/here") == 1


@pytest.mark.parametrize("filling", [b"\x1b[32m=", "中".encode("gb18030")])
def test_a_path_in_a_line_of_many_colours_or_chinese_is_found(filling: bytes, tmp_path: Path) -> None:
    """As a progress bar is, which ends no line."""
    log, start = tmp_path / "log", streams.LONGEST - 2 * streams.OVERLAP
    for shift in range(0, 3 * streams.OVERLAP, 2000):
        log.write_bytes(filling * ((start + shift) // len(filling)) + b" /tmp/here " + filling * streams.OVERLAP)
        assert [mention.path for mention in logs.mentions(str(log))] == ["/tmp/here"]


@pytest.mark.parametrize("kind", [SHELL, DOCKERFILE, ENV, YAML])
@given(content=CONTENT)
@fuzz(80)
def test_configuration_of_any_text(kind: str, content: bytes) -> None:
    text = streams.readable(content.decode("utf-8", "surrogateescape"))
    found = sorted(lines.findings("file", text, kind))
    numbers = range(1, len(text.splitlines()) + 1)
    for finding in found:
        assert finding.line in numbers and 1 <= finding.column <= len(text.splitlines()[finding.line - 1])
    shown = {name: make(found) for name, make in formats.FORMATS.items()}
    assert len(json.loads(shown["json"])) == len(json.loads(shown["sarif"])["runs"][0]["results"]) == len(found)
    for name in ("text", "github"):
        assert shown[name].count("\n") == len(found) and shown[name].replace("\n", "").isprintable()


def test_a_long_list_of_settings_is_no_longer_to_check_than_it_is_to_read() -> None:
    """It once took a minute for 8,000 lines, and four times as long for twice as many."""
    text = "key: value\n" * 40_000 + "path: /tmp/x\n" + "- file:\n    path: /tmp/x\n    state: absent\n" * 10_000
    assert [finding.line for finding in lines.findings("file", text, YAML)] == [40_001]


EXPRESSIONS = [
    *('"/tmp/x"', "'/var/tmp'", 'b"/tmp"', 'f"/tmp/{x}"', "tempfile.mktemp()", "x", '"a /tmp/b"', "{}", "[]", "1"),
    *('"\\udcff/tmp"', '"/tmp\\0"', '"""\n/tmp/x"""', '"a" "/tmp/x"', "os.system('> /tmp/x')", "open('/tmp/x', 'w')"),
    "lambda: 0",
]
CALLS = [
    "{}",
    "f({})",
    "open({}, mode={})",
    "x[{}]",
    "{} + {}",
    "[{}, *{}]",
    "Path({}).open({})",
    "print({})",
    "{}.format({})",
]
CALLS += [
    "{} if {} else {}",
    "os.environ.get({}, {})",
    "mkdtemp(dir={})",
    "run([{}, {}], cwd={})",
    "f(**{})",
    "({} for x in {})",
]
EXPRESSION = st.recursive(
    st.sampled_from(EXPRESSIONS),
    lambda inner: st.tuples(st.sampled_from(CALLS), inner, inner, inner).map(
        lambda parts: _filled(parts[0], parts[1:])
    ),
    max_leaves=6,
)
STATEMENTS = [
    "{}\n",
    "x = {}\n",
    "def f(x={}): return {}\n",
    "assert {}, {}\n",
    "raise E({})\n",
    "@d({})\nclass C: x: {} = 1\n",
]
STATEMENTS += [
    "match {}:\n  case '/tmp/x': {}\n",
    "with {} as x: pass\n",
    "# noqa\n{}\n",
    "{}  # noqa: S108\n",
    "\f\r{}\r\n",
    "é = {}\n",
]


def _filled(form: str, values: tuple[str, ...]) -> str:
    for value in values:
        form = form.replace("{}", value, 1)
    return form


MODULES = st.lists(st.tuples(st.sampled_from(STATEMENTS), EXPRESSION, EXPRESSION).map(lambda p: _filled(p[0], p[1:])))
SOURCES = st.tuples(
    st.sampled_from(
        ["", *(f"# coding: {name}\n" for name in ("latin-1", "rot13", "hex", "utf-7", "undefined", "none"))]
    ),
    MODULES.map("".join),
).map("".join)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@given(source=SOURCES.map(lambda text: text.encode("utf-8", "surrogatepass")) | CONTENT)
@fuzz(150)
def test_python_of_any_bytes(source: bytes) -> None:
    try:
        found = list(python.findings("file", source, []))
    except NotChecked as error:
        assert str(error)
    else:
        assert all(finding.line >= 1 and finding.column >= 1 for finding in found)


MOUNT_WORDS = st.sampled_from(
    ["/", "/data", "/data\\040x", "\\", "\\777", "-", " - ", "rw", "nocto", "nfs4", "fuse.x", "", "\n"]
)


@given(st.lists(MOUNT_WORDS | TRICKY_TEXT, max_size=40).map(" ".join), st.sampled_from(["/", "/data/x", "/data x"]))
@fuzz(100)
def test_mountinfo_of_any_text(text: str, path: str) -> None:
    found = mount_of(path, text)
    if found is not None:
        assert all(isinstance(said, str) for said in meaning(found))


@given(content=st.lists(JSON.map(lambda value: json.dumps(value).encode()) | CONTENT, max_size=6).map(b"\n".join))
@fuzz(80)
def test_a_journal_of_any_bytes(content: bytes, tmp_path: Path) -> None:
    journal = tmp_path / "violations.jsonl"
    journal.write_bytes(b"")
    reader = JournalReader(str(journal))
    journal.write_bytes(content + b'\n{"pid": 1}\n' + b"[" * 100_000 + b"\n")
    assert reader.read()[-1] == {"pid": 1}
    assert reader.read() == []
