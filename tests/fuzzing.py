"""How much the fuzz tests try: a little that is the same each time, or very much, other things each time.

`SOAK=new` tries a hundred times as much, and prints the seed, with which `SOAK=<seed>` repeats it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

SOAK = os.environ.get("SOAK", "")  # as in test_trees
SEED = secrets.randbits(32) if SOAK == "new" else int(SOAK or 0)
MORE = 100
if SOAK == "new":
    print(f"SOAK={SEED}")

Test = Callable[..., None]


def fuzz(examples: int = 100) -> Callable[[Test], Test]:
    """Decorates a `given` test, which tries this number of examples in a normal run."""
    settings = hypothesis.settings(
        max_examples=examples * MORE if SOAK else examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    return lambda test: hypothesis.seed(SEED)(settings(test))


# What is mistaken for something else: in paths, in text, in names of ours.
TRICKY = [
    *("", ".", "..", "...", "/", "//", "../..", "./x", "x/..", "a/b", "~", "-", "--", "-rf", "$HOME", "%s", "{}", "*"),
    *("tmp", ".trash", ".outside", ".leases", ".cache", "over", "lease~", "purge~x", "pending~=zz=", "clock~", "nul"),
    *("\0", "a\0b", "\n", "a\nb", "a\r", "\t", " ", "a ", " a", "a.", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e"),
    *("\ud800", "\udcff", "a\udce4", "é", "e\u0301", "É", "ﬁ", "K", "İ", "ß", "\u200b", "\ufeff", "工作流", "🎬"),
    *("x" * 255, "x" * 256, "é" * 127, "é" * 128, "工" * 85 + "x", "x" * 5000, "0", "-1", "1e9", "٣", "9" * 5000),
]
ANY_TEXT = st.text(st.characters(), max_size=300)  # lone surrogates included
TRICKY_TEXT = st.sampled_from(TRICKY) | ANY_TEXT | st.lists(st.sampled_from(TRICKY), max_size=4).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TRICKY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TRICKY) | st.text(), inner, max_size=3),
    max_leaves=8,
)
