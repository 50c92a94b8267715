"""Vectors in the reply: cut, scaled, and as JSON or base64."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

Rows = NDArray[np.float32]
"""Shape [n_rows, n_floats]: one row, or without pooling one a token."""

INT16 = 32760.0
"""The largest element with embd_normalize 0, as in llama.cpp."""


@dataclass(frozen=True, slots=True)
class VectorFormat:
    """The form in which a request wants its vectors."""

    norm: int  # -1 none, 0 largest element, 1 taxicab, 2 Euclidean, above the p-norm
    n_floats: int  # dimensions kept
    as_base64: bool = False

    def rows(self, data: bytes, n_floats: int) -> Rows:
        """The rows in `data`, each cut to its first dimensions and then scaled. A copy."""
        rows = np.frombuffer(data, "<f4").reshape(-1, n_floats)[:, : self.n_floats]
        return np.ascontiguousarray(rows if self.norm < 0 else rows * scales(rows, self.norm), np.float32)

    @staticmethod
    def are_finite(rows: Rows) -> bool:
        """Whether all are numbers that JSON has."""
        return bool(np.isfinite(rows).all())

    def dumps(self, row: Rows) -> bytes:
        """One row as JSON: numbers, or a string of little-endian float32 in base64."""
        if self.as_base64:
            return b'"' + base64.b64encode(row.astype("<f4", copy=False).tobytes()) + b'"'
        return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)


def scales(rows: Rows, norm: int) -> NDArray[np.float64]:
    """The factor of each row, shape [n_rows, 1]; 0 for a row of zeros.

    Powers are taken of parts of the largest element, or they would leave the range of floats.
    """
    sizes = np.abs(rows.astype(np.float64))
    largest = sizes.max(axis=1, keepdims=True)
    if norm == 0:
        totals = largest / INT16
    else:
        parts = np.divide(sizes, largest, out=np.zeros_like(sizes), where=largest > 0)
        totals = largest * np.power(np.power(parts, norm).sum(axis=1, keepdims=True), 1.0 / norm)
    found: NDArray[np.float64] = np.divide(1.0, totals, out=np.zeros_like(totals), where=totals > 0)
    return found
