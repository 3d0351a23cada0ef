from pathlib import Path

import numpy as np
import pytest

from zsteer.data.tables import MAX_COLUMNS, Table, files_of_rows, read_table


def table_of(folder, text, name="labels.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path)


def test_labels_are_0_and_1_however_they_are_written_and_numbers_stay(tmp_path):
    table = table_of(
        tmp_path,
        "file,hat,glasses,smile,beard,height\na.png,1,-1,true,Yes,1.75\nb.png,0,1,False,no,\nc.png,,1,,no,-3e2\n",
    )
    assert table.files == ("a.png", "b.png", "c.png")
    assert table.names == ("hat", "glasses", "smile", "beard", "height")
    expected = [[1, 0, 1, 1, 1.75], [0, 1, 0, 0, np.nan], [np.nan, 1, np.nan, 0, -300]]
    np.testing.assert_array_equal(table.targets, np.array(expected, np.float32))
    assert table.splits is None


def test_numbers_of_which_some_are_labels_are_numbers(tmp_path):
    table = table_of(tmp_path, "file,count\na,0\nb,1\nc,2\nd,-1\n")
    assert table.targets[:, 0].tolist() == [0, 1, 2, -1]


@pytest.mark.parametrize("words", [("train", "Val", " test"), ("0", "1", "2")])
def test_a_column_says_what_is_held_out(tmp_path, words):
    rows = "".join(f"{place}.png,1,{word}\n" for place, word in enumerate(words))
    table = table_of(tmp_path, f"file,hat,split\n{rows}")
    assert table.names == ("hat",)
    assert table.splits is not None and table.splits.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("image_id,Smiling,Male\n000001.jpg,-1,1\n", ("Smiling", "Male")),
        ("2\nSmiling Male \n000001.jpg -1  1\n000002.jpg  1 -1\n", ("Smiling", "Male")),
        ("hat,filename\n1,000001.jpg\n", ("hat",)),
        ("id,hat\n000001.jpg,1\n", ("hat",)),
        ("\ufeff,file,big nose\n0,000001.jpg,1\n", ("Big_Nose",)),
        (",hat\n000001.jpg,1\n", ("hat",)),
        ('file, "hat"\n000001.jpg, "1"\n', ("hat",)),
        ("file,,Unnamed: 1,\n000001.jpg,7,1,8\n", ("Unnamed: 1",)),
    ],
    ids=[
        *("Kaggle's", "CelebA's", "another order", "the first column", "an index and a mark of the encoding"),
        *("an index of names", "quoted after a space", "columns without names"),
    ],
)
def test_tables_as_they_are_found(tmp_path, text, names):
    table = table_of(tmp_path, text)
    assert table.names == names
    assert table.files[0] == "000001.jpg"


def test_zeros_at_the_start_of_a_name_stay(tmp_path):
    assert table_of(tmp_path, "file,hat\n000007,1\n").files == ("000007",)


def test_a_file_may_be_called_as_missing_numbers_are_written(tmp_path):
    table = table_of(tmp_path, "file,hat\nNA,1\nnull,NA\n")
    assert table.files == ("NA", "null") and np.isnan(table.targets[1, 0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; its first line should name the columns"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "is not a CSV that can be read"),
        ("file,hat\na.png,1,1\n", "is not a CSV that can be read"),
        ("file," + ",".join(map(str, range(1_000_000))), f"at most {MAX_COLUMNS:,} columns are taken"),
        ("file," + ",".join(map(str, range(2_000))), "2,001 columns; at most 1,000 columns are taken"),
        ("file,Smiling,smiling\na,1,0\n", "the columns 'Smiling' and 'smiling' have one spelling"),
        ("file,age,Age\na,1,30\n", "the columns 'age' and 'Age' have one spelling"),
        ("file,hat,hat\na,1,0\n", "the columns 'hat' and 'hat' have one spelling"),
        ("file,hat\na.png,1\nb.png,maybe\n", "column 'hat' has 'maybe' in line 3, which is no finite number"),
        ("file,hat\na.png,1\nb.png,inf\n", "column 'hat' has 'inf' in line 3"),
        ("file,hat\na.png,1\nb.png,1e300\n", "column 'hat' has '1e\\+300' in line 3"),
        ("file,age\na.png,1\n\n\n\nb.png,old\n", "column 'age' has 'old' in line 6"),
        ("file,hat\na.png,1\n,1\n", "names no file in column 'file', line 3"),
        ("file,split\na.png,train\nb.png,dev\n", "column 'split' has 'dev' in line 3; it must be train, val, test or"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, text, said):
    with pytest.raises(ValueError, match=rf"data.table=.*labels.csv.*{said}") as error:
        table_of(tmp_path, text)
    assert "\n" not in str(error.value)


def test_no_such_table():
    with pytest.raises(FileNotFoundError, match="data.table=nowhere.csv: no such file"):
        read_table(Path("nowhere.csv"))


FILES = ("a/1.png", "a/2.png", "b/1.png", "b/3.jpg")


def rows_of(*written):
    targets = np.empty((len(written), 0), np.float32)
    table = Table(Path("set/labels.csv"), written, (), targets, lines=range(2, 2 + len(written)))
    return files_of_rows(table, Path("set/images"), FILES)


def test_rows_mean_files_by_path_name_or_stem():
    assert rows_of("a/1.png", "2.png", "3", "images/b/1.png", "c/1.png", "9.png") == [
        "a/1.png",
        "a/2.png",
        "b/3.jpg",
        "b/1.png",
        None,
        None,
    ]
    assert rows_of("./a/2.png", "b\\1.png") == ["a/2.png", "b/1.png"]
    assert rows_of("../set/images/a/1.png", "images/a/../a/2.png") == ["a/1.png", "a/2.png"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["1.png"], "line 2 names '1.png', which may be a/1.png or b/1.png; give its path below data.images"),
        (["2.png", "3", "a/2.png"], "lines 2 and 4 both name a/2.png; keep one of them"),
    ],
)
def test_rows_that_mean_no_one_file_are_refused(written, said):
    with pytest.raises(ValueError, match=said):
        rows_of(*written)
