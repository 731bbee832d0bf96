"""Write the opening of the README, its code, what the code prints and its figure.

python examples/readme.py
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIGURE = "docs/_static/readme_survival.png"
BEGIN, END = "<!-- readme:begin -->", "<!-- readme:end -->"

CODE = """\
import causalrm as crm

df = crm.datasets.load_gbsg2()  # 686 women with breast cancer
df = df.assign(years=df["time"] / 365.25)
roles = {"time": "years", "event": "event"}
phi = "hormone + log(nodes) + log(progesterone + 1) + tumor_grade"

weibull = crm.SurvivalRegression(phi, kappa="weibull").fit(df, **roles)
flexible = crm.SurvivalRegression(phi, lam="1").fit(df, **roles)
shape = crm.SurvivalRegression(phi, lam="1", gamma="hormone").fit(df, **roles)
names = ["Weibull", "flexible", "+ shape"]
print(crm.table(weibull, flexible, shape, names=names))

effect = crm.survival.standardized_contrast(  # doubly robust
    flexible, df, treatment="hormone", method="aipw", rmst=5,
    times=[t / 4 for t in range(2, 25)],
)
print(effect.contrast(rmst=5))  # years without recurrence gained in five
"""

PLOT = """\
flexible.plot(by="hormone")
flexible.plot.hazard(by="hormone")
effect.plot()
"""


def run() -> tuple[dict[str, Any], str]:
    """Run the code of the README: its names, and what it prints."""
    names: dict[str, Any] = {"__name__": "readme"}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(CODE, "README.md", "exec"), names)
    return names, out.getvalue().rstrip()


def block() -> str:
    """Return the text between the two marks of the README."""
    caption = (
        "Recurrence-free survival with and without hormone therapy, model against Kaplan-Meier; "
        "fitted hazards; and the difference in survival if all women had therapy or none had."
    )
    return f"![{caption}]({FIGURE})\n\n```python\n{CODE}\n{PLOT}```\n\n```text\n{run()[1]}\n```\n"


def figure(path: Path) -> None:
    """Draw the three plots of the README side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = run()[0]
    drawn, axes = plt.subplots(1, 3, figsize=(11.8, 3.6), layout="constrained")
    names["flexible"].plot(by="hormone", ax=axes[0])
    names["flexible"].plot.hazard(by="hormone", ax=axes[1])
    names["effect"].plot(ax=axes[2])
    drawn.savefig(path, dpi=170)
    plt.close(drawn)


def main() -> None:
    """Write the block and the figure."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{block()}{END}{after}", encoding="utf-8")
    figure(ROOT / FIGURE)
    print(f"wrote {readme.name} and {FIGURE}")


if __name__ == "__main__":
    main()
