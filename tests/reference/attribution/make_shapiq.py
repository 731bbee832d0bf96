"""Collect interaction values published with shapiq into shapiq.json.

Run with the folder of the files as argument. They come from github.com/mmschlk/shapiq, commit
12ec2878fb61b94c01a8c1260a18108eac165538, tests/shapiq/data/interaction_values/california_housing
(MIT licence, Copyright (c) 2023 the shapiq developers): exact values for one explained instance of
the California housing data under a random forest with eight features.
"""

import json
import sys
from pathlib import Path

folder, out = Path(sys.argv[1]), {}
for game in ("tree", "imputer_9070456741283270540"):
    out[game] = {}
    for index, order in [("Moebius", 8), ("SV", 1)] + [
        (index, order) for index in ("SII", "k-SII", "STII", "FSII") for order in (2, 3)
    ]:
        name = f"iv_california_housing_{game}_index={index}_order={order}.json"
        data = json.loads((folder / name).read_text())["data"]
        out[game][f"{index}_{order}"] = {k: v for k, v in data.items() if k != "Empty"}
        if index == "Moebius":
            out[game]["empty"] = data.get("Empty", data.get("", 0.0))
Path(__file__).with_name("shapiq.json").write_text(json.dumps(out, indent=0))
