"""What a workflow id may be. It comes from the callers of an API, so it is untrusted."""

_LONGEST = 255  # bytes: NAME_MAX of the Linux file systems


def check(value: object) -> str:
    """The id, if it is one path component: not empty, no leading `.`, no `/`, no control characters, 255 bytes at most.

    Raises `InvalidWorkflowId`, which says what is wrong with it.
    """
    wrong = _what_is_wrong(value) if isinstance(value, str) else f"is no string but {type(value).__name__}"
    if wrong or not isinstance(value, str):
        from .errors import InvalidWorkflowId  # late: the start of a child checks its scope here

        shown = repr(value)
        raise InvalidWorkflowId(
            f"workflow id {shown if len(shown) <= 80 else shown[:77] + '...'} {wrong}: it must be one path component "
            f"that doesn't start with '.', without '/' and control characters, of 1 to {_LONGEST} bytes in UTF-8"
        )
    return value


def _what_is_wrong(value: str) -> str:
    if not value:
        return "is empty"
    if value.startswith("."):
        return "starts with '.'"
    if "/" in value:
        return "has a '/'"
    if not value.isprintable() and any(c < " " or "\x7f" <= c <= "\x9f" for c in value):
        return "has a control character"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "can't be encoded in UTF-8"
    return f"has {size} bytes" if size > _LONGEST else ""
