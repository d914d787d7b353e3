"""A small video platform whose tasks make temp files the way ordinary code does: with the standard `tempfile`.

Nothing in here knows of the redirection. Every place that makes a temp file logs it as
`temp file of <call site> for <workflow>: <path>`, so that a reader of the logs can tell whose it is.
"""
