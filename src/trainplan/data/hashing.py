"""Random numbers that are computed from (seed, stream, epoch), the same on every machine.

The 64-bit finaliser of splitmix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom
number generators") mixes the bits; sorting examples by the mix of their index permutes them.
NumPy's own generators may change between versions; these numbers may not.
"""

from __future__ import annotations

import hashlib
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from trainplan.errors import PlanError

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: its multiples spread evenly over the 64-bit numbers."""
_WORD = (1 << 64) - 1
_HALF = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_STEPS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def mix(z: int) -> int:
    """The finaliser on one number below 2^64; a bijection."""
    for shift, factor in _STEPS:
        z = ((z ^ (z >> shift)) * factor) & _WORD
    return z


def keys(number: int, seed: int, stream: int = 0, epoch: int = 0) -> tuple[int, ...]:
    """So many keys for one use of a seed below 2^128; different uses have unrelated keys.

    The lower and the upper 64 bits of a seed count alike, so that exchanging them changes nothing.

    >>> [hex(k) for k in keys(2, seed=7, epoch=3)]
    ['0xde94e6fc14daf82d', '0xdb8aa80ba1c86719']
    """
    seed = checked_seed(seed)
    h = mix((seed + GOLDEN) & _WORD)
    for value in (seed >> 64, stream, epoch):
        h = mix(h ^ mix((value + GOLDEN) & _WORD))
    return tuple(mix((h + (i + 1) * GOLDEN) & _WORD) for i in range(number))


def key(seed: int, stream: int = 0, epoch: int = 0) -> int:
    """The first of `keys`.

    >>> hex(key(7, stream=0, epoch=3))
    '0xde94e6fc14daf82d'
    """
    return keys(1, seed, stream, epoch)[0]


def fingerprint(array: npt.NDArray[Any]) -> int:
    """A number below 2^64 that depends on the numbers of an array, to tell batches apart.

    >>> fingerprint(np.arange(3)) == fingerprint(np.arange(3)), fingerprint(np.arange(2)) < 2**64
    (True, True)
    """
    data = np.ascontiguousarray(array).tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def stream_of(name: str) -> int:
    """The stream of a name, so that adding a domain never changes the order of another.

    >>> stream_of("web") == stream_of("web"), stream_of("web") == stream_of("code")
    (True, False)
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def priorities(n: int, seed: int, stream: int = 0, epoch: int = 0) -> npt.NDArray[np.uint64]:
    """A number for each of ``n`` examples; sorting by it shuffles them.

    >>> np.argsort(priorities(10, seed=0), kind="stable")[:4].tolist()
    [5, 4, 9, 0]
    """
    return hashed(np.arange(n, dtype=np.uint64), key(seed, stream, epoch))


def hashed(numbers: npt.NDArray[np.uint64], of_key: int) -> npt.NDArray[np.uint64]:
    """64 random bits for each number, under a key; the numbers are not changed."""
    # Sums and products wrap at 2^64, as they should.
    z = numbers * np.uint64(GOLDEN) + np.uint64(of_key)
    for shift, factor in _STEPS:
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    return z


def scaled(bits: npt.NDArray[np.uint64], n: int) -> npt.NDArray[np.int64]:
    """Random bits mapped onto 0..n-1: floor(bits n / 2^64), for n up to 2^48.

    >>> scaled(np.array([0, 2**63, 2**64 - 1], dtype=np.uint64), 10).tolist()
    [0, 5, 9]
    """
    size = np.uint64(n)
    # The upper half of the 128-bit product, from products of 32-bit halves of the bits.
    low = (bits & _HALF) * (size & _HALF)
    middle = (bits >> _32) * (size & _HALF) + (low >> _32)
    other = (bits & _HALF) * (size >> _32) + (middle & _HALF)
    high = (bits >> _32) * (size >> _32) + (middle >> _32) + (other >> _32)
    indices: npt.NDArray[np.int64] = high.astype(np.int64)
    return indices


def checked_seed(seed: Any) -> int:
    """A seed from 0 to 2^128 - 1, or an error."""
    whole = isinstance(seed, Integral) and not isinstance(seed, bool)
    if not whole or not 0 <= int(seed) < 1 << 128:
        raise PlanError(
            "a seed is a whole number from 0 to 2^128 - 1",
            place="seed",
            value=seed,
            remedy="Write seed=0",
        )
    return int(seed)
