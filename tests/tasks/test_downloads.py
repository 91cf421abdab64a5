"""Image files from mirrors that are dead, lie, or break off, from servers on this machine."""

import gzip
import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from command import command
from digits import BODIES, PIXELS, TRAIN
from lyaptorch.tasks import SequentialImages, archives

NAMES = [file.name for file in archives.ARCHIVES["mnist"].files]
PACKED = dict(zip(NAMES, map(gzip.compress, BODIES), strict=True))


class Mirror:
    """A server of the files; `change` makes of a right body what is sent, and of its length what is said."""

    def __init__(self, change=lambda body: (200, body, len(body))):
        self.asked = asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                status, body, length = change(PACKED[self.path.rpartition("/")[2]])
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/data/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Where downloads go."""
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / name)
    monkeypatch.setattr(archives, "_loaded", {})
    monkeypatch.delenv("LYAPTORCH_DATA", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "lyaptorch" / "mnist"


@pytest.fixture
def mirrors(monkeypatch, cache):
    """Make mirrors, and know the files by their checksums."""
    running = []

    def start(*changes):
        files = tuple(
            archives.File(name, hashlib.md5(packed).hexdigest(), hashlib.sha256(body).hexdigest())
            for (name, packed), body in zip(PACKED.items(), BODIES, strict=True)
        )
        running.extend(made := [Mirror(change) if change else Mirror() for change in changes])
        archive = replace(
            archives.ARCHIVES["mnist"], files=files, mirrors=tuple(mirror.url for mirror in made)
        )
        monkeypatch.setitem(archives.ARCHIVES, "mnist", archive)
        return made

    yield start
    for mirror in running:
        mirror.close()


def dead(mirror):
    """Nobody listens at its address any more."""
    mirror.close()
    mirror.close = lambda: None


def written(cache):
    root = cache.parent
    return sorted(path.name for path in root.rglob("*") if path.is_file()) if root.exists() else []


def missing(body):
    return 404, b"no such file", 12


def page(body):
    return 200, b"<html>sign in first</html>", 26


def another_byte(body):
    return 200, body[:-9] + bytes([body[-9] ^ 1]) + body[-8:], len(body)


def cut_short(body):
    return 200, body[: len(body) // 2], len(body)


def test_files_come_from_the_first_mirror_and_stay_in_the_cache(mirrors, cache):
    first, second = mirrors(None, None)
    images = archives.load("mnist")
    assert images.train.shape == (TRAIN, PIXELS)
    assert torch.equal(archives.read_idx(BODIES[1]), images.train_labels)
    assert first.asked == [f"/data/{name}" for name in NAMES]
    assert second.asked == []
    assert written(cache) == sorted(NAMES)
    archives._loaded.clear()
    dead(first)
    dead(second)
    assert torch.equal(archives.load("mnist").train, images.train)


def test_where_the_first_mirror_is_dead_the_second_is_used(mirrors, cache):
    first, second = mirrors(None, None)
    dead(first)
    assert SequentialImages("mnist").length == PIXELS
    assert second.asked == [f"/data/{name}" for name in NAMES]
    assert written(cache) == sorted(NAMES)


@pytest.mark.parametrize("wrong", [missing, page, another_byte, cut_short])
def test_what_a_mirror_sends_in_the_place_of_a_file_is_not_kept(mirrors, cache, wrong):
    first, second = mirrors(wrong, None)
    assert archives.load("mnist").train.shape == (TRAIN, PIXELS)
    assert first.asked == second.asked == [f"/data/{name}" for name in NAMES]
    for name in NAMES:
        assert (cache / name).read_bytes() == PACKED[name]
    assert written(cache) == sorted(NAMES)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (missing, r"404 Client Error"),
        (page, r"MD5 hash of downloaded file .* does not match"),
        (another_byte, r"MD5 hash of downloaded file .* does not match"),
        (cut_short, r"Connection broken: IncompleteRead"),
    ],
)
def test_where_no_mirror_has_a_file_the_error_says_why_and_nothing_is_left(mirrors, cache, wrong, why):
    (mirror,) = mirrors(wrong)
    with pytest.raises(FileNotFoundError, match=rf"^{NAMES[0]} could not be fetched \({mirror.url}: .*{why}"):
        archives.load("mnist")
    assert written(cache) == []
    assert not archives._loaded


def test_a_damaged_file_of_the_cache_is_fetched_again(mirrors, cache):
    mirrors(None)
    archives.load("mnist")
    archives._loaded.clear()
    (cache / NAMES[2]).write_bytes(PACKED[NAMES[2]][:100])
    assert archives.load("mnist").test.shape == (20, PIXELS)
    assert (cache / NAMES[2]).read_bytes() == PACKED[NAMES[2]]


def test_files_that_have_come_stay_where_a_later_one_fails(mirrors, cache):
    def only_the_first(body):
        return (200, body, len(body)) if body == PACKED[NAMES[0]] else missing(body)

    mirrors(only_the_first)
    with pytest.raises(FileNotFoundError, match=rf"^{NAMES[1]} could not be fetched"):
        archives.load("mnist")
    assert written(cache) == NAMES[:1]


@pytest.mark.usefixtures("unchecked")
def test_offline_the_command_says_in_a_sentence_which_files_go_where(
    mirrors, cache, monkeypatch, capsys, tmp_path
):
    made = mirrors(None, None)
    for mirror in made:
        dead(mirror)
    (tmp_path / "empty").mkdir()
    with command(tmp_path / "empty", monkeypatch, capsys) as lyap:
        error = lyap.fails("reproduce", "weak-coupling", "images", "--scale", "smoke")
    for part in (*NAMES, *(mirror.url for mirror in made), "folder mnist", "data_dir", "LYAPTORCH_DATA"):
        assert part in error
    assert written(cache) == []
