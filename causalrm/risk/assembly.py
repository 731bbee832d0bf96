"""From draws to a result: implied prevalence, checks, the fan and what all of it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from causalrm.core.frame import Source
from causalrm.risk import sensitivity
from causalrm.risk.checks import REPLICATES, ROWS, assumptions, by_decile, testing_curve
from causalrm.risk.constraints import Expertise, Prevalence
from causalrm.risk.fitting import (
    Posterior,
    Setup,
    implied_by_draw,
    levels_of,
    prevalence_frame,
    shape_of,
)
from causalrm.risk.predict import Draws, NewRows
from causalrm.risk.result import RiskResult
from causalrm.risk.rows import Roles, Sample


def assemble(
    call: Mapping[str, Any],
    sample: Sample,
    source: Source,
    roles: Roles,
    own: Setup,
    found: Posterior,
    prevalences: Sequence[Prevalence],
    expertise: Expertise | None,
    wanted: bool | None,
    labels: tuple[np.ndarray, Sequence[Any]] | None,
    entropy: int,
    streams: Sequence[np.random.Generator],
    log: Sequence[str],
) -> RiskResult:
    """Put a result together; `wanted` is the option `fan`, `labels` codes and levels of groups."""
    implied = implied_by_draw(own, found.draws)
    prevalence = prevalence_frame(own, implied, found.weights)
    t = sample.tested
    tested_mean = float(np.average(sample.y[t], weights=sample.weights[t]))
    diagnostics = found.diagnostics | shape_of(own, found.draws, found.weights)
    overall = float(np.average(implied[:, 0], weights=found.weights))
    diagnostics |= {
        "tested_prevalence": tested_mean,
        "implied_prevalence": overall,
        "implied_minus_tested": overall - tested_mean,
        "distinct_rows": len(own.problem.X),
    }
    names = own.problem.labels()
    plain = RiskResult(
        call=call, n_obs=len(sample.tested), entropy=entropy,
        parameter=tuple(p for p, _ in names), term=tuple(t for _, t in names),
        draws=found.draws, weights=found.weights, ess_bulk=found.ess_bulk,
        r_hat=found.r_hat, method=found.method, free=own.free,
        designs={"risk": sample.risk.to_dict(), "testing": sample.testing.to_dict()},
        unobservable=own.problem.unobservable, alpha=own.problem.alpha, deciders=own.deciders,
        counts={
            "rows": len(sample.tested), "tested": int(sample.tested.sum()),
            "positive": int(np.nansum(sample.y)),
        },
        prevalence=prevalence, implied=implied, diagnostics=diagnostics,
    )  # fmt: skip
    pick = np.arange(len(sample.tested))
    if len(pick) > ROWS:
        pick = np.sort(streams[0].choice(len(pick), ROWS, replace=False))
    decided = None if roles.decider is None else levels_of(source, roles.decider, "")[0]
    rows = NewRows(
        sample.x[pick], sample.w[pick][:, own.free],
        None if decided is None else decided[pick],
    )  # fmt: skip
    thin = Draws.of(plain).thin(REPLICATES)
    check = by_decile(rows, thin, sample.tested[pick], sample.y[pick], streams[0])
    tags = None if labels is None else [labels[1][c] for c in labels[0][pick]]
    fan = sensitivity.of_summary(own, plain, wanted, streams[1])
    masked = [t for t, keep in zip(sample.testing.terms, own.free, strict=True) if not keep]
    if expertise is not None and expertise.soft is not None:
        hit = expertise.masked(sample.testing)
        masked = [t for t, m in zip(sample.testing.terms, hit, strict=True) if m]
    return replace(
        plain, check=check, fan=fan,
        testing_curve=testing_curve(rows, thin, tags, streams[2]),
        assumptions=assumptions(
            prevalences, expertise, masked, own.problem.unobservable, own.problem.alpha,
            prevalence, check, diagnostics, roles.weights,
        ),
        warnings=tuple(log),
    )  # fmt: skip
