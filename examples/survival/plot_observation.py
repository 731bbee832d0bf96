"""
Intervals, late entry, and more rows than memory
================================================

How a time was observed is part of the data, not of the model: one call of ``fit`` takes exact,
right-, left- and interval-censored times and late entry, from a data frame, from files on disk
or from a cluster. Three short analyses.
"""

# %%
# Known up to an interval
# -----------------------
# Patients with type 1 diabetes who developed nephropathy. For most the year of onset is known; for
# the others only that it lies between two visits. ``lower`` and ``upper`` are the ends, equal
# where the time is exact. (Everybody in this file developed nephropathy, so the times describe
# those who did and say nothing of the risk.)

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalrm as crm

diabetes = crm.datasets.load_diabetes()
width = (diabetes["upper"] - diabetes["lower"]).rename("years between the ends")
width[width > 0].describe().round(1).to_frame()

# %%
# Putting each onset in the middle of its interval is a common shortcut. Beside it the likelihood
# of what was seen, log[S(lower) - S(upper)]. (The log-likelihoods are not comparable: one is of
# intervals, the other of points.)

model = crm.SurvivalRegression(phi="sex")
fit = model.fit(diabetes, lower="lower", upper="upper")
middle = diabetes.assign(middle=(diabetes["lower"] + diabetes["upper"]) / 2)
shortcut = crm.SurvivalRegression(phi="sex").fit(middle, time="middle")
crm.table(fit, shortcut, names=["intervals", "midpoints"])

# %%
# With intervals there is no Kaplan-Meier curve; its place is taken by the non-parametric maximum
# of the interval likelihood (Turnbull's estimate), which lifelines computes. (It reports the value
# just before each time, hence ``where="pre"``.) Onsets are recorded in whole years, so a smooth
# curve should cross the steps.

from lifelines import KaplanMeierFitter

ax = fit.plot(by="sex")
legend = ax.get_legend()
for (_, rows), line in zip(
    diabetes.groupby("sex", observed=True), list(ax.get_lines()), strict=True
):
    turnbull = KaplanMeierFitter().fit_interval_censoring(rows["lower"], rows["upper"])
    before = turnbull.survival_function_["NPMLE_estimate_lower"]
    ax.step(before.index, before, where="pre", color=line.get_color(), linewidth=0.8)
step = plt.Line2D([], [], color="0.45", linewidth=0.8)
texts = [text.get_text() for text in legend.get_texts()]
ax.legend([*legend.legend_handles, step], [*texts, "Turnbull (lifelines)"], frameon=False)
ax.set_xlabel("Years since the onset of diabetes")
ax.set_ylabel("Share without nephropathy")

# %%
# Seen only from some time on
# ---------------------------
# The Multicenter AIDS Cohort Study met many men some time after their diagnosis. Whoever died
# before could not join, so the men who did are a selection of those who lived longer. ``entry`` is
# the time from which each was under observation; the likelihood conditions on having reached it.

cohort = crm.datasets.load_multicenter_aids_cohort()
late = crm.SurvivalRegression(kappa="weibull").fit(
    cohort, time="time", event="event", entry="entry"
)
naive = crm.SurvivalRegression(kappa="weibull").fit(cohort, time="time", event="event")
one = cohort.head(1)  # no covariates: any row will do
medians = pd.concat(
    {
        "entry respected": late.predict_quantile(one, 0.5, ci=True),
        "entry ignored": naive.predict_quantile(one, 0.5, ci=True),
    },
    names=["median survival in years"],
).droplevel(["row", "p"])
medians.round(2)

# %%
# Ignoring late entry counts time as survived that nobody could have failed to survive, and the
# curve is too high. Kaplan-Meier with the same risk sets agrees with the left panel; that of the
# right panel is as wrong as its model.

figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for ax, result, title in zip(
    axes, (late, naive), ("Entry respected", "Entry ignored"), strict=True
):
    result.plot(ax=ax)
    ax.set_title(title)
    ax.set_xlabel("Years since diagnosis")
axes[1].set_ylabel("")

# %%
# More rows than memory
# ---------------------
# The likelihood is a sum over rows, so that it can be added up part by part. Here are simulated
# rows, in memory, in a folder of parquet files that is read in batches, and as a Dask data frame
# whose partitions may live on other machines. ``fit`` is told nothing: it looks at what it gets.

import tempfile
from pathlib import Path

import dask.dataframe as dd

rows, truth = crm.datasets.make_survival(100_000, gamma={"Intercept": 0.3, "trt": 0.2}, rng=1)
columns = {"time": "time", "event": "event"}
options = {"phi": "trt + x1 + x2", "gamma": "trt"}

with tempfile.TemporaryDirectory() as folder:
    for i, start in enumerate(range(0, len(rows), 25_000)):
        rows.iloc[start : start + 25_000].to_parquet(Path(folder) / f"part-{i}.parquet")
    fits = {
        "memory": crm.SurvivalRegression(**options).fit(rows, **columns),
        "parquet": crm.SurvivalRegression(**options).fit(folder, **columns),
        "Dask": crm.SurvivalRegression(**options).fit(dd.read_parquet(folder), **columns),
    }
crm.table(*fits.values(), names=list(fits))

# %%
# The three are one fit: estimates and standard errors agree to rounding.

memory = fits["memory"].result_
for name in ("parquet", "Dask"):
    other = fits[name].result_
    estimates = np.abs(other.estimates - memory.estimates).max()
    errors = np.abs(other.std_error - memory.std_error).max()
    print(f"{name:8} largest difference: estimates {estimates:.1e}, standard errors {errors:.1e}")

# %%
# For tasks rather than rows, such as many fits at once, a cluster is joblib's business:
# ``with joblib.parallel_config(backend="dask"): ...`` around the call.
