"""Data sets fetched from their public address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from causalrm.datasets._fetch import fetch, sha256_of

if TYPE_CHECKING:
    import pandas as pd

_E1684_URL = (
    "https://raw.githubusercontent.com/cran/smcure/"
    "a14a76c0c472aef21d4a67f90ed0cb7a6e09a29d/data/e1684.rda"
)
_E1684_RDA = "d96624c6892ce43957d89882a55e3f12aabdac5cf245cbc53dbec0d390090896"
_E1684_CSV = "d2bcf0c9db98c62cce48063b003a90324d221b7ab6433f1b6f2fd978afabb2f4"


def fetch_e1684(path: str | Path | None = None) -> pd.DataFrame:
    """Melanoma trial ECOG E1684: interferon against observation, relapse-free survival.

    The file is looked for in the folder that the environment variable CAUSALRM_DATA names
    (``e1684/e1684.csv`` or ``e1684/original/e1684.rda``), then in the user's cache, and then
    downloaded from the R package smcure (5 kB). Whichever is found is compared with its
    checksum.

    Parameters
    ----------
    path : str or Path, optional
        A copy of the file, ``.csv`` or the original ``.rda``, to read instead.

    Returns
    -------
    pandas.DataFrame
        285 rows, one per patient, of which 284 are complete: row 36 (counted from 0) has
        neither age nor sex and is kept.

        ============= =========== ==================================================
        column        dtype       meaning
        ============= =========== ==================================================
        ``treatment`` category    ``control`` (observation) or ``interferon``
        ``time``      float       years until relapse or the end of observation
        ``event``     int         1 relapse seen, 0 censored
        ``age``       float       years, centred at the mean of the complete rows
        ``sex``       category    ``male`` or ``female``
        ============= =========== ==================================================

    Raises
    ------
    DataError, BackendError
        When the file on this machine is not the published one, or none can be downloaded.

    References
    ----------
    Kirkwood, J. M. et al. (1996). Interferon alfa-2b adjuvant therapy of high-risk resected
    cutaneous melanoma: the Eastern Cooperative Oncology Group trial EST 1684. Journal of
    Clinical Oncology 14(1), 7-17. doi:10.1200/JCO.1996.14.1.7

    Cai, C., Zou, Y., Peng, Y. and Zhang, J. (2012). smcure: an R-package for estimating
    semiparametric mixture cure models. Computer Methods and Programs in Biomedicine 108(3),
    1255-1260. doi:10.1016/j.cmpb.2012.08.013

    Examples
    --------
    The first call may use the network:

    >>> from causalrm.datasets import fetch_e1684
    >>> melanoma = fetch_e1684().dropna(subset=["age", "sex"])  # doctest: +SKIP
    >>> len(melanoma), int(melanoma["event"].sum())  # doctest: +SKIP
    (284, 196)
    """
    import pandas as pd

    from causalrm.datasets._rdata import read_rda

    local = {"e1684/e1684.csv": _E1684_CSV, "e1684/original/e1684.rda": _E1684_RDA}
    file = fetch("e1684/e1684.rda", _E1684_URL, _E1684_RDA, local=local, path=path)
    if sha256_of(file) == _E1684_RDA:
        raw = read_rda(file)["e1684"]
    else:  # the default parser of pandas is off by a last bit here and there
        raw = pd.read_csv(file, float_precision="round_trip")
    arms, sexes = ("control", "interferon"), ("male", "female")  # codes 0 and 1
    return pd.DataFrame(
        {
            "treatment": pd.Categorical(raw["TRT"].map(dict(enumerate(arms))), arms),
            "time": raw["FAILTIME"].to_numpy(float),
            "event": raw["FAILCENS"].to_numpy(int),
            "age": raw["AGE"].to_numpy(float),
            "sex": pd.Categorical(raw["SEX"].map(dict(enumerate(sexes))), sexes),
        }
    )
