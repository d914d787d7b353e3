"""`tmp-redirect scan`: what it finds in which kind of file, what it leaves out, and what it says."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.tmp_redirect.command_output import CONFIGURATION, FINDINGS, OK, USAGE
from services.common.tmp_redirect.scan import command, ruff

PYTHON = [
    'directory = "/tmp/x"',
    'directory = "/var/tmp"',
    'directory = r"/usr/tmp/x"',
    'directory = b"/tmp/x"',
    'directory = f"/tmp/{name}"',
    'directory = "/tm" "p/x"',
    'directory = "/tmp/" + name',
    'directory = "/tmp/{}".format(name)',
    'directory = Path("/tmp")',
    'directory = Path("/tmp", "x")',
    'directory = os.path.join("/tmp", name)',
    'os.environ["TMPDIR"] = "/tmp"',
    'tempfile.tempdir = "/tmp"',
    'def save(directory="/tmp"): ...',
    'open("/tmp/x", "w")',
    'open("/tmp/x", mode=mode)',
    'Path("/tmp/x").open("w")',
    'Path("/tmp/x").write_text("")',
    'os.replace(name, "/tmp/x")',
    'tempfile.mkdtemp(dir="/tmp")',
    'NamedTemporaryFile("w", dir="/var/tmp/x")',
    'tempfile.TemporaryDirectory(dir=b"/tmp")',
    "import tempfile\ntempfile.mktemp()",
    'subprocess.run(["touch", "/tmp/x"])',
    'subprocess.run(["tool", "--dir=/tmp/x"])',
    'os.system("echo > /tmp/x")',
    'subprocess.run("sort -T /tmp", shell=True)',
    'url = "file:///tmp/x"',
    'url = "sqlite:////tmp/x.db"',
    'volumes = ["/data:/tmp"]',
    'directory = os.environ.get("CACHE", "/tmp")',
]
NOT_PYTHON = [
    '"""/tmp is not used."""',
    'def f():\n    """/tmp/x"""',
    "# /tmp/x",
    'if path == "/tmp/x": ...',
    'if path in ("/tmp", "/var/tmp"): ...',
    'path.startswith("/tmp/")',
    'assert path != "/tmp"',
    'open("/tmp/x")',
    'open("/tmp/x", "rb")',
    'Path("/tmp/x").read_text()',
    'Path("/tmp/x").open()',
    'Path("/tmp/x").unlink()',
    'os.path.exists("/tmp/x")',
    'shutil.rmtree("/tmp/x")',
    'log.info("/tmp/x")',
    'raise ValueError("/tmp is full")',
    'parser.add_argument("--dir", help="/tmp/x")',
    'text = "it is in /tmp/x"',
    'text = "/tmp is full"',
    'mock = Mock(return_value="/tmp/x")',
    'mock.assert_called_once_with("/tmp/x")',
    'os.system("rm -rf /tmp/x")',
    'directory = os.environ.get("TMPDIR", "/tmp")',
    'directory = os.getenv("TMP", "/tmp")',
    'directory = root + "/tmp/x"',
    'directory = f"{root}/tmp/x"',
    'directory = "%s/tmp" % root',
    'directory = "/share/workflows/x/tmp/y"',
    'directory = "/dev/shm/x"',
    'directory = "/tmpfs"',
    'directory = "/usr/tmpfoo"',
    'url = "https://host/tmp/x"',
    "tempfile.mkdtemp()",
    'directory = "/tmp"  # noqa: S108',
    'directory = "/tmp"  # noqa',
    'directory = b"/tmp"  # noqa: E501, S108',
    'tempfile.mkdtemp(dir="/tmp")  # noqa: S108',
    "import tempfile\ntempfile.mktemp()  # noqa: S306",
    '# ruff: noqa: S108\ndirectory = b"/tmp"\nother = "/tmp"',
]
SHELL = [
    "export TMPDIR=/tmp",
    'x="/tmp/x"',
    "x=(/tmp/x)",
    "echo a > /tmp/x",
    "echo a >>/tmp/x",
    "tool 2>/tmp/err",
    "echo a | tee -a /tmp/x",
    "mkdir -p /tmp/x",
    "cd /tmp",
    "cp a /tmp/x",
    "mv a b /var/tmp/",
    "curl -o /tmp/x https://host/x",
    "tar -C /tmp -xf a.tar",
    "ffmpeg -y -i a.mp4 '/tmp/b.mp4'",
    "if true; then touch /tmp/x; fi",
    "tool \\\n  --output /tmp/x",
    "python tool.py /tmp/x",
    "x=${CACHE:-/tmp}",
    'tool "$(pwd)" /tmp/x',
    "bash -c 'touch /tmp/x'",
    "a && { touch /tmp/x; }",
    "mktemp -d /tmp/x.XXXX",
    "touch /tmp/x # noqa: E501",
]
NOT_SHELL = [
    "# touch /tmp/x",
    "true # /tmp/x",
    "rm -rf /tmp/x",
    "rm -rf a \\\n  /tmp/*",
    "sudo rm /tmp/x",
    'rm -rf "${X}" $(ls a) `ls b` /tmp/x',
    'python3 "/tmp/x.py" --fast',
    "cat /tmp/x",
    "tool < /tmp/x",
    "if [ -f /tmp/x ]; then true; fi",
    "[[ $x == /tmp/* ]]",
    "cp /tmp/x a",
    "mv /tmp/x /share/y",
    "tar xf /tmp/x.tar",
    "bash /tmp/x.sh",
    "/tmp/x.sh --fast",
    "echo see /tmp/x",
    "case $x in\n/tmp/*) ;;\nesac",
    "cat <<END\nfiles go to /tmp/x\nEND",
    'x="${TMPDIR:-/tmp}/x"',
    'x="$ROOT"/tmp/x',
    'x="$(dirname "$0")"/tmp/x',
    "x=$ROOT/tmp",
    "x=./tmp",
    "x=/share/workflows/x/tmp/y",
    "x=/var/lib/tmp",
    "mount -t tmpfs x /tmpfs",
    "docker run --tmpfs /tmp image",
    "touch /tmp/x # noqa: S108",
    "# noqa: S108\ntouch /tmp/x",
    "# ruff: noqa: S108\n\ntouch /tmp/x",
]
YAML = [
    "directory: /tmp/x",
    "directory: '/tmp'",
    "environment:\n  - TMPDIR=/tmp",
    "volumes:\n  - /tmp:/tmp",
    "volumes:\n  - ./data:/var/tmp",
    "volumes: ['/tmp:/tmp']",
    "command: tool --dir=/tmp/x",
    "command: ['tool', '/tmp/x']",
    "run: |\n  mkdir /tmp/x",
    "file:\n  path: /tmp/x\n  state: directory",
    "mountPath: /tmp",
]
NOT_YAML = [
    "# directory: /tmp",
    "a: 1 # /tmp",
    "tmpfs: /tmp",
    "tmpfs:\n  - /tmp\n  - /var/tmp:size=1g",
    "volumes:\n  - type: tmpfs\n    target: /tmp",
    "name: look into /tmp",
    "description: |\n  all in /tmp/x",
    "run: rm -rf /tmp/x",
    "file:\n  path: /tmp/x\n  state: absent",
    "when: x == '/tmp'",
    "url: https://host/tmp/x",
    "directory: '{{ root }}/tmp'",
    "directory: ${ROOT}/tmp",
    "directory: /share/workflows/x/tmp",
    "directory: /tmp # noqa: S108",
]
DOCKERFILE = [
    "ENV TMPDIR=/tmp",
    "ENV TMPDIR /tmp",
    "ARG CACHE=/var/tmp/x",
    "WORKDIR /tmp",
    'VOLUME ["/tmp"]',
    "COPY a b /tmp/",
    "ADD --chown=1:1 a /tmp/x",
    "RUN curl -o /tmp/x https://host/x",
    "RUN a && \\\n    # why\n    touch /tmp/x",
    'CMD ["tool", "--dir", "/tmp"]',
]
NOT_DOCKERFILE = [
    "# ENV TMPDIR=/tmp",
    "COPY --from=build /tmp/x /app/",
    "RUN rm -rf /tmp/*",
    "RUN apt-get clean && rm -rf /var/lib/apt/lists/* \\\n    /tmp/* /var/tmp/*",
    "RUN --mount=type=tmpfs,target=/tmp make",
    "LABEL where=/tmp",
    "# noqa: S108\nENV TMPDIR=/tmp",
    "ENV ROOT=/share/tmp",
]
ENV = ["TMPDIR=/tmp", 'export X="/var/tmp/x"', "X=/a:/tmp/b"]
NOT_ENV = ["# TMPDIR=/tmp", "X=1 # /tmp", "X=https://host/tmp", "X=$ROOT/tmp", "TMPDIR=/tmp # noqa: S108"]
KINDS = {
    "a.py": (PYTHON, NOT_PYTHON),
    "a.sh": (SHELL, NOT_SHELL),
    "compose.yaml": (YAML, NOT_YAML),
    "Dockerfile": (DOCKERFILE, NOT_DOCKERFILE),
    ".env": (ENV, NOT_ENV),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def scan(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def found(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, object]]:
    status = scan("--json", *arguments)
    findings = json.loads(capsys.readouterr().out)
    assert status == (FINDINGS if findings else OK)
    return findings


@pytest.mark.parametrize("name", KINDS)
def test_what_is_found_and_what_is_not(name: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, case in enumerate(KINDS[name][0]):
        (project / f"yes{number}").mkdir()
        (project / f"yes{number}" / name).write_text(case + "\n")
    for number, case in enumerate(KINDS[name][1]):
        (project / f"no{number}").mkdir()
        (project / f"no{number}" / name).write_text(case + "\n")
    by_directory = {str(finding["path"]).split("/")[0] for finding in found(capsys, ".")}
    assert [case for number, case in enumerate(KINDS[name][0]) if f"yes{number}" not in by_directory] == []
    assert [case for number, case in enumerate(KINDS[name][1]) if f"no{number}" in by_directory] == []


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("a.sh", ""),
        ("a.bash", ""),
        ("script", "#!/bin/sh"),
        ("script", "#!/usr/bin/env -S bash -e"),
        ("script", "#!/usr/bin/env python3"),
        ("a.pyi", ""),
        ("Dockerfile.gpu", ""),
        ("gpu.Dockerfile", ""),
        ("Containerfile", ""),
        ("docker-compose.yml", ""),
        (".env.production", ""),
        ("web.env", ""),
    ],
)
def test_files_are_known_by_name_or_first_line(
    name: str, first: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "ENV X=/tmp" if "ile" in name else "x: /tmp" if name.endswith("yml") else 'X="/tmp"'
    (project / name).write_text(f"{first}\n{line}\n")
    assert [(finding["path"], finding["line"]) for finding in found(capsys, ".")] == [(name, 2)]


def test_other_files_are_not_looked_at(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("README.md", "notes.txt", "data", "environment", "a.shx", "myDockerfiles"):
        (project / name).write_text('X="/tmp"\n')
    assert found(capsys, ".") == []


def test_the_text_output(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "a.py").write_text('é = ["中", "/tmp/x"]\nimport tempfile\ny = tempfile.mktemp()\n', encoding="utf-8")
    assert scan("a.py") == FINDINGS == 1
    output = capsys.readouterr()
    assert output.out == (
        "a.py:1:11: hard-coded system-temp path: /tmp/x; "
        "use the tempfile module without dir, $TMPDIR, or a path below the workflow's directory\n"
        "a.py:3:5: a name without a file: tempfile.mktemp; "
        "use tempfile.mkstemp or NamedTemporaryFile: another process may take the name first\n"
    )
    assert output.err == "tmp-redirect scan: 2 places that would put files into system temp\n"


@pytest.mark.parametrize("form", ["text", "github"])
def test_a_path_that_is_not_text_is_shown_in_letters(
    form: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "a.env").write_bytes(b"DIR=/tmp/x\x85\n")
    scan(f"--format={form}", "a.env")
    out = capsys.readouterr().out.rstrip("\n")
    assert "system temp in a variable: /tmp/x\\udc85: DIR=/tmp/x\\udc85; " in out and out.isprintable()


def test_a_clean_project_is_status_0(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "a.py").write_text("import tempfile\n")
    assert scan(".") == OK
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "tmp-redirect scan: no places that would put files into system temp\n")


def test_json_has_the_place_and_what_to_do(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "a.sh").write_text("touch /tmp/x\n")
    (finding,) = found(capsys, ".")
    assert finding == {
        "path": "a.sh",
        "line": 1,
        "column": 7,
        "rule": "S108",
        "what": "system temp in a command: /tmp/x",
        "text": "touch /tmp/x",
        "advice": "use the tempfile module without dir, $TMPDIR, or a path below the workflow's directory",
    }
    (project / "a.sh").write_text("")
    assert found(capsys, ".") == []


def test_sarif(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "a b.py").write_text('x = "/tmp/x"\n')
    assert scan("--format", "sarif", ".") == 1
    log = json.loads(capsys.readouterr().out)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("/sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    assert run["tool"]["driver"]["name"] == "tmp-redirect"
    rules = run["tool"]["driver"]["rules"]
    (result,) = run["results"]
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == "S108"
    assert result["message"]["text"].startswith("hard-coded system-temp path: /tmp/x; ")
    assert result["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "a%20b.py"},
                "region": {"startLine": 1, "startColumn": 5},
            }
        }
    ]
    (project / "a b.py").write_text("")
    assert scan("--format", "sarif", ".") == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["results"] == []


def test_github_commands_are_escaped(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "a,b:c.sh").write_text("x=/tmp/100%\n")
    assert scan("--format", "github", ".") == 1
    assert capsys.readouterr().out.startswith(
        "::error file=a%2Cb%3Ac.sh,line=1,col=3,title=tmp-redirect S108::system temp in a command: /tmp/100%25: "
    )


def test_what_is_excluded(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("a.sh", "docs/a.sh", "lib/docs/b.sh", "build/c.sh", ".venv/d.sh", "node_modules/e.sh"):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_text("touch /tmp/x\n")

    def paths(*arguments: str) -> list[str]:
        return [str(finding["path"]) for finding in found(capsys, ".", *arguments)]

    assert paths() == ["a.sh", "build/c.sh", "docs/a.sh", "lib/docs/b.sh"]
    assert paths("--exclude", "docs") == ["a.sh", "build/c.sh"]
    assert paths("--exclude", "docs/*", "--exclude", "a.sh") == ["build/c.sh", "lib/docs/b.sh"]
    (project / "pyproject.toml").write_text('[tool.tmp-redirect.scan]\nexclude = ["lib/*", "build"]\n')
    assert paths() == ["a.sh", "docs/a.sh"]
    os.chdir(project / "lib")
    assert paths() == []


def test_what_git_ignores_is_left_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "init", "--quiet"], check=True)
    (project / ".gitignore").write_text("out\n")
    (project / "out").mkdir()
    (project / "out" / "a.sh").write_text("touch /tmp/x\n")
    assert found(capsys, ".") == []


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ("[tool", "can't be read"),
        ("[tool.tmp-redirect]\nscan = 1", "[tool.tmp-redirect.scan] is not a table"),
        ("[tool.tmp-redirect.scan]\nexclude = 'a'", "exclude is not a list of strings"),
        ("[tool.tmp-redirect.scan]\nexcludes = []", "has no 'excludes': only exclude"),
    ],
)
def test_a_bad_configuration_is_status_78(
    toml: str, complaint: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "pyproject.toml").write_text(toml)
    assert scan(".") == CONFIGURATION == 78
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"tmp-redirect scan: {project}/pyproject.toml")
    assert complaint in output.err


def test_the_users_settings_of_ruff_do_not_matter(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "ruff.toml").write_text('lint.ignore = ["S108"]\nexclude = ["*.py"]\n')
    monkeypatch.setenv("RUFF_OUTPUT_FORMAT", "concise")
    (project / "a.py").write_text('x = "/tmp/x"\n')
    assert len(found(capsys, ".")) == 1
    assert sorted(path.name for path in project.iterdir()) == ["a.py", "ruff.toml"]


def test_a_missing_ruff_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ruff.sysconfig, "get_path", lambda name: str(project))
    monkeypatch.setenv("PATH", str(project))
    assert scan(".") == USAGE
    assert capsys.readouterr().err == "tmp-redirect scan: ruff is needed and not installed: pip install ruff\n"


def test_a_failing_ruff_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "ruff").write_text("#!/bin/sh\necho broken >&2\nexit 2\n")
    (project / "ruff").chmod(0o755)
    monkeypatch.setattr(ruff.sysconfig, "get_path", lambda name: str(project))
    assert scan(".") == USAGE
    assert capsys.readouterr().err == "tmp-redirect scan: ruff failed with status 2: broken\n"


def test_a_missing_path_is_a_usage_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "a.sh").write_text("touch /tmp/x\n")
    assert scan(".", "missing") == USAGE
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "tmp-redirect scan: no such file or directory: missing\n")


def test_what_cannot_be_checked_is_told_and_never_fine(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "binary.sh").write_bytes(b"\x7fELF\0/tmp")
    (project / "loop.sh").symlink_to("loop.sh")
    (project / "nowhere.py").symlink_to("missing")
    (project / "template.py").write_text("x = {{ name }\n")
    (project / "up").symlink_to(project)
    os.mkfifo(project / "pipe.sh")
    assert scan(".") == USAGE
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "tmp-redirect scan: no places that would put files into system temp"
    assert [line.split(":")[2].strip() for line in said[1:]] == ["loop.sh", "nowhere.py", "binary.sh", "template.py"]
    assert all(line.startswith("tmp-redirect scan: not checked: ") for line in said[1:])
    (project / "a.sh").write_text("touch /tmp/x\n")
    assert scan(".") == FINDINGS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "gb18030", "utf-16"])
def test_shell_scripts_in_other_encodings(encoding: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    word = "é" if encoding == "latin-1" else "中"
    (project / "a.sh").write_bytes(f"echo {word}\ntouch /tmp/{word}\n".encode(encoding))
    (finding,) = found(capsys, ".")
    assert finding["line"] == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "gb18030"])
def test_python_in_other_encodings(encoding: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    word = "é" if encoding == "latin-1" else "中"
    cookie = "" if encoding == "utf-8-sig" else f"# -*- coding: {encoding} -*-"
    (project / "a.py").write_bytes(f'{cookie}\nx = "{word}", "/tmp/{word}"\n'.encode(encoding))
    (finding,) = found(capsys, ".")
    assert (finding["line"], finding["column"], finding["text"]) == (2, 10, f"/tmp/{word}")


def test_syntax_newer_than_the_interpreter_is_left_to_ruff(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "a.py").write_text('x = t"{y}"\nz = "/tmp/x"\n')
    (finding,) = found(capsys, ".")
    assert (finding["line"], finding["column"], finding["text"]) == (2, 5, "/tmp/x")
    (project / "a.py").write_text('x = t"{y}"\nz = "no tmp"\n')
    assert found(capsys, ".") == []


def test_python_that_is_in_no_encoding_is_not_fine(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "a.py").write_bytes(b'x = "/tmp/\xff"\n')
    assert scan(".") == USAGE
    assert "not checked: a.py: it can't be decoded: " in capsys.readouterr().err


def test_a_file_and_its_directory_are_scanned_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "a.sh").write_text("touch /tmp/x\n")
    assert len(found(capsys, ".", "a.sh", project)) == 1


def test_a_name_cannot_forge_lines(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "a\x1b.sh").write_text("touch /tmp/x\n")
    assert scan(".") == 1
    assert capsys.readouterr().out.startswith("a\\x1b.sh:1:7: ")


def test_the_reader_may_leave(project: Path) -> None:
    (project / "a.sh").write_text("touch /tmp/x\n" * 5000)
    checkout = str(Path(__file__).resolve().parents[1])
    pipe = subprocess.PIPE
    environ = {**os.environ, "PYTHONPATH": checkout}
    process = subprocess.Popen(
        [sys.executable, "-m", "services.common.tmp_redirect", "scan", "."], stdout=pipe, stderr=pipe, env=environ
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate()
    assert (process.returncode, err.count(b"Traceback")) == (FINDINGS, 0)
