"""From the rows and constraints of a Heckman model to its posterior."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from causalrm.core.column import look_at, refuse
from causalrm.core.design import Design
from causalrm.core.errors import DataError, IdentificationWarning, warn
from causalrm.core.frame import Source
from causalrm.risk.constraints import Expertise, Prevalence
from causalrm.risk.heckman_problem import HeckmanLikelihood, HeckmanProblem
from causalrm.risk.rows import Scaling


class HeckmanSample(NamedTuple):
    """The rows of a fit."""

    source: Source
    likelihood: HeckmanLikelihood
    designs: dict[str, Design]
    x: np.ndarray  # (n, p), outcome
    w: np.ndarray  # (n, q), selection
    y: np.ndarray  # NaN where not selected
    selected: np.ndarray
    weights: np.ndarray  # of mean one


class KnownMean(NamedTuple):
    """A known mean of the outcome: a row of weights on the outcome's coefficients."""

    label: str
    row: np.ndarray
    value: float
    se: float
    hard: bool


def known_means(
    sample: HeckmanSample, prevalences: tuple[Prevalence, ...], log: list[str]
) -> list[KnownMean]:
    """Check known means of the outcome against the rows."""
    out = []
    sd = float(np.nanstd(sample.y))
    for item in prevalences:
        if item.beta is not None:
            raise DataError(
                "Expected the mean of a continuous outcome as value (with se=), but saw a Beta, "
                "which is a density on (0, 1). Give Prevalence(value, se=...)."
            )
        w = sample.weights
        if item.weights is not None:
            w = sample.likelihood.rows.columns[item.weights].astype(float)
        for target in item.targets():
            inside = np.ones(len(w), dtype=bool)
            if target.level is not None:
                inside = _level(sample.source, item.by or "", target.level)
            if not (w * inside).sum() > 0:
                raise DataError(
                    f"Expected rows with {item.by!r} equal to {target.level!r} for a known mean, "
                    "but there are none. Correct the level."
                )
            total = w * inside
            least = sd / math.sqrt(total.sum() ** 2 / float(total @ total))
            se = least if target.se is None else target.se
            if se < 0.999 * least and not item.hard:
                warn(
                    f"The standard error {se:.3g} of the known mean is below {least:.3g}, the "
                    "sampling error of the mean of as many rows: the constraint says more than "
                    "even a known population mean would. Give at least that.",
                    IdentificationWarning, log,
                )  # fmt: skip
            label = "" if target.level is None else f", {item.by} = {target.level}"
            row = np.average(sample.x, axis=0, weights=total)
            out.append(
                KnownMean(label, row, float(target.value), 0.0 if item.hard else se, item.hard)
            )
    return out


def _level(source: Source, name: str, level: Any) -> np.ndarray:
    """Which rows have a level of a column."""
    source.want([name], "a known mean by group")
    look = look_at(name, source.frame[name], ["categories"])
    refuse(name, look, False, source.index)
    return np.asarray(look.codes([level]) == 0)


def posterior_of(
    sample: HeckmanSample,
    priors: dict[str, float],
    known: list[KnownMean],
    expertise: Expertise | None,
    sign: int,
) -> HeckmanProblem:
    """Priors and constraints as rows of one quadratic form, and the coordinates that are left."""
    p, q = sample.x.shape[1], sample.w.shape[1]
    k = p + q + 2
    sd, centre = float(np.nanstd(sample.y)), float(np.nanmean(sample.y))
    masked, through = _through(sample, expertise)
    tight = None if expertise is None else expertise.soft
    rows, centers, sds = [], [], []

    def add(row: np.ndarray, first: int, center: float, spread: float) -> None:
        rows.append(np.zeros(k))
        rows[-1][first : first + len(row)] = row
        centers.append(center)
        sds.append(spread)

    for x, first, unit, prior, middle, limited in (
        (sample.x, 0, sd, priors["outcome"], centre, np.zeros(p, dtype=bool)),
        (sample.w, p, 1.0, priors["selection"], 0.0, masked),
    ):
        scaling = Scaling.of(x, sample.weights)
        shift = np.where(limited, 0.0, scaling.shift)
        shift[0] = 1.0
        add(shift, first, middle, unit * prior)
        for j in range(1, x.shape[1]):
            if limited[j] and tight is None:
                continue  # exactly 0
            spread = tight if limited[j] and tight is not None else prior
            add(np.ones(1), first + j, 0.0, unit * spread / scaling.scale[j])
    basis, base = np.eye(k), np.zeros(k)
    kept = np.ones(k, dtype=bool)
    if tight is None:
        kept[p:-2] = ~masked
    for item in known:
        if item.hard:  # the intercept follows from the other coefficients
            base[0] = item.value
            basis[0, :p] = -item.row
            kept[0] = False
        else:
            add(item.row, 0, item.value, item.se)
    return HeckmanProblem(
        sample.likelihood, through, base, basis[:, kept], np.array(rows), np.array(centers),
        np.array(sds), priors["sigma"] * sd, priors["covariance"] * sd, sign,
    )  # fmt: skip


def _through(sample: HeckmanSample, expertise: Expertise | None) -> tuple[np.ndarray, np.ndarray]:
    """Which selection columns are not free, and the outcome column that each goes through."""
    outcome, selection = (sample.designs[role] for role in ("outcome", "selection"))
    out = np.zeros((len(selection), len(outcome)))
    if expertise is None:
        return np.zeros(len(selection), dtype=bool), out
    masked = expertise.masked(selection)
    free = [t for t, m in zip(selection.terms, masked, strict=True) if not m]
    alone = [
        t for t, m in zip(selection.terms, masked, strict=True) if m and t not in outcome.terms
    ]
    absent = [t for t in outcome.terms if t not in selection.terms]
    if alone or absent:
        raise DataError(
            "Expected every term that is not free under Expertise to stand in both formulas, "
            f"because it moves selection through the outcome; but {alone + absent} "
            f"stand{'s' if len(alone + absent) == 1 else ''} in one only (free are {free}). Add "
            "terms to the other formula, or name them as free."
        )
    for j in np.flatnonzero(masked):
        out[j, outcome.terms.index(selection.terms[j])] = 1.0
    return masked, out


def starting_point(problem: HeckmanProblem, theta: np.ndarray) -> np.ndarray:
    """Starting coordinates of the right sign of rho."""
    theta = theta.copy()
    if problem.sign and np.sign(theta[-1]) != problem.sign:
        theta[-1] = 0.25 * problem.sign
    return problem.project(theta)
