"""
Real travellers, and what the conditional logit adds
====================================================

210 real people chose between air, train, bus and car (statsmodels' travel-mode data, Greene). A
logit of these choices is a value function like any other: which attribute moved the choice of a
mode? Shapley values answer for the choices as they were made; the conditional logit answers what an
hour is worth. They are different questions.
"""

import warnings

import numpy as np
import statsmodels.api as sm

import causalrm as crm
from causalrm.attribution import conditional_logit

travel = sm.datasets.modechoice.load_pandas().data
travel["mode"] = travel["mode"].map({1: "air", 2: "train", 3: "bus", 4: "car"})
travel.groupby("mode")[["choice", "invc", "invt", "ttme"]].mean().round(2)

# %%
# Cost in dollars, time in vehicle and waiting time in minutes, and a constant for each mode.

fit = conditional_logit(
    travel,
    occasion="individual",
    chosen="choice",
    attributes=["invc", "invt", "ttme", "mode"],
    cost="invc",
)
fit.summary()

# %%
# Willingness to pay, in dollars a minute. Real people: an hour of waiting hurts far more than an
# hour in the vehicle. The coefficient of cost has a wide interval, and so has every ratio to it.

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    worth = fit.willingness_to_pay()
print(caught[0].message)
worth.round(2)

# %%
# The game: attributes are players. An absent attribute has its mean over the four modes of each
# person, so that it cannot tell modes apart. The value is the mean log-likelihood of what people
# chose: what knowing an attribute explains.

beta = dict(zip(fit.term, fit.estimates, strict=True))
groups = {
    "cost": ["invc"],
    "time in vehicle": ["invt"],
    "waiting time": ["ttme"],
    "mode itself": [t for t in fit.term if t.startswith("mode")],
}
X = travel[["invc", "invt", "ttme"]].assign(
    **{t: (travel["mode"] == t.removeprefix("mode_")) * 1.0 for t in groups["mode itself"]}
)
X = X - X.groupby(travel["individual"]).transform("mean")
chosen = travel["choice"].to_numpy().reshape(-1, 4)


def explained(Z):
    out = []
    for row in Z:
        used = [t for on, terms in zip(row, groups.values(), strict=True) if on for t in terms]
        u = (X[used] @ np.array([beta[t] for t in used])).to_numpy() if used else np.zeros(len(X))
        u = u.reshape(-1, 4)
        out.append((u[chosen == 1] - np.log(np.exp(u).sum(axis=1))).mean())
    return np.array(out)


game = crm.PromptShapley(order=2).fit(list(groups), explained)
game.plot.waterfall()

# %%
# Waiting time explains most, together with the mode itself; the two are entangled (air has the
# longest waits, and cars none), which their interaction shows. A coefficient tells none of this,
# and a Shapley value does not tell the price of an hour.

game.result_.interaction("SII").query("group == 'order 2'")[["term", "estimate"]].round(3)
