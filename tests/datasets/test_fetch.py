"""Where a public file is found, and what happens when it is another file or cannot be had."""

import functools
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pooch
import pytest

from causalrm.core.errors import BackendError, DataError
from causalrm.datasets import _public, fetch_e1684
from causalrm.datasets._fetch import fetch, sha256_of

RDA = Path(__file__).parent / "rda" / "gzip.rda"
DATA = Path(os.environ.get("CAUSALRM_DATA", "")) / "e1684"
needs_e1684 = pytest.mark.skipif(
    not (DATA / "e1684.csv").is_file(), reason="CAUSALRM_DATA does not hold e1684"
)


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on loopback for tmp_path/www, an empty cache and no CAUSALRM_DATA."""
    (tmp_path / "www").mkdir()
    handler = functools.partial(_Handler, directory=str(tmp_path / "www"))
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    httpd.requests, httpd.folder = [], tmp_path / "www"
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("CAUSALRM_DATA", raising=False)
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_downloads_once_and_then_uses_the_cache(server, tmp_path):
    shutil.copy(RDA, server.folder / "small.rda")
    get = functools.partial(fetch, "set/small.rda", f"{server.url}/small.rda", sha256_of(RDA))
    first = get()
    assert first == tmp_path / "cache" / "causalrm" / "set" / "small.rda"
    assert first.read_bytes() == RDA.read_bytes()
    assert get() == first
    assert server.requests == ["/small.rda"]


def test_a_damaged_cache_is_replaced(server):
    shutil.copy(RDA, server.folder / "small.rda")
    get = functools.partial(fetch, "small.rda", f"{server.url}/small.rda", sha256_of(RDA))
    get().write_bytes(b"damaged")
    assert get().read_bytes() == RDA.read_bytes()


def test_the_local_folder_comes_first(server, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(RDA, folder / "copy.rda")
    monkeypatch.setenv("CAUSALRM_DATA", str(folder))
    local = {"absent.csv": "0" * 64, "copy.rda": sha256_of(RDA)}
    assert fetch("small.rda", f"{server.url}/x", "0" * 64, local=local) == folder / "copy.rda"
    assert server.requests == []


def test_a_local_file_with_other_content_is_an_error(server, tmp_path, monkeypatch):
    (tmp_path / "set.csv").write_text("x\n1\n")
    monkeypatch.setenv("CAUSALRM_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"set\.csv is not the published one.*\(4 bytes\)"):
        fetch("set.csv", f"{server.url}/x", "0" * 64, local={"set.csv": "0" * 64})


def test_a_failed_download_names_the_remedy(server, tmp_path):
    target = tmp_path / "cache" / "causalrm" / "set" / "a.rda"
    with pytest.raises(BackendError) as caught:
        fetch("set/a.rda", f"{server.url}/a.rda", "0" * 64, local={"set/a.csv": "1" * 64})
    message = str(caught.value)
    for part in ("404", f"{server.url}/a.rda", "CAUSALRM_DATA is not set", str(target)):
        assert part in message
    assert "holds set/a.csv" in message


def test_a_download_with_other_content_is_an_error_and_not_kept(server, tmp_path):
    (server.folder / "a.rda").write_bytes(b"something else")
    with pytest.raises(BackendError, match="hash"):
        fetch("a.rda", f"{server.url}/a.rda", "0" * 64)
    assert not (tmp_path / "cache" / "causalrm" / "a.rda").exists()


def test_nobody_listening_is_an_error(server):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(BackendError, match="Could not get a.rda"):
        fetch("a.rda", f"{url}/a.rda", "0" * 64)


def test_e1684_refuses_another_file():
    with pytest.raises(DataError, match="not the published one"):
        fetch_e1684(RDA)
    with pytest.raises(DataError, match="found none"):
        fetch_e1684("no/such/file.csv")


@needs_e1684
def test_e1684_as_documented():
    melanoma = fetch_e1684()
    assert melanoma.shape == (285, 5)
    assert list(melanoma.columns) == ["treatment", "time", "event", "age", "sex"]
    assert melanoma["treatment"].value_counts().to_dict() == {"interferon": 145, "control": 140}
    assert list(melanoma["treatment"].cat.categories) == ["control", "interferon"]
    assert list(melanoma["sex"].cat.categories) == ["male", "female"]
    assert melanoma.index[melanoma.isna().any(axis=1)].tolist() == [36]
    assert melanoma["event"].sum() == 197
    assert melanoma["time"].sum() == pytest.approx(787.34522, abs=1e-9)
    assert (melanoma["sex"] == "female").sum() == 113
    assert melanoma["age"].mean() == pytest.approx(0, abs=1e-9)
    complete = melanoma.dropna()
    assert (len(complete), complete["event"].sum()) == (284, 196)


@needs_e1684
def test_e1684_original_and_converted_file_are_equal_to_the_last_bit():
    original, converted = DATA / "original" / "e1684.rda", DATA / "e1684.csv"
    pd.testing.assert_frame_equal(fetch_e1684(original), fetch_e1684(converted), check_exact=True)


@needs_e1684
def test_e1684_downloads_the_original(server, monkeypatch):
    shutil.copy(DATA / "original" / "e1684.rda", server.folder / "e1684.rda")
    monkeypatch.setattr(_public, "_E1684_URL", f"{server.url}/e1684.rda")
    downloaded = fetch_e1684()
    assert server.requests == ["/e1684.rda"]
    pd.testing.assert_frame_equal(downloaded, fetch_e1684(DATA / "e1684.csv"), check_exact=True)
