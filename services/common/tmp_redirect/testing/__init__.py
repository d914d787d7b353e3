"""Helpers for tests of code that the shim is used with."""
