"""Names, the lists that sets come with, and splits without overlap."""

from __future__ import annotations

import pytest

from bauta.data.people import (
    assert_disjoint,
    excluded_names,
    names_of_list,
    names_of_pairs,
    pairs_of_list,
)
from bauta.errors import UsageError
from bauta.names import normalise_name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Daniel Radcliffe", "daniel_radcliffe"),
        ("Brian_J._Smith", "brian j smith"),
        ("A.J. Cook", "AJ_Cook"),
        ("Zoë Saldaña", "Zoe-Saldana"),
        ("Nikolaj Lie Kaas Ørsted", "nikolaj lie kaas orsted"),
        ("Conan O’Brien", "Conan O'Brien"),
    ],
)
def test_spellings_of_one_name(one, other):
    assert normalise_name(one) == normalise_name(other)


def test_names_without_letters_are_refused():
    assert normalise_name("王菲") != normalise_name("刘德华")
    with pytest.raises(UsageError):
        normalise_name("_ .")


def test_names_of_lfw_pairs(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("10\t300\nAbel_Pacheco\t1\t4\nRobert_Downey_Jr\t1\tTom_Hanks\t2\n")
    assert names_of_pairs(path) == {"Abel_Pacheco", "Robert_Downey_Jr", "Tom_Hanks"}
    path.write_text("500\nAbdullah 13 14\n")
    assert names_of_pairs(path) == {"Abdullah"}


@pytest.mark.parametrize("text", ["", "10 300\n", "Abel_Pacheco 1\n", "one two three\n", "a 1 b two\n"])
def test_other_lists_of_pairs_are_refused(tmp_path, text):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(UsageError, match=r"pairs\.txt"):
        names_of_pairs(tmp_path / "pairs.txt")


def test_names_of_a_list(tmp_path):
    (tmp_path / "names.txt").write_text("50 Cent\n\n Halle Berry \n")
    assert names_of_list(tmp_path / "names.txt") == {"50 Cent", "Halle Berry"}
    with pytest.raises(UsageError, match="missing"):
        names_of_list(tmp_path / "missing.txt")


def test_assert_disjoint_names_the_offenders():
    assert_disjoint(["Tom Hanks"], {"Tom_Hardy"})
    with pytest.raises(UsageError, match=r"tom_hanks, Halle Berry\."):
        assert_disjoint(["a", "tom_hanks", "tom_hanks", "Halle Berry"], {"Tom Hanks", "halle-berry"})
    with pytest.raises(UsageError, match="e and 1 more"):
        assert_disjoint("abcdef", "abcdef")


def test_pairs_of_a_list(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("1\t1\nAbel_Pacheco\t1\t4\nRobert_Downey_Jr\t1\tTom_Hanks\t12\n")
    sizes, (one, other) = pairs_of_list(path)
    assert sizes == (1, 1)
    assert (one.first, one.second, one.same) == (("Abel_Pacheco", 1), ("Abel_Pacheco", 4), True)
    assert (other.first, other.second, other.same) == (("Robert_Downey_Jr", 1), ("Tom_Hanks", 12), False)


def test_a_person_is_not_two(tmp_path):
    (tmp_path / "pairs.txt").write_text("Ann 1 Ann 2\n")
    with pytest.raises(UsageError, match="different people"):
        pairs_of_list(tmp_path / "pairs.txt")


def test_people_of_lists_of_either_form_are_excluded_with_further_names(tmp_path):
    pairs, names = tmp_path / "pairs.txt", tmp_path / "names.txt"
    pairs.write_text("Abdullah\t1\t2\n")
    names.write_text("Halle Berry\n")
    assert excluded_names([pairs, names], ["Tom Hanks"]) == {"Abdullah", "Halle Berry", "Tom Hanks"}
    renamed = pairs.rename(tmp_path / "lfw.txt")  # the form of a list counts, not its name
    assert excluded_names([renamed]) == {"Abdullah"}
    renamed.write_text("10\t300\nAJ Lamas\t1\tChris Penn\t1\n")
    assert excluded_names([renamed]) == {"AJ Lamas", "Chris Penn"}
    with pytest.raises(UsageError, match="missing"):
        excluded_names([tmp_path / "nowhere.txt"])
