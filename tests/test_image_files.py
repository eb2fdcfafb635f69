"""Which files words stand for, and what becomes of results where a job ends early."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from darknet_compat.errors import DataError, ImageError, ResultsError, WeightsError
from darknet_compat.image_files import (
    check_file,
    check_some,
    check_written,
    find_images,
    folder_images,
    kept_results,
    listed_images,
    make_folder,
    results_one_by_one,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("set/c.png", "set/B.JPG", "set/a.jpeg", "set/deep/d.bmp", "set/note.txt", "other.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("set/c.png\nnone.png\n")
    Path("paths.list").write_text("set/c.png\n")
    return tmp_path


def test_what_words_stand_for(folder):
    """In the order of the words, and by name within each; what a list names need not be there."""
    everything = ["set/B.JPG", "set/a.jpeg", "set/c.png"]
    for words, found in (
        (["set"], everything),
        (["set/note.txt"], ["set/c.png", "none.png"]),
        (["paths.list", "other.png"], ["set/c.png", "other.png"]),
        (["other.png", "set", "other.png"], ["other.png", *everything, "other.png"]),
        (["set/*.?p*g"], ["set/a.jpeg"]),
        (["set/**/*.[bp]*"], ["set/c.png", "set/deep/d.bmp"]),
        (["*r*.png", "set/[ac]*"], ["other.png", "set/a.jpeg", "set/c.png"]),
        ([], []),
    ):
        assert find_images(words) == found, words
    assert Path(find_images(["data/shapes-sample.jpg"])[0]).is_file()
    for word in ("", "none.png", "none/*.png", "none.txt"):
        with pytest.raises(ImageError, match=r": no such image, folder or list, and no file matches it as a pattern$"):
            find_images(["other.png", word])
    os.mkdir("empty")
    with pytest.raises(ImageError, match=r"^empty: no image in this folder; expected files ending in \.jpg, "):
        find_images(["empty"])


def test_folders_of_classes_are_read_by_name(folder):
    os.makedirs("set/class")
    Path("set/class/Z.PNG").write_text("")
    Path("set/class/x.png").write_text("")
    assert folder_images("set") == listed_images("set") == ["set/class/Z.PNG", "set/class/x.png", "set/deep/d.bmp"]
    assert listed_images("paths.list") == ["set/c.png"]
    several = [f"many/{letter}/1.png" for letter in "hgfedcba"]
    for path in several:
        os.makedirs(os.path.dirname(path))
        Path(path).write_text("")
    assert folder_images("many") == several[::-1]
    with pytest.raises(DataError, match=r"^set/deep: no image in the 0 folders in it; expected images as set/deep/CLA"):
        listed_images("set/deep")
    with pytest.raises(DataError, match=r"^none: cannot read the folder: No such file"):
        folder_images("none")
    with pytest.raises(DataError, match=r"^a\.tar: a tar file; expected a list or a folder of images"):
        listed_images("a.tar")


def test_the_last_of_a_list_is_looked_for_too(folder):
    check_some(["other.png"] * 5, "a.list")
    with pytest.raises(
        DataError, match=r"^none\.png: no such image; 1 of 3 images that were looked for are missing, of the 3 "
    ):
        check_some(["other.png", "other.png", "none.png"], "a.list")
    many = ["other.png"] * 4999 + ["none.png"]
    with pytest.raises(
        DataError, match=r"1 of 1,000 images that were looked for are missing, of the 5,000 in a\.list; .*"
    ):
        check_some(many, "a.list")


def test_where_to_write(folder):
    make_folder(folder / "a/b")
    check_file("c/d/found.json")
    assert (folder / "a/b").is_dir()
    assert os.listdir("c/d") == []
    with pytest.raises(ResultsError, match=r"^other\.png: File exists; expected a folder to write to$"):
        make_folder(Path("other.png"))
    with pytest.raises(ResultsError, match=r"^set: a folder; expected a file's name$"):
        check_file("set")
    os.symlink("other.png", "link.png")
    check_written(["new.png", "link2.png"], ["other.png", ""])
    for written, read in (("other.png", "set/../other.png"), ("link.png", "other.png"), ("other.png", "link.png")):
        with pytest.raises(ResultsError, match=f"^{written}: the command reads this file too, and would overwrite it"):
            check_written(["new.png", written], ["set/c.png", read])


@pytest.fixture
def files():
    """What kept_results and its like are given, and what they wrote."""
    written = {}
    return {name: lambda found, name=name: written.update({name: list(found)}) for name in ("a", "b")}, written


def job(*things):
    """A run that gives each thing, says that an image cannot be read, or ends."""

    def run(unreadable):
        for thing in things:
            if isinstance(thing, ImageError):
                unreadable(thing)
            elif isinstance(thing, BaseException):
                raise thing
            else:
                yield thing

    return run


@pytest.mark.parametrize(
    "end", [ImageError("x.png: no"), ResultsError("full"), WeightsError("cut"), KeyboardInterrupt()], ids=repr
)
def test_what_was_found_before_an_end_is_written_and_said(files, end):
    writers, written = files
    with pytest.raises(type(end)) as raised:
        kept_results(job(1, 2, end, 3), writers, skip=False)
    assert written == {"a": [1, 2], "b": [1, 2]}
    first = "; or add -skip to pass over such images" if isinstance(end, ImageError) else ""
    kept = "; what was found in 2 images before it stands in a and b"
    assert str(raised.value) == f"{end}{first}{kept}"
    assert raised.value.__cause__ is not None, "-debug shows where it came from"
    written.clear()
    with pytest.raises(type(end)) as raised:
        kept_results(job(end, 3), writers, skip=False)
    assert (written, str(raised.value)) == ({}, f"{end}{first}"), "nothing found, and older files stay"
    with pytest.raises(type(end), match=r"^(?!.*stands in)"):
        kept_results(job(1, end), {}, skip=False)


def test_images_that_cannot_be_read_are_passed_over_where_that_is_asked_for(files):
    writers, written = files
    with pytest.warns(UserWarning, match="skipped") as warned:
        assert kept_results(job(1, ImageError("x.png: no"), 2), writers, skip=True) == [1, 2]
    assert [str(one.message) for one in warned] == ["x.png: no; skipped"]
    assert written == {"a": [1, 2], "b": [1, 2]}
    with pytest.warns(UserWarning, match="skipped"):
        assert kept_results(job(ImageError("x.png: no")), writers, skip=True) == []
    assert written == {"a": [], "b": []}, "a job that was done has its files"


def test_results_one_by_one_wait_for_nothing_and_lose_nothing(folder, files):
    writers, written = files
    asked, refused = [], []

    def paths(end=None):
        for path in ("one", "bad", "full", "two"):
            asked.append(path)
            yield path
        if end:
            raise end

    def run(path):
        if path == "bad":
            raise ImageError("bad: no")
        yield path
        if path == "full":
            raise ResultsError("full: no room")

    results = results_one_by_one(paths(), run, writers, refused.append)
    assert (next(results), asked) == ("one", ["one"])
    assert [*results] == ["full", "two"]
    assert [str(error) for error in refused] == ["bad: no", "full: no room"]
    assert written == {"a": ["one", "full", "two"], "b": ["one", "full", "two"]}
    for end in (ImageError("standard input: a zero byte"), KeyboardInterrupt(), WeightsError("x")):
        written.clear()
        with pytest.raises(type(end)):
            list(results_one_by_one(paths(end), run, writers, refused.append))
        assert written["b"] == ["one", "full", "two"]
    written.clear()
    assert list(results_one_by_one(["bad"], run, writers, refused.append)) == []
    assert written == {}, "nothing found, and older files stay"
    (stock,) = results_one_by_one(["data/shapes-sample.jpg"], run, {}, refused.append)
    assert Path(stock).is_file()
