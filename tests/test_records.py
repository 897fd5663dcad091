"""Public records and their download, against a server of this machine; nothing leaves it."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import run

from flowbdt.errors import ConfigError, FetchError
from flowbdt.physics.datasets import records as module
from flowbdt.physics.datasets.records import Record, RecordFile, fetch_file, record, records

CONTENT = bytes(range(256)) * 400
NAME = "events.hdf5"


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT with ranges, and notes what was asked; subclasses misbehave."""

    ranges = True
    breaks: list[int] = []  # noqa: RUF012 - how many bytes each answer sends before it breaks
    asked: list[str | None] = []  # noqa: RUF012
    status = 200

    def do_GET(self) -> None:
        type(self).asked.append(self.headers.get("Range"))
        if type(self).status != 200:
            self.send_error(type(self).status)
            return
        wanted = self.headers.get("Range")
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        end = len(CONTENT)
        if type(self).breaks:
            end = start + type(self).breaks.pop(0)
        self.wfile.write(CONTENT[start:end])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(**behaviour: object):
    """Yield the address of a server, and what it was asked for."""
    kind = type("Kind", (Handler,), {"asked": [], "breaks": [], **behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/files", kind.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def made(**known: object) -> tuple[Record, RecordFile]:
    """Return a record of one file: its MD5 and size are right unless told."""
    right = {"size": len(CONTENT), "algorithm": "md5", "checksum": hashlib.md5(CONTENT).hexdigest()}
    file = RecordFile(NAME, **{**right, **known})
    texts = {"title": "t", "doi": "10.1/x", "licence": "l", "cite": "c"}
    return Record("toy", number=1, usual=(NAME,), sources=("s",), files=(file,), **texts), file


def unverified() -> tuple[Record, RecordFile]:
    return made(size=None, algorithm=None, checksum=None)


# ---- what is listed


def test_every_record_has_a_doi_sources_and_usual_files_that_it_lists():
    shared = {"flowsim", "jetnet", "jetnet150", "omnifold"}
    assert shared | {f"calochallenge{n}" for n in (1, 2, 3)} <= set(records())
    for found in records().values():
        assert found.doi == f"10.5281/zenodo.{found.number}"
        assert found.sources
        assert all(found.cite for _ in found.files)
        assert {f.name for f in found.select()} == set(found.usual)
        assert len({f.name for f in found.files}) == len(found.files)


def test_checksums_are_of_their_algorithm_and_never_without():
    lengths = {"md5": 32, "sha256": 64, None: 0}
    for found in records().values():
        for file in found.files:
            assert len(file.checksum or "") == lengths[file.algorithm]
            assert re.fullmatch(r"[0-9a-f]*", file.checksum or "")
            assert file.verified is (file.algorithm is not None)
    assert not any(file.verified for file in record("jetnet150").files)


def test_sizes_of_jetnet_are_those_of_its_layout():
    jets = {"g": 177_252, "t": 177_945, "q": 170_679, "w": 177_172, "z": 176_952}
    for file in record("jetnet").files:  # 30 x 4 and 4 numbers of 4 bytes, and HDF5's own 2,048
        assert file.size == jets[file.name[0]] * 124 * 4 + 2048


def test_files_are_chosen_by_name_and_pattern():
    found = record("omnifold")
    assert len(found.select(["Herwig*"])) == 17
    assert [f.name for f in record("jetnet").select(["z.hdf5"])] == ["z.hdf5"]
    with pytest.raises(ConfigError, match="Did you mean 't.hdf5'"):
        record("jetnet").select(["tt.hdf5"])
    with pytest.raises(ConfigError, match="unknown record of public files: 'jetnett'"):
        record("jetnett")


# ---- downloads


def test_a_file_comes_whole_and_is_not_fetched_twice(tmp_path):
    seen: list[int] = []
    with served() as (url, asked):
        done = fetch_file(*made(), tmp_path / "new", base_url=url, on_bytes=seen.append)
        again = fetch_file(*made(), tmp_path / "new", base_url=url)
    assert done.path.read_bytes() == CONTENT
    assert (done.verified, done.was_there, again.was_there) == (True, False, True)
    assert sum(seen) == len(CONTENT)
    assert asked == [None]
    assert [p.name for p in (tmp_path / "new").iterdir()] == [NAME]


def test_a_broken_connection_is_continued_where_it_broke(tmp_path):
    with served(breaks=[1000, 500]) as (url, asked):
        done = fetch_file(*made(), tmp_path, base_url=url)
    assert done.path.read_bytes() == CONTENT
    assert asked == [None, "bytes=1000-", "bytes=1500-"]


def test_an_interrupted_download_goes_on_in_the_next_call(tmp_path):
    with served(breaks=[1000] + [0] * 10) as (url, _), pytest.raises(FetchError) as caught:
        fetch_file(*made(), tmp_path, base_url=url)
    assert f"1,000 of {len(CONTENT):,} bytes are kept" in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert not (tmp_path / NAME).exists()
    seen: list[int] = []
    with served() as (url, asked):
        done = fetch_file(*made(), tmp_path, base_url=url, on_bytes=seen.append)
    assert done.path.read_bytes() == CONTENT
    assert asked == ["bytes=1000-"]
    assert seen[0] == 1000


def test_a_server_without_ranges_sends_all_again(tmp_path):
    (tmp_path / f"{NAME}.partial").write_bytes(b"x" * 1000)
    seen: list[int] = []
    with served(ranges=False) as (url, _):
        done = fetch_file(*made(), tmp_path, base_url=url, on_bytes=seen.append)
    assert done.path.read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)


@pytest.mark.parametrize("file", [made, unverified])
def test_a_complete_part_only_needs_its_name(tmp_path, file):
    (tmp_path / f"{NAME}.partial").write_bytes(CONTENT)
    with served() as (url, _):
        assert fetch_file(*file(), tmp_path, base_url=url).path.read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_is_deleted(tmp_path):
    (tmp_path / f"{NAME}.partial").write_bytes(CONTENT + b"more")
    with served() as (url, _):
        done = fetch_file(*unverified(), tmp_path, base_url=url)
    assert done.path.read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_no_file(tmp_path):
    with served() as (url, _), pytest.raises(FetchError) as caught:
        fetch_file(*made(checksum="0" * 32), tmp_path, base_url=url)
    assert "must have the md5 " + "0" * 32 in str(caught.value)
    assert "https://doi.org/10.1/x" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [5, 10**9])
def test_a_size_that_is_not_the_one_of_the_source_is_refused_at_once(tmp_path, size):
    with served() as (url, asked), pytest.raises(FetchError, match=f"must have {size:,}"):
        fetch_file(*made(size=size), tmp_path, base_url=url)
    assert not (tmp_path / NAME).exists()
    assert len(asked) == 1


def test_a_file_of_the_user_that_differs_is_kept(tmp_path):
    (tmp_path / NAME).write_bytes(b"mine")
    with served() as (url, asked), pytest.raises(FetchError, match="move it away"):
        fetch_file(*made(), tmp_path, base_url=url)
    assert (tmp_path / NAME).read_bytes() == b"mine"
    assert asked == []


def test_without_a_known_checksum_the_file_counts_as_unverified(tmp_path):
    with served() as (url, _):
        done = fetch_file(*unverified(), tmp_path, base_url=url)
    assert not done.verified
    assert "UNVERIFIED" in done.text()
    assert done.checksum == f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def test_a_missing_file_names_the_page_of_the_record(tmp_path):
    with served(status=404) as (url, asked), pytest.raises(FetchError) as caught:
        fetch_file(*made(), tmp_path, base_url=url)
    assert "answers 404" in str(caught.value)
    assert "https://doi.org/10.1/x" in str(caught.value)
    assert len(asked) == 1


def test_a_server_that_is_busy_is_asked_again_but_not_for_ever(tmp_path):
    with served(status=503) as (url, asked), pytest.raises(FetchError, match="broke off"):
        fetch_file(*made(), tmp_path, base_url=url)
    assert len(asked) == module.ATTEMPTS


def test_without_network_the_message_says_what_to_do(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(FetchError) as caught:
        fetch_file(*made(), tmp_path, base_url=f"http://127.0.0.1:{port}")
    assert "no connection to http://127.0.0.1" in str(caught.value)
    assert "download events.hdf5 elsewhere from https://doi.org/10.1/x" in str(caught.value)


@pytest.mark.parametrize("url", ["file:///etc", "ftp://host/x", "zenodo.org", "http://"])
def test_other_protocols_are_refused(tmp_path, url):
    with pytest.raises(ConfigError, match="starts with http"):
        fetch_file(*made(), tmp_path, base_url=url)


# ---- the commands


def test_commands_list_and_fetch(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("data", "list") == 0
    assert "https://doi.org/10.5281/zenodo.3548091" in capsys.readouterr().out
    assert run("data", "list", "jetnet150") == 0
    shown = capsys.readouterr().out
    assert "size unknown  unverified" in shown
    with served() as (url, asked):
        assert run("data", "fetch", "jetnet150", "w150.hdf5", "--base-url", url) == 0
    assert (tmp_path / "jetnet150" / "w150.hdf5").read_bytes() == CONTENT
    assert len(asked) == 1
    shown = capsys.readouterr().out
    assert "UNVERIFIED" in shown
    assert "cite" in shown


def test_a_failed_fetch_is_an_error_with_a_message(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with served() as (url, _):
        assert run("data", "fetch", "jetnet", "-o", "here", "--base-url", url) == 1
    assert "must have 88,262,768" in capsys.readouterr().err
    assert list((tmp_path / "here").glob("*")) == []
    assert run("data", "fetch", "nothing", "--base-url", url) == 1
    assert "Known: calochallenge1" in capsys.readouterr().err


def test_files_are_fetched_from_where_the_record_lies():
    assert record("omnifold").base_url == "https://zenodo.org/records/3548091/files"
    assert Path(record("jetnet").select()[0].name).suffix == ".hdf5"
