"""The exceptions that users see. All can be pickled: they cross process pools and result back ends."""


class _Spoken(OSError):
    """Its text names the path already: result back ends keep only the arguments, and `filename` is none of them."""

    def __str__(self) -> str:
        return f"[Errno {self.errno}] {self.strerror}"


class TmpFallbackError(_Spoken, PermissionError):
    """Something would have been created in system temp; the text and `filename` say what, `errno` is `EACCES`.

    It is an `OSError` because careful code (importlib writing `.pyc` files, libraries that probe directories) already
    handles one. The violation is recorded before this is raised, so code that swallows it is still reported.
    """


class WorkspaceError(_Spoken):
    """A workspace can't be used; the text names the workflow, the path and the cause, `filename` is the path."""


class InvalidWorkflowId(ValueError):
    """A workflow id that can't be one path component."""


class KernelLayerError(RuntimeError):
    """The guard layer kernel can't be installed; the text says in one line why, and what to do."""


class SettingsError(ValueError):
    """An environment variable holds what it may not: the variable, its value and what is allowed."""

    def __init__(self, variable: str, value: str, allowed: str) -> None:
        super().__init__(variable, value, allowed)
        self.variable = variable
        self.value = value
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.variable}={self.value!r} is not allowed: {self.allowed}"
