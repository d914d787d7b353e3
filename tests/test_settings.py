"""Every variable: what it may hold, what it becomes, and the one clear line where it holds something else."""

from __future__ import annotations

import pytest

from services.common.tmp_redirect.errors import InvalidWorkflowId, SettingsError
from services.common.tmp_redirect.settings import Settings
from services.common.tmp_redirect.workflow_id import check


def test_the_defaults() -> None:
    settings = Settings({})
    assert settings.mode == "off"
    assert settings.root == "/share/workflows"
    assert settings.guard == ("calls",)
    assert settings.allow == ()
    assert settings.service
    assert settings.outside == "service"
    assert settings.workflow_from == (
        ("kwargs", "context", "workflow_id"),
        ("args", "0", "workflow_id"),
        ("kwargs", "workflow_id"),
        ("header",),
        ("root_id",),
    )
    assert settings.keep == "failed"
    assert settings.ttl == 24 * 3600
    assert settings.dir_mode == 0o700
    assert settings.min_free == 0
    assert settings.socket_dir == "/dev/shm/tmp-redirect"
    assert settings.scope is None


GOOD = [
    ("TMP_REDIRECT", "warn", "mode", "warn"),
    ("TMP_REDIRECT_ROOT", "/data//x/../w/", "root", "/data/w"),
    ("TMP_REDIRECT_ROOT", "//data", "root", "/data"),
    ("TMP_REDIRECT_ROOT", "/tmp/below", "root", "/tmp/below"),
    ("TMP_REDIRECT_ALLOW", "/tmp/a:/var/tmp/b/:", "allow", ("/tmp/a", "/var/tmp/b")),
    ("TMP_REDIRECT_SERVICE", "paddleocr", "service", "paddleocr"),
    ("TMP_REDIRECT_OUTSIDE", "raise", "outside", "raise"),
    ("TMP_REDIRECT_WORKFLOW_FROM", "args.1.a.b, header", "workflow_from", (("args", "1", "a", "b"), ("header",))),
    ("TMP_REDIRECT_KEEP", "none", "keep", "none"),
    ("TMP_REDIRECT_TTL", "90", "ttl", 90),
    ("TMP_REDIRECT_TTL", "7d", "ttl", 7 * 86400),
    ("TMP_REDIRECT_DIR_MODE", "2770", "dir_mode", 0o2770),
    ("TMP_REDIRECT_MIN_FREE", "5G", "min_free", 5 * 2**30),
    ("TMP_REDIRECT_MIN_FREE", "1024", "min_free", 1024),
    ("TMP_REDIRECT_SCOPE", "wf-1", "scope", "wf-1"),
    ("TMP_REDIRECT_SCOPE", "", "scope", None),
]


@pytest.mark.parametrize(("variable", "value", "attribute", "expected"), GOOD)
def test_what_a_variable_becomes(variable: str, value: str, attribute: str, expected: object) -> None:
    assert getattr(Settings({variable: value}), attribute) == expected


BAD = [
    ("TMP_REDIRECT", "on"),
    ("TMP_REDIRECT", "OFF"),
    ("TMP_REDIRECT_ROOT", "relative"),
    ("TMP_REDIRECT_ROOT", "/"),
    ("TMP_REDIRECT_ROOT", "/tmp"),
    ("TMP_REDIRECT_ROOT", "/var/tmp/"),
    ("TMP_REDIRECT_GUARD", "all"),
    ("TMP_REDIRECT_GUARD", "calls,,"),
    ("TMP_REDIRECT_ALLOW", "tmp/x"),
    ("TMP_REDIRECT_ALLOW", "/tmp"),
    ("TMP_REDIRECT_ALLOW", "/tmp/x:/data"),
    ("TMP_REDIRECT_ALLOW", "/tmp/../etc"),
    ("TMP_REDIRECT_SERVICE", "a/b"),
    ("TMP_REDIRECT_SERVICE", ".."),
    ("TMP_REDIRECT_OUTSIDE", "allow"),
    ("TMP_REDIRECT_WORKFLOW_FROM", "args"),
    ("TMP_REDIRECT_WORKFLOW_FROM", "args.x"),
    ("TMP_REDIRECT_WORKFLOW_FROM", "kwargs."),
    ("TMP_REDIRECT_WORKFLOW_FROM", "header.x"),
    ("TMP_REDIRECT_WORKFLOW_FROM", "context.workflow_id"),
    ("TMP_REDIRECT_KEEP", "some"),
    ("TMP_REDIRECT_TTL", "1.5h"),
    ("TMP_REDIRECT_TTL", "-1"),
    ("TMP_REDIRECT_TTL", "h"),
    ("TMP_REDIRECT_DIR_MODE", "0899"),
    ("TMP_REDIRECT_DIR_MODE", "0600"),
    ("TMP_REDIRECT_DIR_MODE", "70000"),
    ("TMP_REDIRECT_DIR_MODE", "-700"),
    ("TMP_REDIRECT_MIN_FREE", "5GB"),
    ("TMP_REDIRECT_MIN_FREE", "\u0665"),
    ("TMP_REDIRECT_SOCKET_DIR", "here"),
    ("TMP_REDIRECT_SOCKET_DIR", "/var/tmp/sockets"),
    ("TMP_REDIRECT_SOCKET_DIR", "/dev/shm/" + 64 * "x"),
    ("TMP_REDIRECT_SCOPE", "../../etc"),
]


@pytest.mark.parametrize(("variable", "value"), BAD)
def test_a_bad_value_is_one_clear_line(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings({variable: value})
    assert str(caught.value).startswith(f"{variable}={value!r} is not allowed: ")
    assert "\n" not in str(caught.value)
    assert len(caught.value.allowed) > 5


GOOD_IDS = [
    "a",
    "wf-1",
    "1f0c8e9a-0000-4000-8000-000000000000",
    "工作流-视频",
    "a b",
    "a..b",
    "-rf",
    "é" * 127,
    "x" * 255,
]
BAD_IDS = [
    ("", "is empty"),
    (".", "starts with '.'"),
    ("..", "starts with '.'"),
    (".hidden", "starts with '.'"),
    ("../../etc", "starts with '.'"),
    ("a/b", "has a '/'"),
    ("/etc", "has a '/'"),
    ("a\0b", "has a control character"),
    ("a\nb", "has a control character"),
    ("a\x85b", "has a control character"),
    ("x" * 300, "has 300 bytes"),
    ("工" * 86, "has 258 bytes"),
    ("\ud800", "can't be encoded in UTF-8"),
    (None, "is no string but NoneType"),
    (b"wf", "is no string but bytes"),
]


@pytest.mark.parametrize("value", GOOD_IDS)
def test_a_good_workflow_id(value: str) -> None:
    assert check(value) == value


@pytest.mark.parametrize(("value", "reason"), BAD_IDS)
def test_a_bad_workflow_id(value: object, reason: str) -> None:
    with pytest.raises(InvalidWorkflowId) as caught:
        check(value)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()
