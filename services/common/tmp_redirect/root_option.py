"""The option `--root`, and the settings with it."""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from .settings import Settings


def add_root(parser: ArgumentParser) -> None:
    """Add the option `--root` to `parser`."""
    parser.add_argument(
        "--root", type=_directory, metavar="DIR", help="the directory of the workflows (TMP_REDIRECT_ROOT)"
    )


def settings_for(options: Namespace) -> Settings:
    """The settings of the environment, with the root that the options name. Raises `SettingsError`."""
    return Settings(os.environ if options.root is None else {**os.environ, "TMP_REDIRECT_ROOT": as_given(options.root)})


def as_given(value: str | list[str]) -> str:
    """The value of an option: of `--option=--` argparse makes an empty list before Python 3.13."""
    return "--" if isinstance(value, list) else value


def _directory(value: str) -> str:
    if not value:  # as of a variable that is not set; the default would not be what was meant
        raise ArgumentTypeError("it is empty; give a directory, or leave the option out")
    return os.path.abspath(value)
