"""
Which flight, and because of what?
==================================

A language model is asked to choose between flights. Did it weigh price and time, or did a word of
courtesy move it? Here the chooser is **simulated**, so that its utilities are known, and it is
asked through a real HTTP service on this machine; for a real model only the client changes.
"""

import causalrm as crm
from causalrm.attribution import SimulatedChooser, compare_choices
from causalrm.llm import FunctionModel, LoopbackServer, OpenAICompatible

# %%
# An hour is worth 40 dollars to this chooser (0.4 / 0.01), it takes what is shown first a little
# more often, and "kindly" makes it care less about the price: token noise.

chooser = SimulatedChooser(
    {"price": -0.01, "hours": -0.4},
    centre={"price": 300, "hours": 5},
    words={"kindly": {"price": 0.004}},
    position=0.4,
)
simulated = FunctionModel(chooser, name="simulated chooser")

# %%
# Twelve sets of two flights, with levels exchanged until the determinant of the information no
# longer grows. Each set is shown in both orders, 20 times.

experiment = crm.ChoiceExperiment(
    {"price": [200, 300, 400], "hours": [3, 5, 8]},
    n_sets=12,
    prior={"price": -0.01, "hours": -0.4},
    label="Flight",
    intro="Which flight would you take?",
    cost="price",
    rng=1,
)
service = FunctionModel(chooser.drawing(rng=3), name="simulated service")
with LoopbackServer(service) as server:
    client = OpenAICompatible(
        "simulated", base_url=server.base_url, api_key="none", concurrency=8, progress=False
    )
    choices = experiment.run(client, replies=20, max_tokens=1)
fit = experiment.fit(choices)
fit.summary()

# %%
# The conditional logit recovers the utilities, -0.01 a dollar and -0.4 an hour: both lie in their
# intervals, since rotation balances the position effect. Willingness to pay for an hour more is
# negative: an hour saved is worth 40 dollars, and that is in its interval, too.

fit.willingness_to_pay().round(2)

# %%
# Shapley values of one set, with neutral words in front. The probability is read off the
# log-probabilities, so that values are exact.

filler = {"kindly": "Would you kindly help us.", "thanks": "Thank you for your time."}
with LoopbackServer(simulated) as server:
    client = OpenAICompatible(
        "simulated", base_url=server.base_url, api_key="none", concurrency=8, progress=False
    )
    found = experiment.attribute(client, 0, filler=filler)
result = found["probability"]
result.plot()

# %%
result.plot.waterfall()

# %%
# On the scale of log-odds, from the same replies:

print(found["logit"].to_frame()[["term", "estimate"]].round(3))

# %%
# How much of what moves the decision is noise? The share of squared values that belongs to neutral
# components. The word "kindly" has some of it, "thanks" has none.

noise = result.token_noise()
print(noise.share)
print(result.group_values()[["term", "estimate"]].round(4))

# %%
# With counted replies in place of log-probabilities the same share comes with an interval, and the
# uncorrected share of absolute values stands beside what it would be without any token noise.

sampled = experiment.attribute(
    FunctionModel(chooser, name="simulated"),
    0,
    filler=filler,
    mode="sample",
    replies=10,
    budget=crm.Budget(calls=6400),
    rng=2,
)["probability"]
noise = sampled.token_noise()
print(noise.share)
print(f"uncorrected {noise.uncorrected:.3f}, without token noise {noise.uncorrected_null:.3f}")
sampled.plot.convergence()

# %%
# People's choices would stand in a table with the same columns. Here a second **simulated** chooser
# stands for them, who values an hour at 20 dollars.

people = SimulatedChooser({"price": -0.01, "hours": -0.2}, centre={"price": 300, "hours": 5})
table = experiment.run(FunctionModel(people, name="simulated people"), replies=10)
comparison = compare_choices(fit, experiment.fit(table))
comparison[["group", "term", "model", "people", "estimate", "std_error", "p_value"]].round(3)

# %%
# What the simulation put in is found: an hour is worth 40 dollars to the one and 20 to the others.
