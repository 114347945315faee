"""WebDataset shards: the library's own files are read, and nothing in a shard can do harm."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest
import webdataset

from mmbridge.data.formats import open_source
from mmbridge.data.media import open_image
from mmbridge.data.shards import ShardRecords
from mmbridge.errors import DataError
from tests.data.pictures import encoded, noise


def shard(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def column(**columns: object) -> bytes:
    return json.dumps(columns).encode()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards by webdataset's own writer: three samples, then two."""
    with webdataset.ShardWriter(f"{tmp_path}/train-%03d.tar", maxcount=3, verbose=0) as writer:
        for index in range(5):
            row = {"text": f"caption {index}", "id": f"r{index}"}
            writer.write({"__key__": f"{index:04d}", "png": encoded(noise(index)), "json": row})
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "train-{000..001}.tar"])
def test_a_folder_and_a_brace_pattern_by_random_access(shards: Path, pattern: str) -> None:
    source = open_source(f"{shards}/{pattern}" if pattern else shards, task="caption")
    assert len(source) == 5
    for index in (4, 0, 3):
        sample = source[index]
        assert sample.id == f"r{index}"
        assert sample.truth["caption"] == f"caption {index}"
        assert open_image(sample.media[0]).tobytes() == noise(index).tobytes()


def test_one_shard(shards: Path) -> None:
    assert [sample.id for sample in open_source(shards / "train-001.tar")] == ["r3", "r4"]


def test_the_library_reads_the_same_samples(shards: Path) -> None:
    files = [str(path) for path in sorted(shards.glob("*.tar"))]
    theirs = list(webdataset.WebDataset(files, shardshuffle=False))
    ours = ShardRecords([Path(file) for file in files])
    assert len(ours) == len(theirs)
    for index, sample in enumerate(theirs):
        record = ours[index]
        assert record.medium is not None
        assert record.medium.source == sample["png"]
        assert record.text == json.loads(sample["json"])["text"]


def test_plain_captions_and_long_names(tmp_path: Path) -> None:
    name = "a/" + "long" * 40
    path = shard(tmp_path / "a.tar", (f"{name}.JPG", encoded(noise(), "JPEG")), (f"{name}.txt", "été\n".encode()))
    (sample,) = open_source(path)
    assert (sample.id, sample.truth["caption"]) == (name, "été")


def test_pickles_and_code_are_never_read(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    bomb = f"cposix\nsystem\n(S'touch {touched}'\ntR.".encode()
    harm = [("0.pkl", bomb), ("0.pyd", bomb), ("0.pth", bomb), ("0.npy", bomb), ("../../0.txt", b"up")]
    path = shard(tmp_path / "a.tar", *harm[:4], ("0.png", encoded(noise())), ("0.json", column(text="a")), harm[4])
    source = open_source(path)
    assert source[0].truth["caption"] == "a"
    assert open_image(source[0].media[0]).size == (8, 8)
    assert not touched.exists()
    only = shard(tmp_path / "b.tar", *harm[:2])
    with pytest.raises(DataError, match=r"b.tar: expected images with .json or .txt, found only .pkl, .pyd"):
        open_source(only)


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("0.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DataError, match=r"expected images with .json or .txt, found only .txt"):
        open_source(path)


def test_messages_in_a_shard_can_name_nothing_outside(tmp_path: Path) -> None:
    def chat(path: str) -> bytes:
        return column(messages=[{"role": "user", "content": [{"type": "image", "path": path}]}])

    with pytest.raises(DataError, match=r"a.tar:0: expected media inside"):
        open_source(shard(tmp_path / "a.tar", ("0.json", chat("/etc/passwd"))))
    own = column(conversations=[{"from": "human", "value": "<image>\nhm?"}, {"from": "gpt", "value": "so"}])
    (sample,) = open_source(shard(tmp_path / "b.tar", ("0.png", encoded(noise())), ("0.json", own)))
    assert [len(message.media) for message in sample.messages] == [1, 0]


def test_members_above_the_cap_are_refused_from_their_headers(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", ("0.png", b"x" * 2000), ("0.txt", b"a"))
    with pytest.raises(DataError, match=r"a.tar:0: expected members of at most 1,000 bytes, found 0.png of 2,000"):
        ShardRecords([path], largest=1000)


def test_what_is_wrong_names_the_shard_and_the_key(tmp_path: Path) -> None:
    good = [("0.png", encoded(noise())), ("0.txt", b"a")]
    whole = shard(tmp_path / "whole.tar", *good).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    (tmp_path / "empty.tar").touch()
    (tmp_path / "text.tar").write_text("this is no tar\n" * 100)
    with tarfile.open(tmp_path / "zip.tar", "w:gz") as tar:
        tar.add(tmp_path / "whole.tar", "0.png")
    shard(tmp_path / "json.tar", *good, ("1.json", b"{"))
    shard(tmp_path / "list.tar", ("1.json", b"[]"))
    shard(tmp_path / "bytes.tar", ("1.txt", b"\xff\xfe"))
    shard(tmp_path / "bare.tar", *good, ("1.png", encoded(noise())))
    shard(tmp_path / "twice.tar", ("0.png", b"x"), ("0.jpg", b"x"))
    for name, line in (
        ("none.tar", "none.tar: expected a data set, found no such file"),
        ("x{0..1}.tar", "x0.tar: expected a shard, found no such file"),
        ("cut.tar", "cut.tar:0: expected a whole, uncompressed tar, found a fault in it"),
        ("empty.tar", "empty.tar: expected a whole, uncompressed tar, found a fault in it"),
        ("text.tar", "text.tar: expected a whole, uncompressed tar, found a fault in it"),
        ("zip.tar", "zip.tar: expected a whole, uncompressed tar, found a fault in it"),
        ("json.tar", "json.tar:1: .json: expected JSON, found an error in it"),
        ("list.tar", "list.tar:1: .json: expected an object, found"),
        ("bytes.tar", "bytes.tar:1: expected UTF-8 text, found other bytes"),
        ("bare.tar", "bare.tar:1: expected one of the columns text, caption"),
        ("twice.tar", "twice.tar:0: expected one .json, one .txt and one image or numbered ones, found another .jpg"),
    ):
        with pytest.raises(DataError) as caught:
            open_source(f"{tmp_path}/{name}")
        assert line in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bad_json_can_be_left_to_on_bad_sample(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", ("0.txt", b"a"), ("1.json", b"{"), ("2.txt", b"c"))
    source = open_source(path, late=True)
    assert (len(source), source[2].truth["caption"]) == (3, "c")
    with pytest.raises(DataError, match=r"a.tar:1: .json: expected JSON"):
        source[1]


def samples_of(path: Path) -> list[str]:
    """Captions of a shard opened late; the errors of those that cannot be used."""
    found = []
    records = ShardRecords([path], late=True)
    for index in range(len(records)):
        try:
            found.append(str(records[index].text))
        except DataError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize(
    ("blocks", "good"),
    [(1.5, 0), (3.5, 0), (4, 0), (4.5, 0), (5.5, 1), (8.5, 1), (9.5, 2), (12, 2), (12.5, 2)],
    ids=["json", "image", "between", "header", "json", "header", "json", "no end mark", "half an end mark"],
)
def test_of_a_cut_shard_the_samples_before_the_cut_are_read(tmp_path: Path, blocks: float, good: int) -> None:
    """Samples of four blocks: header, JSON, header, image. One whose next header is cut may lack members: it is bad."""
    members = [
        (f"{n}.{kind}", data) for n in range(3) for kind, data in (("json", column(text=f"t{n}")), ("png", b"x"))
    ]
    path = shard(tmp_path / "a.tar", *members)
    assert samples_of(path) == ["t0", "t1", "t2"]
    path.write_bytes(path.read_bytes()[: int(blocks * 512)])
    *read, bad = samples_of(path)
    assert read == [f"t{n}" for n in range(good)]
    assert bad.startswith(f"{path}:{good}: expected a whole, uncompressed tar, found a fault in it (")
    with pytest.raises(DataError, match=f"^{path}:{good}: expected a whole, uncompressed tar"):
        open_source(path)


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", *[(f"{n}.txt", f"t{n}".encode()) for n in range(4)])
    data = bytearray(path.read_bytes())
    data[2 * 1024 : 2 * 1024 + 8] = b"\xffdamage\xff"
    path.write_bytes(data)
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["0.txt", "1.txt"], "tarfile says nothing"
    first, second = samples_of(path)
    assert first == "t0"
    assert second.startswith(f"{path}:1: expected a whole, uncompressed tar")


def test_what_is_no_shard_is_an_error_however_late(tmp_path: Path) -> None:
    whole = shard(tmp_path / "a.tar", ("0.txt", b"a")).read_bytes()
    for data in (b"", b"no tar" * 200, whole[:300]):
        (tmp_path / "a.tar").write_bytes(data)
        with pytest.raises(DataError, match=r"a.tar: expected a whole, uncompressed tar"):
            ShardRecords([tmp_path / "a.tar"], late=True)


def test_members_that_cannot_be_one_sample_are_bad_samples(tmp_path: Path) -> None:
    image, talk = encoded(noise()), column(messages=[{"role": "user", "content": [{"type": "image"}] * 2}])
    members = [("0.txt", b"a"), ("0.txt", b"b"), ("1.txt", b"x" * 2000), ("2.0.png", image), ("2.2.png", image)]
    members += [("3.1.png", image), ("3.json", talk), ("3.0.jpg", encoded(noise(1), "JPEG")), ("4.txt", b"e")]
    path = shard(tmp_path / "a.tar", *members)
    records = ShardRecords([path], late=True, largest=1000)
    for index, line in (
        (0, "0: expected one .json, one .txt and one image or numbered ones, found another .txt"),
        (1, "1: expected members of at most 1,000 bytes, found 1.txt of 2,000"),
        (2, "2: expected images numbered 0, 1, 2 …, found 0, 2"),
    ):
        with pytest.raises(DataError, match=f"^{path}:{line}$"):
            records[index]
    assert [medium.name for medium in records[3].media] == [f"image {n} ({path}:3)" for n in (0, 1)]
    assert open_image(records[3].media[1]).tobytes() == noise().tobytes()
    assert records[4].text == "e"


def test_a_negative_size_does_not_send_the_reader_in_circles(tmp_path: Path) -> None:
    """CVE-2025-8194: such a header makes tarfile go back and read it again."""
    path = shard(tmp_path / "a.tar", ("0.txt", b"a"))
    data = bytearray(path.read_bytes())
    data[124:136] = b"\xff" * 10 + (65536 - 512).to_bytes(2, "big")
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    path.write_bytes(data)
    with pytest.raises(DataError, match="found a fault in it"):
        open_source(path)


def test_can_be_sent_to_workers(shards: Path) -> None:
    source = pickle.loads(pickle.dumps(open_source(shards)))
    assert source[4].id == "r4"
