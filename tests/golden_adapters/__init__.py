"""One module per paper: its functions, in words, as calls of the library."""

LATER: dict[str, tuple[str, ...]] = {}
"""Functions whose rooms are not built yet: what their descriptions begin with, by paper."""
