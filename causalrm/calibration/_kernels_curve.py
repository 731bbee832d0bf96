"""Smooth calibration error, and the flexible calibration curve (loess)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.optimize import brentq

from causalrm.core.kernel import kernel

Floats = NDArray[np.float64]

NODES = 4096


# --- smooth ECE --------------------------------------------------------------------------------


@kernel
def _spread(y: Floats, p: Floats, w: Floats, m: int) -> tuple[Floats, float, float]:
    # Linear binning: each residual goes to the two nodes around its score. Two sets of sums,
    # taken in turn, keep neighbouring rows from waiting for each other.
    mass = np.zeros((2, m + 2))
    unit = w.shape[0] == 0
    total = 0.0
    blur = 0.0
    for i in range(p.shape[0]):
        x = p[i] * m
        j = int(x)
        f = x - j
        v = 1.0 if unit else w[i]
        r = v * (y[i] - p[i])
        mass[i & 1, j] += r * (1.0 - f)
        mass[i & 1, j + 1] += r * f
        total += v
        blur += v * f * (1.0 - f)
    return mass[0] + mass[1], total, blur


@dataclass(frozen=True)
class Spectrum:
    """Cosine coefficients of the residuals' measure, and the blur that the grid added."""

    coef: Floats  # (nodes + 1,), by total weight
    blur: float  # to be taken off sigma^2
    reach: Floats  # (pi k)^2 / 2


def _coefficients(mass: Floats) -> Floats:
    half = 0.5 * mass
    half[..., 0] = mass[..., 0]
    half[..., -1] = mass[..., -1]
    return np.asarray(dct(half, type=1, axis=-1))


def spectrum(y: Floats, p: Floats, w: Floats | None = None, nodes: int = NODES) -> Spectrum:
    """Residuals y - p on a grid, by linear binning, as a cosine series.

    Linear binning adds h^2 mean[f(1-f)] to the kernel's variance, h the grid's step and f the
    fractional position in it; `blur` keeps it.
    """
    mass, total, blur = _spread(y, p, np.empty(0) if w is None else w, nodes)
    coef = _coefficients(mass[: nodes + 1] / total)
    return Spectrum(coef, blur / total / nodes**2, (np.pi * np.arange(nodes + 1.0)) ** 2 / 2)


def node_spectrum(mass: Floats) -> Spectrum:
    """Spectrum of masses (..., nodes + 1) that lie on the nodes of an equal grid on [0, 1]."""
    reach = (np.pi * np.arange(float(mass.shape[-1]))) ** 2 / 2
    return Spectrum(_coefficients(mass), 0.0, reach)


def smoothed(s: Spectrum, sigma: float) -> Floats:
    """Residuals smoothed by the reflected Gaussian kernel, at the nodes (..., nodes + 1)."""
    damped = s.coef * np.exp(-s.reach * max(sigma * sigma - s.blur, 0.0))
    return np.asarray(dct(damped, type=1, axis=-1, overwrite_x=True))


def smooth_ece_at(s: Spectrum, sigma: float) -> float:
    """Integral of the absolute smoothed residual for one bandwidth."""
    f = np.abs(smoothed(s, sigma))
    return float((f.sum() - 0.5 * (f[0] + f[-1])) / (f.shape[0] - 1))


def smooth_ece(s: Spectrum) -> float:
    """Smooth ECE (Blasiok and Nakkiran 2023): the sigma with smECE_sigma = sigma."""
    if smooth_ece_at(s, 0.0) <= 0.0:
        return 0.0
    # smECE_sigma falls in sigma, so the crossing lies between any sigma and its image.
    first = 0.1
    image = smooth_ece_at(s, first)
    low, high = min(first, image), max(first, image)

    def excess(sigma: float) -> float:
        return smooth_ece_at(s, sigma) - sigma

    # Where smoothing changes nothing (all residuals of one sign) the image is the crossing, up
    # to rounding.
    if excess(image) * (1.0 if image > first else -1.0) >= 0.0:
        return image
    return float(brentq(excess, low, high, xtol=1e-13, rtol=1e-11))


# --- loess -------------------------------------------------------------------------------------


@kernel
def _loess(p: Floats, w: Floats, at: Floats, span: float, degree: int) -> Floats:
    n = p.shape[0]
    out = np.zeros((at.shape[0], n))
    target = span * w.sum() * (1.0 - 1e-12)
    phi = np.empty((3, n))
    kernel_weight = np.empty(n)
    for k in range(at.shape[0]):
        x = at[k]
        hi = np.searchsorted(p, x)
        lo = hi
        mass = 0.0
        reach = 0.0
        # Rows lo..hi-1 are in; take the nearer side until the span is filled.
        while mass < target and (lo > 0 or hi < n):
            left = x - p[lo - 1] if lo > 0 else np.inf
            right = p[hi] - x if hi < n else np.inf
            if left <= right:
                lo -= 1
                mass += w[lo]
                reach = left
            else:
                mass += w[hi]
                hi += 1
                reach = right
        for j in range(lo, hi):
            if reach > 0.0:
                u = abs(p[j] - x) / reach
                t = 1.0 - u * u * u
                kernel_weight[j] = w[j] * t * t * t
                phi[1, j] = (p[j] - x) / reach
            else:
                kernel_weight[j] = w[j]
                phi[1, j] = 0.0
            phi[0, j] = 1.0
        # Orthogonal polynomials in the local weights; a degree that the window cannot carry
        # has no length and is left out.
        at_zero = np.zeros(3)
        at_zero[0] = 1.0
        length0 = kernel_weight[lo:hi].sum()
        for j in range(lo, hi):
            out[k, j] = kernel_weight[j] / length0
        if degree == 0 or reach == 0.0:
            continue
        centre = (kernel_weight[lo:hi] * phi[1, lo:hi]).sum() / length0
        length1 = 0.0
        third = 0.0
        for j in range(lo, hi):
            u = phi[1, j] - centre
            phi[1, j] = u
            length1 += kernel_weight[j] * u * u
            third += kernel_weight[j] * u * u * u
        if length1 <= 1e-10 * length0:
            continue
        value1 = -centre
        for j in range(lo, hi):
            out[k, j] += kernel_weight[j] * phi[1, j] * value1 / length1
        if degree == 1:
            continue
        a, b = third / length1, length1 / length0
        length2 = 0.0
        for j in range(lo, hi):
            u = (phi[1, j] - a) * phi[1, j] - b
            phi[2, j] = u
            length2 += kernel_weight[j] * u * u
        if length2 <= 1e-10 * length1:
            continue
        value2 = (value1 - a) * value1 - b
        for j in range(lo, hi):
            out[k, j] += kernel_weight[j] * phi[2, j] * value2 / length2
    return out


def loess_matrix(p: Floats, w: Floats, at: Floats, span: float = 0.75, degree: int = 2) -> Floats:
    """Smoother matrix (len(at), K) of a local polynomial on increasing scores p with weights w.

    The loess of Austin and Steyerberg's calibration indices: tricube weights, local quadratic,
    the bandwidth at a point being its distance to the nearest scores that carry `span` of the
    weight. It is computed at the points themselves, without interpolation, needs no clipping
    of scores 0 and 1, and reproduces straight lines, so that it may be applied to residuals
    y - p in place of y.
    """
    return _loess(p, w, at, span, degree)


@dataclass(frozen=True)
class CurveErrors:
    """ICI, E50, E90 and Emax: mean, quantiles and maximum of abs(c(p) - p)."""

    ici: float
    e50: float
    e90: float
    emax: float


def curve_errors(gap: Floats, weight: Floats) -> CurveErrors:
    """Errors of a curve whose gap c(p) - p has the given weights."""
    size = np.abs(gap)
    order = np.argsort(size)
    total = np.cumsum(weight[order])
    at = np.searchsorted(total, np.array([0.5, 0.9]) * total[-1] * (1.0 - 1e-12))
    e50, e90 = size[order][at]
    ici = float((size * weight).sum() / total[-1])
    return CurveErrors(ici, float(e50), float(e90), float(size[weight > 0.0].max()))
