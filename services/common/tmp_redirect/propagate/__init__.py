"""How the scope reaches the code that a workflow starts elsewhere: one file a way."""

from .environment import Environment

__all__ = ["Environment"]
