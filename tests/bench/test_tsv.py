"""The published file is read as it is; anything else is refused with its row and column."""

import re

import published
import pytest

from trl_onevision.bench.tsv import TsvError, read_tsv


def test_rows_are_read_as_published(tsv):
    rows = read_tsv(tsv)
    assert [row.index for row in rows] == [str(number) for number in range(1, 9)]
    assert [row.choices is not None for row in rows] == [True, False, True, False, True, False, True, False]
    assert rows[0].choices == ["1", "2", "3"]
    assert rows[4].choices == ["A. a square", "B. a disc"]
    assert rows[6].choices == ["one", "both", "none", "two"], "letters alone: the question lists the options"
    assert rows[5].question.endswith("What is the force\tin newtons?")
    assert rows[7].image == rows[0].image, "a short cell names the row whose image it shares"
    assert {row.level for row in rows} == {"Junior High School", "High School", "College", "Social Test"}


def test_the_first_rows_alone(tsv):
    assert len(read_tsv(tsv, limit=3)) == 3


@pytest.mark.parametrize(
    "share, said",
    [
        (0.999, r"row 8 .*column 'image'|row 8, column"),
        (0.7, r"row \d"),
        (0.4, r"row \d"),
    ],
)
def test_a_truncated_file_is_refused(tmp_path, share, said):
    made = published.rows()
    made[-1]["image"] = published.picture(8)
    whole = published.write(tmp_path / "whole.tsv", made).read_bytes()
    path = tmp_path / "cut.tsv"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(TsvError, match=said) as refused:
        read_tsv(path)
    assert "column" in str(refused.value)
    assert "Download" in str(refused.value)


def test_a_cut_at_any_byte_of_a_row_is_noticed_or_loses_whole_rows(tmp_path):
    """What cannot be noticed is a cut right behind a row: the report says how many rows there were."""
    whole = published.write(tmp_path / "whole.tsv").read_bytes()
    path = tmp_path / "cut.tsv"
    complete = {match.end() for match in re.finditer(rb"\n(?=\d+\t|$)", whole)}
    start = whole.rindex(b"\n7\t")
    for end in range(start + 1, len(whole) - 3, 97):
        path.write_bytes(whole[:end])
        if end in complete or end + 1 in complete:
            continue
        with pytest.raises(TsvError, match="column"):
            read_tsv(path)


@pytest.mark.parametrize(
    "column, value, problem",
    [
        ("answer", "", "found nothing"),
        ("level", " ", "found nothing"),
        ("category", "", "found nothing"),
        ("question", "", "found nothing"),
        ("index", "2", "the index of row 2"),
        ("image", "bm90IGFuIGltYWdl" * 10, "cannot be decoded"),
        ("image", "photos/cat.png", "not base64"),
        ("image", "/etc/hostname", "cannot be decoded|not base64"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path, column, value, problem):
    made = published.rows()
    made[4][column] = value
    with pytest.raises(TsvError, match=rf"row 5 .*column '{column}': .*({problem})"):
        read_tsv(published.write(tmp_path / "wrong.tsv", made))


def test_a_row_with_a_field_too_few_or_too_many(tmp_path):
    path = published.write(tmp_path / "wrong.tsv")
    lines = path.read_text().replace("College\tPhysics", "College", 1)
    path.write_text(lines)
    with pytest.raises(TsvError, match=r"row 6, column 'image': wrong number of cells; found 6 cells, expected 7"):
        read_tsv(path)
    path.write_text(lines.replace("College\t", "College\tPhysics\tagain\t", 1))
    with pytest.raises(TsvError, match=r"row \d, column 'image': .*found 9 cells"):
        read_tsv(path)


def test_another_table_is_refused_by_its_header(tmp_path):
    path = tmp_path / "other.tsv"
    path.write_text("index\tquestion\tanswer\n1\tWhy?\tA\n")
    with pytest.raises(TsvError, match=r"row 0 \(the header\), column 'choices'"):
        read_tsv(path)
    path.write_text("\t".join(published.COLUMNS) + "\n")
    with pytest.raises(TsvError, match="no rows"):
        read_tsv(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TsvError, match="UTF-8"):
        read_tsv(path)
    with pytest.raises(TsvError, match="cannot be read"):
        read_tsv(tmp_path / "missing.tsv")


@pytest.mark.parametrize("row, column", [(1, "question"), (6, "answer"), (8, "category")])
def test_bytes_that_are_not_utf8_are_named_by_row_and_column(tmp_path, row, column):
    made = published.rows()
    made[row - 1][column] += "HERE"
    path = published.write(tmp_path / "latin.tsv", made)
    path.write_bytes(path.read_bytes().replace(b"HERE", "é".encode("latin-1")))
    with pytest.raises(
        TsvError, match=rf"row {row}, column '{column}': not UTF-8; found the byte 0xe9, expected UTF-8"
    ):
        read_tsv(path)


def test_the_limit_of_csv_fields_is_left_as_it_was(tsv):
    import csv

    before = csv.field_size_limit()
    read_tsv(tsv)
    assert csv.field_size_limit() == before
