"""
Hidden HIV results: when does a selection model find what was hidden?
=====================================================================

In Thornton's experiment (2008) people in Malawi were tested for HIV, and later some came to learn
their result. Suppose that only the results of those who came were known. The data hold the others
too, so that what a model says of them can be checked. It is a hard case, told as it comes out.
"""

# %%
# The data, with results hidden
# -----------------------------
# A voucher drawn at random, its worth, and the distance to the clinic moved who came.

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import causalrm as crm
from causalrm.core import plotting

people = crm.datasets.load_thornton().dropna(subset=["hiv2004", "age", "distvct", "tinc"])
people["seen"] = people["hiv2004"].where(people["got"] == 1)
hidden = people[people["got"] == 0]
prevalence = people["hiv2004"].mean()
facts = people.groupby("got")["hiv2004"].agg(["size", "sum", "mean"]).round(4)
facts.rename(index={0: "hidden", 1: "seen"})

# %%
# Those who stayed away were infected slightly *more* often. The model takes the opposite for
# granted: whoever has more unseen risk is tested more often (``alpha=1``). Nobody knew their
# result, so there was little reason for that here.
#
# Four fits
# ---------
# Under `Expertise`, age moves coming through risk alone, beside distance and voucher.

RISK = "age + I(age ** 2)"
COMING = "age + I(age ** 2) + distvct + any + tinc"
experts = crm.Expertise(free=["distvct", "any", "tinc"])


def fit(*constraints, **options):
    """One fit; a fall to the slower engine would say so."""
    model = crm.SelectiveLabelsModel(RISK, COMING, constraints=list(constraints), **options)
    return model.fit(people, tested="got", outcome="seen")


fits = {
    "no constraint": fit(),
    "prevalence": fit(crm.Prevalence(prevalence)),
    "expertise": fit(experts),
    "both": fit(crm.Prevalence(prevalence), experts),
}


def told(model):
    """Mean risk of the hidden, AUC and Brier score among them."""
    own = model.baselines(people, truth="hiv2004").metrics
    own = own[(own["rows"] == "untested") & (own["model"] == "selective labels")].iloc[0]
    mean = model.predict_risk(hidden, given="untested")["estimate"].mean()
    everybody = model.result_.implied[:, 0]
    return {
        "mean risk of the hidden": mean,
        "prevalence of all": np.average(everybody, weights=model.result_.weights),
        "observed / expected": own["o_e"],
        "AUC": own["auc"],
        "sigma": model.to_frame().iloc[-1]["estimate"],
    }


table = pd.DataFrame({name: told(model) for name, model in fits.items()}).T
table.loc["truth", ["mean risk of the hidden", "prevalence of all"]] = (
    hidden["hiv2004"].mean(), prevalence,
)  # fmt: skip
table.round(3)

# %%
# No fit recovers the mean. The model without a constraint is the most wrong; the known prevalence
# brings it nearer, and cannot bring it all the way, because the model must give the hidden less
# unseen risk than the seen. A logistic regression of the seen alone is closer than all four.

fits["prevalence"].baselines(people, truth="hiv2004").metrics.round(3)

# %%
# By age
# ------
# Share infected among the hidden (points, with 95 % intervals of Wilson's kind) and what the fits
# say.

edges = [0, 20, 25, 30, 40, 50, 100]
names = ["under 20", "20 to 24", "25 to 29", "30 to 39", "40 to 49", "50 and over"]
group = pd.cut(hidden["age"], edges, right=False, labels=names)
found = hidden.groupby(group, observed=True)["hiv2004"].agg(["mean", "size"])
z, p, n = 1.96, found["mean"], found["size"]
centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)

ax = plotting.axes(height=4.4)
at = np.arange(len(names))
ax.vlines(at, centre - half, centre + half, color="black", lw=1.6)
ax.plot(at, p, "o", color="black", ms=6, label="truth")
for i, (name, model) in enumerate(fits.items()):
    risk = model.predict_risk(hidden, given="untested")["estimate"]
    own = risk.groupby(group, observed=True).mean()
    ax.plot(at + 0.13 * (i + 1), own, "D", color=plotting.color(i), ms=5, label=name)
ax.set_xticks(at + 0.25, names)
ax.set_ylabel("Share infected among those who stayed away")
ax.set_yticks(np.arange(0, 0.25, 0.05))
ax.yaxis.set_major_formatter("{x:.0%}")
ax.set_ylim(bottom=0)
ax.legend(frameon=False, ncols=5, loc="lower left", bbox_to_anchor=(0, 1), columnspacing=1.0,
          handletextpad=0.3)  # fmt: skip

# %%
# Expertise goes wrong here: young people came less often, and the constraint reads their staying
# away as low risk and everybody else's coming as high risk. It flattens the age curve. The data
# can say so, because distance and vouchers are instruments: fitted softly, the coefficients of age
# in coming are far from 0.

soft = fit(crm.Expertise(free=["distvct", "any", "tinc"], soft=1.0))
frame = soft.to_frame()
frame[frame["parameter"] == "testing"].round(3)

# %%
# Misspecified constraints
# ------------------------
# A prevalence that is too low or too high, and an expertise that denies what moved people most:
# that vouchers matter at equal risk.

wrong = {
    "prevalence x 0.75": [crm.Prevalence(0.75 * prevalence)],
    "prevalence": [crm.Prevalence(prevalence)],
    "prevalence x 1.5": [crm.Prevalence(1.5 * prevalence)],
    "prevalence x 2": [crm.Prevalence(2 * prevalence)],
    "expertise: only age": [crm.Expertise(free=["age"])],
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore", crm.ConvergenceWarning)
    bad = {name: fit(*given) for name, given in wrong.items()}
pd.DataFrame({name: told(model) for name, model in bad.items()}).T.round(3)

# %%
# Half as much again happens to give the hidden the right mean, by two errors that cancel. The fit
# does object to it: the implied prevalence stays away from a target that is too high (z beyond 3).
# One that is too low goes unnoticed, and so does the wrong expertise.

columns = ["target", "estimate", "z"]
conflict = {name: model.result_.prevalence.iloc[0][columns] for name, model in bad.items()}
pd.DataFrame(conflict).T.astype(float).round(3)

# %%
# What to take home
# -----------------
# A selection model answers with what it assumes of the unseen. Here the sign of the dependence was
# wrong, no constraint repaired that, and a known prevalence limited the damage. Where an outcome
# can be looked at for a random few of the untested, that is worth more than any constraint. Left,
# the implied prevalence under both constraints; right, the check by decile of risk, in which the
# lowest deciles have fewer infected than this fit expects: what the wrong expertise costs.

fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
fits["both"].plot.prevalence(ax=axes[0])
fits["both"].plot.check(ax=axes[1])
