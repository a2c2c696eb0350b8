import pytest

from diffjax.core.errors import ConfigError, InputError
from diffjax.evaluation.judging import collection
from diffjax.evaluation.judging.collection import Collection, Prompt
from tests.evaluation.judging import made


def test_prompts_are_read_by_the_names_of_their_columns(tmp_path):
    path = tmp_path / "p.csv"
    text = '\ufeffNumber,Category, Prompts \r\n1,Colors,"A red, round apple."\r\n'
    text += '\r\n2,Text,"a ""sign"""\n'
    path.write_text(text, encoding="utf-8")
    wanted = (Prompt("A red, round apple.", "Colors"), Prompt('a "sign"', "Text"))
    assert collection.read_prompts(path) == wanted


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "want a line of column names, then prompts"),
        (b"Prompts,Category\n", "want a line of column names"),
        (b"Text,Category\nx,y\n", "has no column 'prompts', only Text, Category"),
        (b"Prompts,Kind\nx,y\n", "has no column 'category'"),
        (b"Prompts,Category\nx,y\nz\n", "line 3 of .*has no category"),
        (b"Prompts,Category\n ,y\n", "line 2 of .*has no prompt"),
        (b'Prompts,Category\n"x,y\n', "is not CSV"),
        (b"Prompts,Category\n\xff,y\n", "is not UTF-8 at byte 17"),
        (b"Prompts,Category\n" + b"x" * 10_001 + b",y\n", "10001 characters, at most 10000"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_its_line(content, words, tmp_path):
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=words) as error:
        collection.read_prompts(tmp_path / "p.csv")
    assert "\n" not in str(error.value)


def test_systems_are_called_like_their_folders_or_as_said(tmp_path):
    assert collection.names_of([tmp_path / "a", tmp_path / "b.safetensors"], None) == ["a", "b"]
    assert collection.names_of([tmp_path / "a", tmp_path / "a"], "x,y-2") == ["x", "y-2"]


@pytest.mark.parametrize("names", ["x", "x,X", "x,pages", "x,con", "x,lpt1", "x,..", "x,a/b", "x,"])
def test_a_name_that_is_no_folder_on_some_system_is_refused(names, tmp_path):
    with pytest.raises(ConfigError, match="--names"):
        collection.names_of([tmp_path / "a", tmp_path / "b"], names)


def test_a_folder_is_of_one_list_and_of_the_same_seeds(tmp_path):
    wanted = Collection(made.PROMPTS, (0, 1))
    collection.begin(tmp_path, wanted)
    collection.begin(tmp_path, wanted)
    assert collection.read(tmp_path) == wanted
    for other in (Collection(made.PROMPTS, (0, 2)), Collection(made.PROMPTS[:1], (0, 1))):
        with pytest.raises(ConfigError, match="holds pictures of other prompts or seeds"):
            collection.begin(tmp_path, other)


def test_the_largest_picture_of_each_seed_is_taken(tmp_path):
    made.pictures(tmp_path)
    found = collection.pictures_of(tmp_path, "a", collection.read(tmp_path))
    assert [[path.name for path in row] for row in found] == [
        ["0000_seed0_8px.png", "0001_seed1_8px.png"], ["0002_seed0_8px.png", "0003_seed1_8px.png"],
    ]  # fmt: skip


def test_pictures_that_are_missing_or_of_another_prompt_are_refused(tmp_path):
    made.pictures(tmp_path)
    (tmp_path / "a" / "0002_seed0_8px.png").unlink()
    with pytest.raises(InputError, match="lacks 1 of 4 pictures"):
        collection.pictures_of(tmp_path, "a", collection.read(tmp_path))
    (tmp_path / "b" / "0000_seed0_8px.png").replace(tmp_path / "b" / "0002_seed0_8px.png")
    (tmp_path / "b" / "0001_seed1_8px.png").replace(tmp_path / "b" / "0000_seed0_8px.png")
    with pytest.raises(InputError, match="a picture of another prompt or seed"):
        collection.pictures_of(tmp_path, "b", collection.read(tmp_path))


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"prompts": [["x"]], "seeds": [0]}',
                                     '{"prompts": [["x", "y"]], "seeds": ["0"]}'])  # fmt: skip
def test_a_damaged_list_is_told_in_one_line(content, tmp_path):
    (tmp_path / "prompts.json").write_text(content)
    with pytest.raises(
        OSError if content in ("[]", "{") else InputError, match="in another folder"
    ):
        collection.read(tmp_path)
