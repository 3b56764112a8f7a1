"""Files are replaced whole, or not at all."""

import fcntl
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from electra_jax.errors import UserError
from electra_jax.files import path_of, regular, replace_file, replacing, replacing_directory


@pytest.mark.parametrize("path_type", [Path, path_of])
def test_a_file_is_replaced_whole_as_text_or_bytes(tmp_path: Path, path_type: type) -> None:
    path = tmp_path / "record.json"
    replace_file(path_type(path), "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    replace_file(path_type(path), b"\xff", durable=True)
    assert path.read_bytes() == b"\xff"
    assert os.listdir(tmp_path) == ["record.json"]


def test_what_is_half_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as part:
            part.write_text("half")
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_durable_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "record.json", []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append((stat.S_ISDIR(os.fstat(file).st_mode), path.exists())))
    replace_file(path, "1234")
    assert seen == []
    path.unlink()
    replace_file(path, "1234", durable=True)
    # The file, and then its name.
    assert seen == [(False, False), (True, True)]


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    for content in ("old", "new"):
        with replacing_directory(directory) as part:
            (part / content).write_text(content)
    assert os.listdir(directory) == ["new"]

    def write_half() -> None:
        with replacing_directory(directory) as part:
            (part / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert os.listdir(directory) == ["new"]
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_thread_writes_late_into_a_failed_directory_is_removed(tmp_path: Path) -> None:
    """As a library's threads do, which make the folder that they miss."""

    def write_late(part: Path) -> None:
        while part.exists():
            time.sleep(0.001)
        time.sleep(0.1)
        (part / "late").mkdir(parents=True)

    def fail() -> None:
        with replacing_directory(tmp_path / "model") as part:
            writers.append(threading.Thread(target=write_late, args=[part]))
            writers[0].start()
            raise OSError("the disk is full")

    writers: list[threading.Thread] = []
    with pytest.raises(OSError, match="the disk is full"):
        fail()
    writers[0].join()
    assert os.listdir(tmp_path) == []


def test_a_directory_is_filled_by_one_process(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    with replacing_directory(directory) as part:
        (part / "ours").touch()
        with (
            pytest.raises(UserError, match=r"model\.part is being written by another process: wait until it ends"),
            replacing_directory(directory),
        ):
            pass
        # It is left alone by who was refused.
        assert os.listdir(part) == ["ours"]
    assert os.listdir(directory) == ["ours"]
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_killed_process_left_of_a_directory_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "model.part" / "checkpoints").mkdir(parents=True)
    (tmp_path / "model.part" / "half").touch()
    (tmp_path / "model.part" / "link").symlink_to(tmp_path)
    with replacing_directory(tmp_path / "model") as part:
        assert os.listdir(part) == []
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_link_in_the_place_of_the_new_directory_leads_to_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file.txt").write_text("mine")
    (tmp_path / "folder.part").symlink_to(tmp_path / "mine")
    with replacing_directory(tmp_path / "folder") as part:
        (part / "new.txt").write_text("new")
    assert not (tmp_path / "folder").is_symlink()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new.txt"]
    assert (tmp_path / "mine/file.txt").read_text() == "mine"


def test_a_directory_that_its_holder_renames_meanwhile_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder ends after this process has opened its part and before it has locked it."""
    directory, part, before = tmp_path / "model", tmp_path / "model.part", fcntl.flock
    part.mkdir()
    (part / "theirs").touch()

    def flock(descriptor: int, operation: int) -> None:
        if not directory.exists():
            part.rename(directory)
        before(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with replacing_directory(directory) as ours:
        assert os.listdir(directory) == ["theirs"]
        (ours / "ours").touch()
    assert os.listdir(directory) == ["ours"]


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """Root may rename a file onto /dev/null, which would then be a file for every program of the machine."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", path_of(tmp_path / "pipe")):
        with pytest.raises(UserError, match="pipe is a pipe or a device"):
            replace_file(path, "text")
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_pipe_or_a_device_is_no_file_to_read(tmp_path: Path) -> None:
    """Its reader may wait for ever; those that name none, and folders, are left to what reads them."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    for name in ("pipe", "device"):
        for path in (tmp_path / name, path_of(tmp_path / name)):
            with pytest.raises(OSError, match="it is a pipe or a device: write its content to a file"):
                regular(path)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "none"):
        assert regular(path) is path
