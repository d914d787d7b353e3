"""Libraries that keep a cache in the temp directory, or may: their cache must not be a new one in each workflow.

They would compile or download again in every run. Each has a variable that says where its cache is. It is set when the
library is about to be imported, since some read it only then, and is inherited by children.
"""

import os

from .errors import WorkspaceError
from .settings import current
from .stderr import say
from .workspace import prepare_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .patches import Patches

# The variables in which users tell a library where its cache is; the first is the one that is set here, unless the user
# has set any. docs/libraries.md says where they are documented.
VARIABLES = {
    "audio_separator": ("AUDIO_SEPARATOR_MODEL_DIR",),
    "fastembed": ("FASTEMBED_CACHE_PATH",),
    "joblib": ("JOBLIB_TEMP_FOLDER",),
    "matplotlib": ("MPLCONFIGDIR",),
    "numba": ("NUMBA_CACHE_DIR",),
    "tensorflow_hub": ("TFHUB_CACHE_DIR",),
    "tiktoken": ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"),
    "torch": ("TORCHINDUCTOR_CACHE_DIR",),
    "triton": ("TRITON_CACHE_DIR", "TRITON_HOME"),
}


def install(library: str, patches: "Patches") -> None:
    """Pin the cache of `library` to `<root>/.cache/<library>`; where that can't be had, say so and change nothing."""
    variables = VARIABLES[library]
    if any(map(os.environ.get, variables)):
        return
    variable = variables[0]
    try:
        directory = prepare_cache(current(), library)
    except WorkspaceError as error:
        reason = " ".join(str(error.strerror).split())
        say(f"{reason}; {variable} stays unset, and {library} may begin with an empty cache in each workflow")
        return
    before = os.environ.get(variable)
    os.environ[variable] = directory
    patches.on_undo(lambda: _put_back(variable, directory, before))


def _put_back(variable: str, ours: str, before: str | None) -> None:
    if os.environ.get(variable) != ours:
        return  # the program has set it since
    if before is None:
        del os.environ[variable]
    else:
        os.environ[variable] = before
