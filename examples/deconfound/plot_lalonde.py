"""
Can adjustment replace an experiment? Job training and a hidden confounder
==========================================================================

LaLonde (1986) asked a question that every analysis of logs raises. A training programme was
randomised, so its effect on earnings is known. Put the men of a population survey in the place of
the randomised controls: which estimator comes back to the experiment, and how would we know if
we had no experiment?
"""

# %%
# The experiment
# --------------
# 185 trained men and 260 randomised controls; the outcome is earnings in 1978, in dollars.

import matplotlib.pyplot as plt
import pandas as pd

import causalrm as crm
from causalrm.core import plotting

experiment = crm.datasets.load_lalonde()
survey = crm.datasets.load_cps()
for frame in (experiment, survey):
    frame["age2"] = frame["age"] ** 2
    frame["jobless74"] = (frame["re74"] == 0).astype(int)
    frame["jobless75"] = (frame["re75"] == 0).astype(int)
covariates = [
    "age", "age2", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75", "jobless74",
    "jobless75",
]  # fmt: skip
roles = {"outcome": "re78", "treatment": "treat"}

truth = crm.deconfound.average_effect(experiment, **roles, method="difference", covariance="HC2")
print(truth.effect())

# %%
# The log
# -------
# The same trained men beside 15,992 men of the survey. They differ before anybody was trained.

observed = pd.concat([experiment[experiment["treat"] == 1], survey], ignore_index=True)
observed.groupby("treat")[["age", "educ", "black", "marr", "re74", "re75", "re78"]].mean().round(1)

# %%
# Estimators side by side
# -----------------------
# The target is the effect on the trained (ATT): men like most of the survey's could not have been
# in the programme, and an average over all rows would be about them.

att = {"covariates": covariates, "estimand": "att"}
fits = {
    "Experiment": truth,
    "Difference in means": crm.deconfound.average_effect(observed, **roles, method="difference"),
    "Least squares": crm.deconfound.average_effect(
        observed, **roles, covariates=covariates, method="regression"
    ),
    "Partially linear, cross-fitted": crm.deconfound.average_effect(
        observed, **roles, covariates=covariates, method="plr", repeats=3
    ),
    "Inverse propensity weights": crm.deconfound.average_effect(
        observed, **roles, **att, method="ipw"
    ),
    "Doubly robust, cross-fitted": crm.deconfound.average_effect(
        observed, **roles, **att, method="aipw", repeats=3
    ),
}
frame = pd.concat([fit.to_frame() for fit in fits.values()]).assign(term=list(fits))
frame.round(0)[["term", "estimate", "std_error", "conf_low", "conf_high"]]

# %%
# Without adjustment training seems to cost 8,500 dollars a year. All adjusted estimates have the
# sign of the experiment, and their intervals hold its estimate.

ax = plotting.forest(None, frame, reference_at=None, xlabel="Effect on earnings in 1978, dollars")
plotting.reference(ax, x=truth.estimate)

# %%
# What the estimate rests on
# --------------------------
# The propensities say how few men of the survey resemble the trained: the weights of 15,992 men are
# worth a few hundred.

robust = crm.deconfound.average_effect(
    observed, **roles, **att, method="aipw",
    benchmarks=["educ", "black", "marr", ("re74", "jobless74"), ("re75", "jobless75")],
)  # fmt: skip
overlap = robust.diagnostics
print(f"controls: {overlap['n_control']:,} rows, worth {overlap['ess_control']:.0f}")
robust.summary()

# %%
# How strong must a hidden confounder be?
# ---------------------------------------
# No log can show that nothing else confounds. It can say how strong a hidden confounder must be:
# the robustness value is the share of the residual variance, of outcome and treatment alike, that
# explains the estimate away. The points show confounders as strong as what was observed. One like
# past earnings, or like being black in this sample, would leave little or nothing of the effect.

found = robust.sensitivity()
fig, axes = plt.subplots(1, 2, figsize=(10.5, 4.6), layout="constrained")
found.plot.contour(ax=axes[0])
found.plot.benchmarks(ax=axes[1])
axes[0].set_title("What is left of the effect (dollars)", fontsize=10)
axes[1].set_xlabel("Bounds of the effect, dollars")

# %%
found.summary()

# %%
# The bound of the confidence interval falls even sooner: this log alone would not have convinced
# a sceptic, although it happens to agree with the experiment.
