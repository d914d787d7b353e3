"""The ten images, built from the patched stand-ins without Docker, and what then runs in them; images.py says how."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples.servers import Servers
from tests.base_images import APPUSER
from tests.conftest import lay_over
from tests.dockerfiles import DEBIAN, LAYOUTS, parse, patched_tree
from tests.images import Builder, BuildError, Image, needs_namespaces
from tests.test_docs import READMES, blocks

PACKAGE = "app/services/common/tmp_redirect"


@pytest.fixture(scope="module")
def image_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Image]:
    """Builds the image of a Dockerfile, once; nothing may change it."""
    needs_namespaces()
    context = tmp_path_factory.mktemp("context")
    lay_over(context)
    builder = Builder(tmp_path_factory.mktemp("images"), context)
    tree = patched_tree(tmp_path_factory.mktemp("patched"))
    images: dict[str, Image] = {}

    def build(dockerfile: str) -> Image:
        if dockerfile not in images:
            name = Path(dockerfile).parent.name
            debian = LAYOUTS[dockerfile].interpreter is DEBIAN
            images[dockerfile] = builder.build(name, parse((tree / dockerfile).read_bytes()), externally_managed=debian)
        return images[dockerfile]

    return build


@pytest.mark.parametrize("dockerfile", LAYOUTS)
def test_it_is_built(dockerfile: str, image_of: Callable[[str], Image]) -> None:
    image = image_of(dockerfile)
    python = LAYOUTS[dockerfile].interpreter.python
    done = image.run(python, "-c", "import wrapt; print(wrapt.__file__)", env={"TMP_REDIRECT": "off"})
    assert done.returncode == 0, done.stderr
    assert ("/opt/venv/" in done.stdout) == python.startswith("/opt/venv/")
    assert os.listdir(image.path("tmp")) == [], "the build steps were not affected, and left nothing"


def test_what_the_readme_says_is_built(tmp_path: Path) -> None:
    needs_namespaces()
    (steps,) = blocks(READMES[0], "dockerfile")
    for readme in READMES[1:]:
        assert list(blocks(readme, "dockerfile")) == [steps]
    context = tmp_path / "context"
    lay_over(context)
    image = Builder(tmp_path, context).build(
        "readme", parse(b"FROM base\nRUN dependencies\n" + steps.encode()), externally_managed=False
    )
    done = image.run("python", "-c", "import sys; print('services.common.tmp_redirect.startup' in sys.modules)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


@pytest.fixture
def broken(image_of: Callable[[str], Image], tmp_path: Path) -> Image:
    """A copy of an image, to be damaged."""
    image = image_of("services/workers/paddleocr_service/Dockerfile")
    root = tmp_path / "root"
    subprocess.run(["cp", "--archive", image.root, root], check=True)
    shutil.rmtree(root / PACKAGE / "__pycache__", ignore_errors=True)  # which doctor has made
    return Image(root, image.binds, dict(image.env), image.user, image.workdir)


def without_wrapt(image: Image) -> None:
    for path in image.path("opt/venv").glob("lib/python3*/site-packages/wrapt*"):
        shutil.rmtree(path)


def without_package(image: Image) -> None:
    shutil.rmtree(image.path(PACKAGE))


def without_sitecustomize(image: Image) -> None:
    image.path("app/sitecustomize.py").unlink()


def unreadable_package(image: Image) -> None:
    for path in image.path(PACKAGE).rglob("*.py"):
        os.chown(path, 0, 0)
        path.chmod(0o600)  # as a checkout with umask 077 is


def unreadable_sitecustomize(image: Image) -> None:
    os.chown(image.path("app/sitecustomize.py"), 0, 0)
    image.path("app/sitecustomize.py").chmod(0o600)


def other_path(image: Image) -> None:
    image.env["PYTHONPATH"] = "/elsewhere"


def shadowed(image: Image) -> None:
    image.path("first").mkdir()
    image.path("first/sitecustomize.py").touch()
    image.env["PYTHONPATH"] = "/first:/app"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_wrapt, "wrapt"),
        (without_package, f"/{PACKAGE}"),
        (without_sitecustomize, "sitecustomize.py"),
        (unreadable_package, f"/{PACKAGE}"),
        (unreadable_sitecustomize, "sitecustomize"),
        (other_path, "PYTHONPATH"),
        (shadowed, "/first/sitecustomize.py"),
    ],
)
def test_a_broken_image_is_not_built(damage: Callable[[Image], None], said: str, broken: Image) -> None:
    script = LAYOUTS["services/workers/paddleocr_service/Dockerfile"].interpreter.doctor
    damage(broken)
    with pytest.raises(BuildError, match=r"doctor --image: status [1-9]") as caught:
        broken.build_step(script)
    assert said in str(caught.value)


def test_debian_needs_its_option(image_of: Callable[[str], Image]) -> None:
    built = image_of("services/workers/ffmpeg_service/Dockerfile")
    base = Image(built.root, built.binds)
    with pytest.raises(BuildError, match="externally-managed"):
        base.build_step(DEBIAN.install.replace(DEBIAN.options, ""))


@pytest.fixture
def volumes(tmp_path: Path, helpers: Path) -> dict[Path, str]:
    """What is mounted in a container: the shared volume, the service's code, and a /tmp to look at."""
    targets = {tmp_path / "share": "/share", helpers: "/app/service", tmp_path / "system-temp": "/tmp"}
    (tmp_path / "share" / "workflows").mkdir(parents=True)
    os.chown(tmp_path / "share" / "workflows", APPUSER, APPUSER)
    (tmp_path / "system-temp").mkdir()
    (tmp_path / "system-temp").chmod(0o1777)
    return targets


@pytest.fixture
def services(tmp_path: Path) -> Path:
    """The target's `services` with the shim laid over it; no process may import what is beside it."""
    lay_over(tmp_path)
    (tmp_path / "services" / "common" / "__init__.py").write_text("raise SystemExit('it connects to Redis')")
    return tmp_path / "services"


@pytest.mark.promise
@pytest.mark.parametrize(
    ("name", "mounted"),
    [("wservice", False), ("ffmpeg_service", True), ("paddleocr_service", False), ("pyannote_audio_service", True)],
)
def test_a_worker_in_it(
    name: str,
    mounted: bool,
    image_of: Callable[[str], Image],
    volumes: dict[Path, str],
    services: Path,
    servers: Servers,
    broker: str,
    call: Callable[..., Any],
    tmp_path: Path,
    mode: str,
) -> None:
    """As an unprivileged user; `mounted` hides the image's copy of the shim, as the target's compose file does."""
    image = image_of(f"services/workers/{name}/Dockerfile")
    env = {"BROKER": f"{broker}/0", "BACKEND": f"{broker}/1", "TMP_REDIRECT_KEEP": "all"}
    if mode == "off":
        env["TMP_REDIRECT"] = mode  # else the image's own
    if mounted:
        volumes[services] = "/app/services"
    options = ["--pool", "prefork", "--concurrency", "1", "--loglevel", "INFO", "--hostname", "worker@localhost"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    celery = ["celery", "-A", "worker_app", "worker", *options, *quiet]
    command = image.command(*celery, user=APPUSER, workdir="/app/service", volumes=volumes, env=env)
    with servers.process("worker", command) as worker:
        servers.wait_ready(worker, lambda: "worker@localhost ready." in worker.log.read_text(errors="replace"))
        context = call("probe", "wf-1")
    assert {os.path.dirname(path) for path in context["paths"]} == {
        "/share/workflows/wf-1/tmp",
        "/share/workflows/wf-1",  # of the temp directory itself
    }
    left = list((tmp_path / "share/workflows/wf-1/tmp").iterdir())
    assert len([path for path in left if path.name.startswith("probe-wf-1-")]) == 2 * 5  # the task's and its child's
    assert {path.stat().st_uid for path in left} == {APPUSER}
    assert os.listdir(tmp_path / "system-temp") == []


def test_a_mounted_tree_without_the_package(image_of: Callable[[str], Image], tmp_path: Path) -> None:
    """No process starts, and it says why in one line."""
    image = image_of("services/workers/paddleocr_service/Dockerfile")
    (tmp_path / "services").mkdir()
    done = image.run("python", "-c", "print('started')", volumes={tmp_path / "services": "/app/services"})
    assert (done.returncode, done.stdout) == (78, "")
    assert len(done.stderr.splitlines()) == 1
    assert f"there is no /{PACKAGE}: put services/common/tmp_redirect there, in a volume on top too" in done.stderr
