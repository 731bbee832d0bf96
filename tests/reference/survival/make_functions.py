"""The functions of the distribution to 60 digits, rounded to doubles: functions.json.

Run in this folder: python make_functions.py (the standard library is enough). The formulas are
the definitions; the digits make up for their cancellation near kappa = 0 and at extremes.
"""

import json
import platform
from decimal import Decimal as D
from decimal import getcontext

getcontext().prec = 60
getcontext().Emax = 10**9
getcontext().Emin = -(10**9)

KAPPA = ("-0.999", "-0.5", "-1e-3", "-1e-8", "0", "1e-12", "1e-6", "0.5", "1", "2", "40", "1e6")
# time, phi, lam, gamma: ordinary, then early, late, steep and flat
POINTS = (
    ("1.3", "0.7", "1", "1.4"),
    ("0.2", "2.5", "0.3", "0.6"),
    ("1e-6", "1", "1", "0.5"),
    ("30", "0.05", "2", "3"),
    ("1e4", "1e-3", "0.5", "0.2"),
    ("50", "1", "1", "2"),
)


def values(t: D, phi: D, lam: D, gamma: D, kappa: D) -> dict[str, float]:
    """Cumulative hazard, log hazard and log of the cumulative incidence."""
    u = ((phi * t).ln() * gamma).exp()
    base = (1 + u / (kappa + 1)).ln()
    if kappa == 0:
        cumulative = lam * (1 + u).ln()
    else:
        cumulative = lam * (kappa + 1) / kappa * ((kappa * base).exp() - 1)
    log_hazard = lam.ln() + gamma.ln() + u.ln() - t.ln() + (kappa - 1) * base
    return {
        "cumulative_hazard": float(cumulative),
        "log_hazard": float(log_hazard),
        "log_incidence": float((1 - (-cumulative).exp()).ln()),
    }


cases = []
for kappa in KAPPA:
    for point in POINTS:
        # The doubles that a program sees, exactly.
        t, phi, lam, gamma, k = (D(float(x)) for x in (*point, kappa))
        row = dict(
            zip(
                ("time", "phi", "lam", "gamma", "kappa"),
                map(float, (t, phi, lam, gamma, k)),
                strict=True,
            )
        )
        cases.append(row | values(t, phi, lam, gamma, k))

with open("functions.json", "w", encoding="utf-8") as file:
    rows = ",\n".join("  " + json.dumps(case) for case in cases)
    file.write(
        '{\n "made_by": "make_functions.py",\n'
        f' "versions": {{"python": "{platform.python_version()}"}},\n'
        ' "scale": "all parameters on their natural scale",\n'
        f' "cases": [\n{rows}\n ]\n}}\n'
    )
