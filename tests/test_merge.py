"""dvc.lock of two sides, merged by stage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_dvc import ROOT

from stages import merge
from stages.command import UserError


def test_each_side_keeps_what_it_ran():
    base = {"a": 1, "b": 1, "c": 1, "gone": 1}
    ours = {"a": 2, "b": 1, "c": 1, "new": 3}
    theirs = {"a": 1, "b": 5, "c": 1, "gone": 1, "other": 4}
    assert merge.merged(base, ours, theirs) == {"a": 2, "b": 5, "c": 1, "new": 3, "other": 4}


def test_a_stage_run_on_both_sides_is_refused_unless_the_same_came_of_it():
    assert merge.merged({"a": 1}, {"a": 2}, {"a": 2}) == {"a": 2}
    with pytest.raises(UserError, match=r"dvc\.lock: a was run on both sides"):
        merge.merged({"a": 1}, {"a": 2}, {"a": 3})


locks = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2))


@given(locks, locks, locks)
def test_which_side_is_ours_does_not_matter(base, ours, theirs):
    def answer(*versions):
        try:
            return merge.merged(*versions)
        except UserError:
            return None

    assert answer(base, ours, theirs) == answer(base, theirs, ours)
    assert merge.merged(base, ours, base) == ours
    assert merge.merged(base, ours, ours) == ours


def test_what_is_written_is_laid_out_as_dvc_does(tmp_path):
    lock = (ROOT / "dvc.lock").read_bytes()
    paths = [tmp_path / name for name in ("base", "ours", "theirs")]
    for path in paths:
        path.write_bytes(lock)
    merge.main(*map(str, paths))
    assert paths[1].read_bytes() == lock


@pytest.mark.parametrize("text", ["<<<<<<< ours\na: 1\n=======\n", "[1, 2]", "stages: 3\n", "\x00"])
def test_a_file_that_is_no_lock_is_one_clear_line(tmp_path, text):
    for name in ("base", "ours", "theirs"):
        (tmp_path / name).write_text("stages: {}\n" if name == "base" else text, encoding="utf-8")
    with pytest.raises(UserError, match=r"ours: no dvc\.lock"):
        merge.main(*(str(tmp_path / name) for name in ("base", "ours", "theirs")))
    assert (tmp_path / "ours").read_text(encoding="utf-8") == text
