"""Distances between two sets of features, (N, d) each, with a weight for every row (how often it counts).

Fréchet distance: Heusel et al. 2017, arXiv 1706.08500, equation 6. Kernel distance: Bińkowski et al. 2018, arXiv 1801.01401.
ArtFID: Wright and Ommer 2022, arXiv 2207.12280.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stylebatch.words import counted

Floats = NDArray[np.float64]
_ROWS_AT_ONCE = 2048


def frechet_distance(first: Floats, second: Floats, w1: Floats, w2: Floats) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), 0 or more; covariances are unbiased (divided by the sum of weights less 1).

    With S = A^T A the trace of the root is the sum of the singular values of A1 A2^T: exact also for fewer rows than d, where
    S1 S2 is singular and a matrix root is not. Raises ValueError for fewer than 2 rows.
    """
    mean1, root1 = _moments(first, w1)
    mean2, root2 = _moments(second, w2)
    shared = np.linalg.svd(root1 @ root2.T, compute_uv=False).sum()
    traces = (root1**2).sum() + (root2**2).sum()
    # rounding may leave a small negative number for equal sets
    return max(0.0, float(((mean1 - mean2) ** 2).sum() + traces - 2.0 * shared))


def _moments(features: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Mean (d,), and A with A^T A the covariance, of at most d rows."""
    used = weights > 0
    rows, counts = features[used].astype(np.float64), weights[used]
    total = counts.sum()
    if len(rows) < 2 or total <= 1:
        raise ValueError(
            f"found {counted(len(rows), 'picture')}; accepted: 2 or more, to have a covariance"
        )
    mean = counts @ rows / total
    root = np.sqrt(counts / (total - 1.0))[:, None] * (rows - mean)
    if len(root) > root.shape[1]:
        root = np.asarray(np.linalg.qr(root, mode="r"))
    return mean, root


def kernel_distance(first: Floats, second: Floats, w1: Floats, w2: Floats) -> float:
    """Squared maximum mean discrepancy, unbiased (it may be below 0), for the kernel (x . y / d + 1)^3.

    The published KID is its mean over random subsets; this is the mean over all of them. A row is never compared with itself, so
    that rows may count several times. Raises ValueError for fewer than 2 rows.
    """
    within = _kernel_sum(first, first, w1, w1, apart=True) + _kernel_sum(
        second, second, w2, w2, apart=True
    )
    return within - 2.0 * _kernel_sum(first, second, w1, w2, apart=False)


def _kernel_sum(first: Floats, second: Floats, w1: Floats, w2: Floats, *, apart: bool) -> float:
    """Mean of the kernel over pairs of rows; `apart`: without those of a row with itself."""
    total, pairs = 0.0, float(w1.sum() * w2.sum())
    for start in range(0, len(first), _ROWS_AT_ONCE):
        end = start + _ROWS_AT_ONCE
        kernel = (first[start:end] @ second.T / first.shape[1] + 1.0) ** 3
        total += float(w1[start:end] @ kernel @ w2)
    if apart:
        own = ((first**2).sum(1) / first.shape[1] + 1.0) ** 3
        total -= float((w1 * w2) @ own)
        pairs -= float(w1 @ w2)
    if pairs <= 0:
        raise ValueError(f"found {counted(len(first), 'picture')}; accepted: 2 or more")
    return total / pairs


def art_fid(content_distance: float, style_distance: float) -> float:
    """(1 + content distance) (1 + style distance); 1 is best."""
    return (1.0 + content_distance) * (1.0 + style_distance)


def set_consistency(features: Floats, sets: NDArray[np.int64], weights: Floats) -> float:
    """Mean cosine of pairs of rows of one set, averaged over sets with two rows or more; -1 to 1.

    Hertz et al. 2024, arXiv 2312.02133, section 4. A row that counts several times is not compared with itself. Raises ValueError
    where no set has two rows.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    found = []
    for number in np.unique(sets):
        rows, counts = unit[sets == number], weights[sets == number]
        pairs = counts.sum() ** 2 - (counts**2).sum()
        if pairs > 0:
            mean = counts @ rows
            # of unit rows; the cosine of a row with itself is 1
            found.append(float(mean @ mean - (counts**2 * (rows**2).sum(1)).sum()) / pairs)
    if not found:
        raise ValueError("found no set of two pictures; accepted: sets of two or more")
    return float(np.mean(found))
