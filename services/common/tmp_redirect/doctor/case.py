"""What is looked at: an environment, the settings in it, and the interpreter that it makes."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import SettingsError
from ..settings import Settings
from .finding import WEIGHTS, Finding
from .interpreter import Answer, Facts, ask


@dataclass(frozen=True)
class Case:
    """`errors` are those of the settings, which are then read without what they are about.

    `facts` are those of an interpreter with the shim off where none with it could tell any; see `interpreter.Facts`.
    """

    environ: dict[str, str]
    settings: Settings
    errors: list[SettingsError]
    answer: Answer
    facts: Facts | None
    image: bool

    @property
    def is_off(self) -> bool:
        """Whether the environment switches the shim off; a mode that there isn't does not."""
        return self.environ.get("TMP_REDIRECT", "") in ("", "off")

    @property
    def fatal(self) -> str:
        """The weight of what keeps the shim from starting: in `warn` the process goes on."""
        return "problem" if self.settings.mode == "warn" else "stops"

    def weighed(self, finding: Finding) -> Finding:
        """The finding as it weighs here: nothing is wrong with a shim that is off and meant to be."""
        if self.is_off and not self.image and WEIGHTS.index(finding.weight) > WEIGHTS.index("note"):
            return finding._replace(weight="note")
        return finding


def case_of(environ: dict[str, str], *, image: bool) -> Case:
    """Read the environment and start interpreters with it.

    Where it is that of an image, the layer kernel is left out for them: the kernel here isn't the one there.
    """
    settings, errors = _read(environ)
    tried = dict(environ)
    if image and "kernel" in settings.guard:
        tried["TMP_REDIRECT_GUARD"] = ",".join(layer for layer in settings.guard if layer != "kernel")
    answer = ask(tried)
    facts = answer.facts
    if facts is None and answer.status is not None:
        facts = ask({**environ, "TMP_REDIRECT": "off"}).facts
    return Case(environ, settings, errors, answer, facts, image)


def _read(environ: dict[str, str]) -> tuple[Settings, list[SettingsError]]:
    environ = dict(environ)
    errors: list[SettingsError] = []
    while True:
        try:
            return Settings(environ), errors
        except SettingsError as error:
            errors.append(error)
            del environ[error.variable]
