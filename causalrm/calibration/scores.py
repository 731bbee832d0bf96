"""Risk scores as they came out: every call, every failure, and what they say together."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrm.calibration.task import RiskTask, read_json
from causalrm.core.errors import DataError
from causalrm.core.format import number
from causalrm.core.result import versions
from causalrm.core.store import decode, encode
from causalrm.core.table import Section, Table
from causalrm.llm import STATUS as CALL_STATUS

Floats = npt.NDArray[np.float64]

#: Every value that `status` can have, for a call ("partial" excepted) or a row.
STATUS = CALL_STATUS | {
    "unparsed": "answered without a number that can be read as a probability",
    "partial": "some of the row's calls were answered; the bounds allow for the others",
}
STATUSES = tuple(STATUS)
_ARRAYS = ("probability", "lower", "upper", "mass", "status")


@dataclass(frozen=True, eq=False)
class RiskScores:
    """The scores of the rows of a table, with every call behind them.

    Made by :meth:`RiskScorer.score`. The arrays have one row per input row and one column per
    call, and cannot be written to.

    Attributes
    ----------
    task : RiskTask
    mode, model : str
    index : pandas.Index
        Of the input rows.
    design : pandas.DataFrame
        One row per call: the varied factors, and the order of the ``choices`` or the
        ``replicate``.
    probability, lower, upper, mass : ndarray, shape (n_rows, n_calls)
        NaN, 0, 1 and NaN where a call failed.
    status : ndarray of int, shape (n_rows, n_calls)
        Position in `STATUSES`.
    reason : ndarray of object, shape (n_rows,)
        What the first failure of the row was.

    Examples
    --------
    >>> import pandas as pd
    >>> from causalrm.calibration import RiskScorer, RiskTask
    >>> from causalrm.llm import FunctionModel
    >>> def simulated(prompt):  # prefers the first choice, and knows about smoking
    ...     first_is_yes = "A. Yes" in prompt
    ...     p = (0.7 if "smoking: yes" in prompt else 0.2) + (0.1 if first_is_yes else -0.1)
    ...     return {"A": p, "B": 1 - p} if first_is_yes else {"A": 1 - p, "B": p}
    >>> task = RiskTask("Will the patient be ill?", {"smokes": "smoking"})
    >>> scores = RiskScorer(task, FunctionModel(simulated)).score(
    ...     pd.DataFrame({"smokes": [True, False]}))
    >>> scores.to_frame()[["probability", "lower", "upper", "instability", "status"]].round(3)
       probability  lower  upper  instability status
    0          0.7    0.7    0.7          0.2     ok
    1          0.2    0.2    0.2          0.2     ok
    """

    task: RiskTask
    mode: str
    model: str
    index: pd.Index
    design: pd.DataFrame
    probability: Floats
    lower: Floats
    upper: Floats
    mass: Floats
    status: npt.NDArray[np.uint8]
    reason: npt.NDArray[np.object_]

    def __post_init__(self) -> None:
        shape = (len(self.index), len(self.design))
        for name in _ARRAYS:
            array = np.array(getattr(self, name))
            if array.shape != shape:
                raise DataError(f"{name} of RiskScores must have shape {shape}; got {array.shape}.")
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.index)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per input row, with its index; none is left out.

        Returns
        -------
        pandas.DataFrame
            ==================  ==========================================================
            probability         mean over the answered calls; NaN if there is none
            lower, upper        means of the bounds over all calls: what unlisted mass allows,
                                and 0 and 1 for a call without an answer
            instability         largest minus smallest probability over the orders of the
                                choices (else over replicates), averaged over variations;
                                NaN where fewer than two were answered
            mass                mean listed mass of the choices; NaN in other modes
            status, reason      :data:`STATUS`, and what is behind one other than ok
            n_calls             calls behind the row (equal rows share theirs)
            n_answered          those that were answered
            ==================  ==========================================================
        """
        ok = self.status == 0
        n_calls, answered = len(self.design), ok.sum(1)
        listed = np.isfinite(self.mass)
        status = [self._row_status(row) for row in self.status]
        reason = np.full(len(self), None, dtype=object)
        for i in np.flatnonzero(answered < n_calls):
            first = STATUSES[self.status[i][~ok[i]][0]]
            reason[i] = f"{n_calls - answered[i]} of {n_calls} calls: {first}: {self.reason[i]}"
        columns = {
            "probability": _mean(self.probability, ok),
            "lower": self.lower.mean(1),
            "upper": self.upper.mean(1),
            "instability": self._instability(),
            "mass": _mean(self.mass, listed),
            "status": np.array(status, dtype=object),
            "reason": reason,
            "n_calls": n_calls,
            "n_answered": answered,
        }
        return pd.DataFrame(columns, index=self.index)

    def cells(self) -> pd.DataFrame:
        """Return one row per input row and call, with the factors of the call."""
        n, k = self.probability.shape
        frame = self.design.iloc[np.tile(np.arange(k), n)].set_axis(self.index.repeat(k))
        for name in _ARRAYS[:-1]:
            frame[name] = getattr(self, name).ravel()
        frame["status"] = np.array(STATUSES, dtype=object)[self.status.ravel()]
        return frame

    def variance(self) -> pd.DataFrame:
        """Split the variance of the scores between rows, prompt variations and orders.

        Over the rows whose calls were all answered, with equal weights and no model: the
        variance over rows and calls is that of the rows' means, plus for every factor that of
        its means ("format": a shift that all rows share) and that of its interaction with the
        rows ("format x row"), plus all other interactions.

        Returns
        -------
        pandas.DataFrame
            ``source, variance, share, std_dev, n_rows``; variances sum to the total, the
            last row.

        Raises
        ------
        DataError
            If no row has all its answers.
        """
        complete = (self.status == 0).all(1)
        if not complete.any():
            raise DataError(
                f"None of {len(self)} rows has answers to all {len(self.design)} calls."
            )
        levels = [self.design[name].nunique() for name in self.design]
        p = self.probability[complete].reshape(-1, *levels)
        axes = range(1, p.ndim)
        rows = p.mean(tuple(axes), keepdims=True)
        found: dict[str, float] = {"row": float(np.var(rows))}
        for axis, name in zip(axes, map(str, self.design), strict=True):
            if p.shape[axis] > 1:
                given = p.mean(tuple(a for a in axes if a != axis), keepdims=True)
                shift = given.mean(0, keepdims=True)
                found[name] = float(np.var(shift))
                found[f"{name} x row"] = float(np.var(given - rows - shift))
        total = float(np.var(p))
        if len(found) > 3:
            found["other interactions"] = max(0.0, total - sum(found.values()))
        frame = pd.DataFrame({"source": [*found, "total"], "variance": [*found.values(), total]})
        with np.errstate(invalid="ignore"):
            frame["share"] = frame["variance"] / np.float64(total)
        frame["std_dev"] = np.sqrt(frame["variance"])
        return frame.assign(n_rows=int(complete.sum()))

    def summary(self) -> Table:
        """Return counts by status, how sharp and how stable the scores are, and why some fail."""
        frame = self.to_frame()
        n, p = len(frame), frame["probability"].dropna()
        counts = Counter(frame["status"])
        width, mass = frame["upper"] - frame["lower"], frame["mass"]
        facts = [
            ("scored rows", f"{len(p)}"),
            ("mean score", number(p.mean(), 4)),
            ("scores of exactly 0; 1", f"{int((p == 0).sum())}; {int((p == 1).sum())}"),
            ("distinct scores", f"{p.nunique()}"),
            (
                "width of bounds: mean; largest",
                f"{number(width.mean(), 4)}; {number(width.max(), 4)}",
            ),
        ]
        if mass.notna().any():
            low = int((mass < 0.1).sum())
            facts.append(("listed mass: mean; rows below .1", f"{number(mass.mean(), 4)}; {low}"))
        unstable = frame["instability"].dropna()
        if len(unstable):
            text = f"{number(unstable.mean(), 4)}; {number(unstable.max(), 4)}"
            facts.append(("instability: mean; largest", text))
        statuses = [(s, str(counts[s]), f"{counts[s] / n:.1%}") for s in STATUS if counts[s]]
        sections = [
            Section(rows=(("question", self.task.question), ("mode; model", self._how()))),
            Section("status", ("", "rows", "share"), tuple(statuses)),
            Section("scores", ("", ""), tuple(facts)),
        ]
        if len(self.design) > 1 and (self.status == 0).all(1).any():
            split = self.variance()
            parts = [
                (str(source), f"{sd:.4f}", "" if share != share else f"{share:.1%}")
                for source, sd, share in zip(
                    split["source"], split["std_dev"].tolist(), split["share"].tolist(), strict=True
                )
            ]
            sections.append(Section("variance", ("", "std. dev.", "share"), tuple(parts)))
        failures = Counter(str(r) for r in frame["reason"].dropna())
        notes = [f"{count} rows: {text}" for text, count in failures.most_common(3)]
        return Table("Risk scores", tuple(sections), tuple(notes))

    def to_json(self, path: str | Path | None = None) -> str:
        """Write everything as JSON; to a file as well, if a path is given."""
        out = {f.name: encode(getattr(self, f.name)) for f in fields(self) if f.name != "task"}
        out["task"] = json.loads(self.task.to_json())
        text = json.dumps({"kind": "RiskScores", "versions": versions(), **out}, ensure_ascii=False)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> Self:
        """Read what `to_json` wrote: its text, or the path of a file."""
        out = read_json(source, "RiskScores")
        try:
            task = RiskTask.from_json(json.dumps(out.pop("task")))
            del out["versions"]
            return cls(task=task, **{name: decode(value) for name, value in out.items()})
        except DataError:
            raise
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise DataError(f"The JSON of RiskScores is damaged: {error!r}.") from error

    def _how(self) -> str:
        n, k = self.probability.shape
        return f"{self.mode}; {self.model}; {n} rows with {k} call{'s' * (k > 1)} each"

    def _row_status(self, row: npt.NDArray[np.uint8]) -> str:
        failed = row[row != 0]
        if 0 < len(failed) < len(row):
            return "partial"
        return STATUSES[Counter(failed.tolist()).most_common(1)[0][0] if len(failed) else 0]

    def _instability(self) -> Floats:
        last = self.design.iloc[:, -1].nunique()
        p = np.where(self.status == 0, self.probability, np.nan).reshape(len(self), -1, last)
        spread = np.fmax.reduce(p, axis=2) - np.fmin.reduce(p, axis=2)
        return _mean(spread, np.isfinite(p).sum(2) >= 2)


def _mean(values: Floats, where: npt.NDArray[np.bool_]) -> Floats:
    """Mean of each row over `where`; NaN without any."""
    count = where.sum(1)
    total = np.where(where, values, 0.0).sum(1)
    mean: Floats = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return mean
