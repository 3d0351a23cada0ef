"""Whatever is done to a file, its reader gives what the file says or refuses it in one line.

`make test` mutates each file a few times, `make torture` hundreds of times; both also read what `make fuzz` has found,
a tenth of it where a reader is slow.
"""

import random
import zipfile

import pytest
from torture.readers import READERS, corpus


@pytest.mark.filterwarnings("ignore")  # libraries warn of what they then refuse
@pytest.mark.parametrize("name", READERS)
def test_a_mutated_file_is_read_or_refused_in_a_line(name, tmp_path, torture):
    reader, folder = READERS[name], tmp_path / "whole"
    folder.mkdir()
    path = reader.make(folder)
    reader.read(path)
    whole = path.read_bytes()
    count = (300 if torture else 20) // (10 if reader.slow else 1)
    mutations = {f"mutation {number}": mutated(whole, random.Random(number)) for number in range(count)}
    with zipfile.ZipFile(corpus(name)) as archive:
        names = archive.namelist()[:: 10 if reader.slow and not torture else 1]
        found = {file: archive.read(file) for file in names}
    for what, content in {**mutations, **found}.items():
        try:
            reader.read_or_refuse(content, path, folder)
        except Exception as error:
            pytest.fail(f"{name}, {what}: {type(error).__name__}: {error}")


def mutated(content: bytes, numbers: random.Random) -> bytes:
    """The content cut short, with bytes changed, zeroed, repeated, taken out, or put in."""
    start = numbers.randrange(len(content) + 1)
    end = min(len(content), start + numbers.choice([1, 2, 8, 64, 1024]))
    noise = numbers.randbytes(end - start)
    return numbers.choice(
        [
            content[:start],
            content[:start] + noise + content[end:],
            content[:start] + bytes(end - start) + content[end:],
            content[:end] + content[start:],
            content[:start] + content[end:],
            content[:start] + noise + content[start:],
        ]
    )
