"""How the scope reaches the code that a workflow starts elsewhere: one file a way."""
