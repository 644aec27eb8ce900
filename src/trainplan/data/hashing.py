"""Random orders that are computed from (seed, stream, epoch), the same on every machine.

The 64-bit finaliser of splitmix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom
number generators") mixes the bits; sorting examples by the mix of their index permutes them.
NumPy's own generators may change between versions; these numbers may not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trainplan.schedules.values import count

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1
_STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def mix(z: int) -> int:
    """The finaliser on one number below 2^64; a bijection."""
    for shift, factor in _STEPS:
        z = ((z ^ (z >> shift)) * factor) & _WORD
    return z


def key(seed: int, stream: int = 0, epoch: int = 0) -> int:
    """A key for one use of a seed below 2^128; different uses have unrelated keys.

    >>> hex(key(7, stream=0, epoch=3))
    '0xde94e6fc14daf82d'
    """
    seed = count(seed, "seed", least=0)
    h = mix((seed + _GOLDEN) & _WORD)
    for value in (seed >> 64, stream, epoch):
        h = mix(h ^ mix((value + _GOLDEN) & _WORD))
    return mix((h + _GOLDEN) & _WORD)


def priorities(n: int, seed: int, stream: int = 0, epoch: int = 0) -> npt.NDArray[np.uint64]:
    """A number for each of ``n`` examples; sorting by it shuffles them.

    >>> np.argsort(priorities(10, seed=0), kind="stable")[:4].tolist()
    [5, 4, 9, 0]
    """
    # Sums and products wrap at 2^64, as they should.
    z = np.arange(n, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(key(seed, stream, epoch))
    for shift, factor in _STEPS:
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z
