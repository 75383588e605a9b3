"""Random numbers that depend on seed, stream and key alone: no state, so the same rows however the data is partitioned.

Rows, users and ads draw as Spark columns (xxhash64); the few levels that effects hang on draw in the driver (blake2b), as numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column
from pyspark.sql import functions as F

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Draws:
    """One stream of draws a name. Keys of columns are whole numbers: a user, an ad, a row."""

    seed: int

    def uniform(self, stream: str, *key: Column) -> Column:
        """In (0, 1), never an end: 52 bits of a hash, in the middle of their cell."""
        bits = F.shiftrightunsigned(self.hashed(stream, *key), 12)
        return (bits.cast("double") + 0.5) * 2.0**-52

    def hashed(self, stream: str, *key: Column) -> Column:
        return F.xxhash64(F.lit(f"{self.seed}/{stream}"), *(part.cast("long") for part in key))

    def normal(self, stream: str, *key: Column) -> Column:
        """Standard normal, by Box and Muller."""
        radius = F.sqrt(F.log(self.uniform(f"{stream}/radius", *key)) * -2.0)
        return radius * F.cos(self.uniform(f"{stream}/angle", *key) * (2 * math.pi))

    def pick(self, stream: str, n: int, *key: Column) -> Column:
        """A whole number in [0, n), each as likely as another."""
        return F.floor(self.uniform(stream, *key) * n)

    def zipf(self, stream: str, n: int, exponent: float, *key: Column) -> Column:
        """A rank in [0, n) with probability about (rank + 1) ** -exponent, 0 < exponent < 1.

        Closed form, no table: the inverse distribution of the density x ** -exponent on [1, n + 1), rounded down.
        """
        power = 1.0 - exponent
        x = F.pow(self.uniform(stream, *key) * ((n + 1) ** power - 1.0) + 1.0, F.lit(1.0 / power))
        return F.least(F.floor(x) - 1, F.lit(n - 1).cast("long"))

    def uniforms(self, stream: str, *shape: int) -> Floats:
        """[*shape] in (0, 1); an entry depends on its index, not on the shape."""
        return np.array([self._unit(stream, index) for index in np.ndindex(*shape)]).reshape(shape)

    def normals(self, stream: str, *shape: int) -> Floats:
        """[*shape], standard normal."""
        standard = NormalDist()
        return np.array([standard.inv_cdf(self._unit(stream, index)) for index in np.ndindex(*shape)]).reshape(shape)

    def _unit(self, stream: str, index: tuple[int, ...]) -> float:
        digest = blake2b(f"{self.seed}/{stream}/{index}".encode(), digest_size=8).digest()
        return ((int.from_bytes(digest, "big") >> 12) + 0.5) * 2.0**-52


def zipf_share(rank: Column, n: int, exponent: float) -> Column:
    """The probability of `rank` under Draws.zipf."""
    power = 1.0 - exponent
    return (F.pow(rank + 2, F.lit(power)) - F.pow(rank + 1, F.lit(power))) / ((n + 1) ** power - 1.0)


def entry(values: Sequence[str | int | float] | Floats | Ints, index: Column) -> Column:
    """`values[index]`, from one literal array (numbers as one literal, not as a tree of hundreds, which the optimizer would walk)."""
    array = np.asarray(values)
    return F.get(F.lit(list(values)) if array.dtype.kind == "U" else F.lit(array), index.cast("int"))
