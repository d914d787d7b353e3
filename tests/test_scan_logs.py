"""`tmp-redirect scan-logs`: which paths it finds in logs, in which files, and what it says."""

# ruff: noqa: RUF001 - the punctuation of Chinese is among what is tested
from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.common.tmp_redirect.command_output import CONFIGURATION, FINDINGS, OK, USAGE
from services.common.tmp_redirect.scan import logs, streams
from services.common.tmp_redirect.scan.paths import system_temp_paths

pytestmark = pytest.mark.usefixtures("no_settings")

EVIDENCE = (
    "[2025-12-04 08:43:28,748: INFO/ForkPoolWorker-31] 开始压缩目录: "
    "/share/workflows/task_id/cropped_images/frames -> /tmp/frames_compressed_1764837808_c0febec5.zip"
)


def scan_logs(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    logs.add_arguments(parser)
    return logs.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (EVIDENCE, "/tmp/frames_compressed_1764837808_c0febec5.zip"),
        ("saved /var/tmp/a.wav", "/var/tmp/a.wav"),
        ("saved /usr/tmp/a.wav", "/usr/tmp/a.wav"),
        ("cwd is /tmp", "/tmp"),
        ("written to /tmp.", "/tmp"),
        ("see /tmp/x...", "/tmp/x"),
        ("输出：/tmp/x。", "/tmp/x"),
        ("（/tmp/x）", "/tmp/x"),
        ("“/tmp/x”，完成", "/tmp/x"),
        ("写入/tmp目录", "/tmp"),
        ("保存到/tmp/x 完成", "/tmp/x"),
        ("/tmp/字幕/视频.mp4、/share/x", "/tmp/字幕/视频.mp4"),
        (r'{"msg": "open \"/tmp/x\""}', "/tmp/x"),
        (r'{"msg": "one\n/tmp/x"}', "/tmp/x"),
        (r'{"path": "\/tmp\/x"}', "/tmp/x"),
        ("b'/tmp/x'", "/tmp/x"),
        ("`/tmp/x`", "/tmp/x"),
        ("path=/tmp/x, size=1", "/tmp/x"),
        ("/tmp/x(1).zip", "/tmp/x(1).zip"),
        ("at /tmp/x.py:12 in f", "/tmp/x.py"),
        ("[INFO]/tmp/x", "/tmp/x"),
        ("<path>/tmp/x</path>", "/tmp/x"),
        ("/share/a:/tmp/b", "/tmp/b"),
        ("/share/a→/tmp/b", "/tmp/b"),
        ("/share/a(/tmp/b)", "/tmp/b"),
        ("cc -I/tmp/include", "/tmp/include"),
        ("file:///tmp/x", "/tmp/x"),
        ("file://localhost/tmp/x", "/tmp/x"),
        ("file:/tmp/x", "/tmp/x"),
        ("unix:///tmp/redis.sock", "/tmp/redis.sock"),
        ("sqlite:////tmp/x.db", "/tmp/x.db"),
        ('"GET /get?path=/tmp/x HTTP/1.1" 200', "/tmp/x"),
        ("DELETE /tmp/x", "/tmp/x"),
        ("//tmp/x", "//tmp/x"),
        ("/var//tmp/./x", "/var//tmp/./x"),
        ("/share/../tmp/x", "/share/../tmp/x"),
        ("\x1b[31m/tmp/x\x1b[0m", "/tmp/x"),
        ("\x1b[ /tmp/x", "/tmp/x"),
        (r"\u001b[31m/tmp/x\u001b[0m", "/tmp/x"),
        ("100%/tmp/x", "/tmp/x"),
    ],
)
def test_it_finds(text: str, path: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"first\n{text}\n", encoding="utf-8")
    assert [(mention.line, mention.path) for mention in logs.mentions(str(log))] == [(2, path)]


@pytest.mark.parametrize(
    "text",
    [
        "/share/workflows/x/tmp/y",
        "/share/workflows/工作流/tmp/y",
        "/share/workflows/工作流/tmp。",
        "/share/workflows/wf(1)/tmp/y",
        "/share/workflows/[a]/tmp/y",
        "/share/workflows/my wf/tmp/y",
        "/share/workflows/08:43/tmp/y",
        "/share/workflows/x\x1b[0m/tmp/y",
        "/share/workflows/../workflows/x/tmp",
        "https://host/tmp/x",
        "https://host:80/tmp/x",
        "https://user:pw@host/tmp/x",
        "http://[::1]/tmp/x",
        "https://tmp/x",
        "HTTP://例子.中国/tmp/x",
        "s3://bucket/tmp/x",
        "hdfs:///tmp/x",
        "sqlite:///tmp/x.db",
        '"GET /tmp/x HTTP/1.1" 404',
        "/var/lib/tmp",
        "/var/lib/tmpfoo",
        "/tmpfs",
        "/tmp.bak",
        "/tmp-1/x",
        "/usr/tmpfoo",
        "/tmp/../share/x",
        r"C:\tmp\x",
        "C:/tmp/x",
        '"D:/tmp/x"',
        r"\\server\share/tmp/x",
        "./tmp/x",
        "../tmp/x",
        "~/tmp/x",
        "*/tmp/x",
        "tmp/x",
        "sub/tmp/x",
        "$ROOT/tmp",
        "${ROOT}/tmp",
        "$(pwd)/tmp",
        "{root}/tmp",
        "{{ root }}/tmp",
    ],
)
def test_it_is_not_fooled_by(text: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"{text}\n {text}\n", encoding="utf-8")
    assert list(logs.mentions(str(log))) == []


BEFORE = [*" \t\r\"'`<>|;,=([：。，；（“【、→", "\\n", "\\t", "->", '\\"', " -I", ": ", "文件:"]
AFTER = [*" \t\"'`<>|;,:)]}：。，；）”】→", "\\n", ". "]
SYSTEM_TEMP = ["/tmp", "/var/tmp", "/usr/tmp", "/tmp/", "//tmp", "/var/./tmp", "/share/../tmp"]
BELOW = ["", "/x", "/tmpab12/视频.mp4", "/a b", "/x(1)", "/.hidden"]
TEXT = st.text(max_size=30)
NAME = st.text(st.characters(categories=["L", "M", "N"], include_characters="._-~+@%$^!🎬"), max_size=12).map(
    "w".__add__
)


@given(
    TEXT, st.sampled_from(BEFORE), st.sampled_from(SYSTEM_TEMP), st.sampled_from(BELOW), st.sampled_from(AFTER), TEXT
)
def test_no_surroundings_hide_a_path(
    before: str, left: str, directory: str, below: str, right: str, after: str
) -> None:
    text = before + left + directory + below
    for whole in (text, text + right + after):
        assert len(before + left) in [found.start for found in system_temp_paths(whole)]


@given(
    TEXT, st.sampled_from(["/share/workflows/", "/", "sub/", "./", "$ROOT/", "https://"]), NAME, st.sampled_from(BELOW)
)
def test_a_path_elsewhere_is_not_found(text: str, directory: str, name: str, below: str) -> None:
    assume("tmp" not in text)
    for path in (f"{directory}{name}/tmp{below}", f"/tmp{name}{below}", f"/var/{name}/tmp{below}"):
        assert list(system_temp_paths(f"{text} {path} {text}")) == []


@given(st.text(st.sampled_from("/tmpvar. \\\"'(){}[]$:\n\x1b中，-~"), max_size=200))
def test_any_text_can_be_scanned(text: str) -> None:
    for found in system_temp_paths(streams.readable(text)):
        assert "tmp" in found.path


def test_the_line_is_named_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "worker.log"
    log.write_text(f"\n{EVIDENCE}\n", encoding="utf-8")
    assert scan_logs(log) == FINDINGS == 1
    output = capsys.readouterr()
    assert output.out == f"{log}:2: /tmp/frames_compressed_1764837808_c0febec5.zip: {EVIDENCE}\n"
    assert output.err == "tmp-redirect scan-logs: 1 system-temp path in 1 file\n"


def test_a_clean_log_is_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text("/share/workflows/x/tmp/y\n")
    assert scan_logs(log, log) == OK == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "tmp-redirect scan-logs: no system-temp paths in 2 files\n"


def test_each_path_of_a_line_is_printed_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("/tmp/a /tmp/b /tmp/a\n/tmp/a\n")
    assert [(mention.line, mention.path) for mention in logs.mentions(str(log))] == [
        (1, "/tmp/a"), (1, "/tmp/b"), (2, "/tmp/a"),
    ]  # fmt: skip


def test_a_long_line_is_shown_around_the_path(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("a" * 5000 + " /tmp/x " + "b" * 5000)
    (mention,) = logs.mentions(str(log))
    assert " /tmp/x b" in mention.text
    assert mention.text.startswith("…a")
    assert mention.text.endswith("b…")
    assert len(mention.text) < 200


def test_what_is_shown_cannot_steer_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"/tmp/x \x1b]0;title\x07 \xff\r\n")
    (mention,) = logs.mentions(str(log))
    assert mention.text == "/tmp/x \\x1b]0;title\\x07 \\udcff"


def test_json_is_an_array_of_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text("x /tmp/a 中\n/tmp/b\n", encoding="utf-8")
    assert scan_logs("--json", log) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"file": str(log), "line": 1, "path": "/tmp/a", "text": "x /tmp/a 中"},
        {"file": str(log), "line": 2, "path": "/tmp/b", "text": "/tmp/b"},
    ]
    log.write_text("")
    assert scan_logs("--json", log) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_compressed_and_differently_encoded_logs(tmp_path: Path) -> None:
    log = tmp_path / "log.1"
    for content in (
        gzip.compress(f"{EVIDENCE}\n".encode()),
        EVIDENCE.encode("gb18030"),
        EVIDENCE.encode("utf-16"),
        b"\xef\xbb\xbf" + EVIDENCE.encode(),
    ):
        log.write_bytes(content)
        (mention,) = logs.mentions(str(log))
        assert mention.path == "/tmp/frames_compressed_1764837808_c0febec5.zip"
        assert "开始压缩目录" in mention.text


def test_names_in_gb18030_are_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes("/share/workflows/任务/tmp/x /tmp/任务".encode("gb18030"))
    assert [mention.path for mention in logs.mentions(str(log))] == ["/tmp/任务"]


@pytest.mark.parametrize("before", range(-20, 21))
def test_a_path_where_pieces_of_a_huge_line_meet_is_found_once(
    before: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(streams, "LONGEST", 1000)
    monkeypatch.setattr(streams, "OVERLAP", 50)
    log = tmp_path / "log"
    log.write_text(
        "a" * (999 + before) + " /tmp/x /share/w/tmp/y " + "b" * (950 + before) + " /tmp/y /tmp/z\n/tmp/last"
    )
    assert [(mention.line, mention.path) for mention in logs.mentions(str(log))] == [
        (1, "/tmp/x"), (1, "/tmp/y"), (1, "/tmp/z"), (2, "/tmp/last"),
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["a", "/", "\\", "(", "/(", "tmp/", " /tmp", "中", "a:", "{"])
def test_a_huge_line_takes_little_time_and_memory(line: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(line * (1_500_000 // len(line)) + "\ntmp", encoding="utf-8")
    tracemalloc.start()
    try:
        for _mention in logs.mentions(str(log)):
            pass
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()


def test_many_lines_take_no_memory(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        for number in range(20_000):
            file.write(f"line {number} has a path: /tmp/x{number}\n")
    tracemalloc.start()
    try:
        assert sum(1 for _mention in logs.mentions(str(log))) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_allowed_prefixes_and_the_root_are_no_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text("/tmp/root/wf/tmp/x /tmp/models/a /tmp/models2 /tmp/other\n")

    def found(*arguments: str) -> list[str]:
        scan_logs("--json", log, *arguments)
        return [mention["path"] for mention in json.loads(capsys.readouterr().out)]

    assert found() == ["/tmp/root/wf/tmp/x", "/tmp/models/a", "/tmp/models2", "/tmp/other"]
    monkeypatch.setenv("TMP_REDIRECT_ROOT", "/tmp/root")
    monkeypatch.setenv("TMP_REDIRECT_ALLOW", "/tmp/models")
    assert found() == ["/tmp/models2", "/tmp/other"]
    assert found("--allow", "/tmp/other", "--allow", "/tmp/models2/") == ["/tmp/models/a"]


def test_bad_prefixes_and_settings_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        scan_logs("--allow", "/share/x", tmp_path)
    assert ended.value.code == USAGE
    assert "'/share/x': absolute paths below /tmp" in capsys.readouterr().err
    monkeypatch.setenv("TMP_REDIRECT_ROOT", "relative")
    assert scan_logs(tmp_path) == CONFIGURATION == 78
    assert capsys.readouterr().err.startswith("tmp-redirect scan-logs: TMP_REDIRECT_ROOT='relative' is not allowed")


def test_a_missing_file_is_a_usage_error_before_anything_is_scanned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_text("/tmp/x")
    assert scan_logs(log, tmp_path / "missing") == USAGE
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"tmp-redirect scan-logs: no such file: {tmp_path}/missing\n"


def test_what_cannot_be_read_is_told_and_never_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torn = tmp_path / "torn.gz"
    torn.write_bytes(gzip.compress(os.urandom(100_000) + b"\n/tmp/x")[:50_000])
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(b"x" * 1000)[:20] + b"\xff" * 100)
    clean = tmp_path / "clean"
    clean.write_text("")
    assert scan_logs(tmp_path, torn, broken, clean) == USAGE
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" was not read to its end: ")[0] for line in said[:3]] == [
        f"tmp-redirect scan-logs: {path}" for path in (tmp_path, torn, broken)
    ]
    assert said[3] == "tmp-redirect scan-logs: no system-temp paths in 4 files, 3 of them not read to the end"
    clean.write_text("/tmp/x")
    assert scan_logs(tmp_path, clean) == FINDINGS


COMMAND = [sys.executable, "-m", "services.common.tmp_redirect", "scan-logs"]


def in_a_process(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_standard_input_and_an_ascii_terminal(pack) -> None:
    process = in_a_process("-", env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    out, err = process.communicate(pack("中 /tmp/x\n".encode()))
    assert (process.returncode, out) == (1, b"-:1: /tmp/x: \\u4e2d /tmp/x\n")
    assert err == b"tmp-redirect scan-logs: 1 system-temp path in 1 file\n"


def test_a_finding_is_printed_while_the_log_is_written_and_the_reader_may_leave() -> None:
    process = in_a_process("-")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"/tmp/x\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"-:1: /tmp/x: /tmp/x\n"
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(b"/tmp/x\n" * 10_000)
    assert process.returncode == FINDINGS
    assert b"Traceback" not in err
