"""Public files, checksummed: a local folder first, then the user's cache, then the network."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from causalrm.core.errors import BackendError, DataError


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(path: Path, accepted: set[str]) -> Path:
    """Return the path when the file's SHA-256 is one of those accepted.

    Raises
    ------
    DataError
        When there is no such file, or its content is another.
    """
    if not path.is_file():
        raise DataError(f"Expected a file at {path}, found none.")
    seen = sha256_of(path)
    if seen not in accepted:
        expected = " or ".join(sorted(accepted))
        raise DataError(
            f"The file {path} is not the published one: expected SHA-256 {expected}, "
            f"seen {seen} ({path.stat().st_size} bytes). Replace or remove it."
        )
    return path


def fetch(
    name: str, url: str, sha256: str, *, local: Mapping[str, str] | None = None,
    path: str | Path | None = None,
) -> Path:  # fmt: skip
    """Find a public data file on this machine, or download it once.

    Looked for in this order: the files named in `local` inside the folder that the environment
    variable CAUSALRM_DATA names; the user's cache; the public address. Every file is compared
    with its checksum before it is used.

    Parameters
    ----------
    name : str
        Path of the file inside the cache, for example ``"e1684/e1684.rda"``.
    url : str
        Public address of the file.
    sha256 : str
        Checksum of what the address serves.
    local : mapping, optional
        Paths inside CAUSALRM_DATA that hold the same data, in order of preference, each with
        its own checksum: the local file may be a converted one.
    path : str or Path, optional
        A copy to use instead, of what the address serves or of one of `local`.

    Returns
    -------
    pathlib.Path
        A file whose content was checked. Its suffix tells which of the formats it has.

    Raises
    ------
    DataError
        When `path` or a file inside CAUSALRM_DATA does not match its checksum.
    BackendError
        When the download fails or brings something else.
    """
    import pooch

    if path is not None:
        return check(Path(path), {sha256, *(local or {}).values()})
    folder = os.environ.get("CAUSALRM_DATA")
    if folder:
        for relative, checksum in (local or {}).items():
            candidate = Path(folder) / relative
            if candidate.is_file():
                return check(candidate, {checksum})
    cache = Path(pooch.os_cache("causalrm"))
    target = cache / name
    try:
        found = pooch.retrieve(
            url,
            known_hash=f"sha256:{sha256}",
            fname=target.name,
            path=target.parent,
            # Not streamed: pooch leaves the socket of a streamed error reply open.
            downloader=pooch.HTTPDownloader(timeout=60, stream=False),
        )
    # requests raises OSErrors; pooch a ValueError where the checksum differs.
    except (OSError, ValueError) as error:
        there = f"CAUSALRM_DATA is {folder!r}" if folder else "CAUSALRM_DATA is not set"
        remedy = f"Download it by hand and save it as {target}"
        if local:
            remedy += f", or set CAUSALRM_DATA to a folder that holds {next(iter(local))}"
        raise BackendError(
            f"Could not get {name} from {url}: {error}. {there}, and the cache does not hold "
            f"the file. {remedy}."
        ) from error
    return Path(found)
