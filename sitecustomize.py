"""Start tmp_redirect with the interpreter, then run the sitecustomize that this file shadows.

The package is loaded from its path under its canonical name. Its parents are not imported: in the system that it is
laid over, `services/common/__init__.py` connects to Redis and may end the process, which no interpreter start may do.

`site` swallows whatever a sitecustomize raises and runs on unpatched with status 0. So a shim that can't start ends
the process itself with status 78 (EX_CONFIG of sysexits.h), or says so loudly where `TMP_REDIRECT=warn`.
Nothing is ever written to stdout, which belongs to the program.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = "services.common.tmp_redirect"


def start() -> None:
    """Install the shim if `TMP_REDIRECT` asks for it. The environment is read here too, so that off loads nothing."""
    if os.environ.get("TMP_REDIRECT", "") in ("", "off"):
        return
    try:
        load_package().startup.install(on_failure=fail)
    except BaseException as error:
        fail(error)


def load_package() -> "Any":
    """The package, from the cache or from its path; with its `startup` module, which says what happens next."""
    # The frozen importer is in every process; importlib.util would cost 0.3 to 4 ms of each interpreter start.
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import spec_from_file_location

    if PACKAGE not in sys.modules:
        names = PACKAGE.split(".")
        # A wheel has this file inside the package: at the top of site-packages it would be in everybody's way.
        inside = HERE.endswith(os.path.join(*names, "autoload"))
        directory = os.path.dirname(HERE) if inside else os.path.join(HERE, *names)
        spec: Any = spec_from_file_location(
            PACKAGE, os.path.join(directory, "__init__.py"), submodule_search_locations=[directory]
        )
        package = sys.modules[PACKAGE] = module_from_spec(spec)
        try:
            spec.loader.exec_module(package)
        except BaseException as error:
            del sys.modules[PACKAGE]
            if isinstance(error, FileNotFoundError):  # a volume is often mounted over what an image has
                remedy = "put services/common/tmp_redirect there, in a volume on top too, or set TMP_REDIRECT=off"
                raise FileNotFoundError(f"there is no {directory}: {remedy}") from None
            raise
    __import__(PACKAGE + ".startup", fromlist=["install"])
    return sys.modules[PACKAGE]


def fail(error: BaseException) -> None:
    """Say in one line on stderr why the shim is not at work; end the process unless the mode is `warn`.

    The doctor goes on in any mode: it says what to do.
    """
    goes_on = os.environ.get("TMP_REDIRECT") == "warn"
    try:
        goes_on = goes_on or is_doctor()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        outcome = "the process goes on WITHOUT it" if goes_on else "the process ends with status 78"
        sys.stderr.write(f"tmp_redirect: can't start, {outcome}: {reason}\n")
        sys.stderr.flush()
    finally:
        if not goes_on:
            os._exit(78)


def is_doctor() -> bool:
    """Whether this process is `tmp-redirect doctor`, by whatever command: `sys.argv` a program may have changed."""
    flags = "bBdEiIOPqRsSuvx"
    words = iter(getattr(sys, "orig_argv", [])[1:])
    word = next(words, "")
    while word[:2] in ("-W", "-X") or (word[:1] == "-" != word and not word[1:].strip(flags)):
        if word in ("-W", "-X"):
            next(words, "")  # its value
        word = next(words, "")
    if word[:1] == "-":
        is_ours = word[1:].strip(flags) == word[-1] == "m" and next(words, "") == PACKAGE
    else:
        path = os.path.realpath(word)
        tail = os.path.join("", *PACKAGE.split("."))
        is_ours = os.path.basename(word) == "tmp-redirect" or path.endswith((tail, os.path.join(tail, "__main__.py")))
    return is_ours and next(words, "") == "doctor"


def chain() -> None:
    """Run the next sitecustomize on the path in this one's place; its errors are its own, `site` reports them."""
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import PathFinder

    # What stands before this directory isn't shadowed by it; a launcher that stands there has chained to us.
    path = sys.path[sys.path.index(HERE) + 1 :] if HERE in sys.path else []
    spec = PathFinder.find_spec("sitecustomize", [entry for entry in path if entry != HERE])
    if spec is not None and spec.loader is not None:
        sys.modules["sitecustomize"] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


start()
if __name__ == "sitecustomize":
    chain()
