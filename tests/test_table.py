"""The table of frozen and trainable parts, and the sample shown beside it."""

from io import StringIO

import pytest
from PIL import Image
from rich.console import Console

from mmbridge.bridge import Bridge
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.sample_view import with_first_shown
from mmbridge.table import print_table
from mmbridge.trainable import unfreeze
from tests.tiny_bridge import tiny_recipe, tiny_stage


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Bridge:
    recipe = tiny_recipe(tmp_path_factory.mktemp("parts"), tiny_stage(train=["connectors.*", "llm.*.1.mlp.*"]))
    bridge = Bridge(recipe)
    unfreeze(bridge, recipe.stages[0], "stages.align", parts=["connectors.", "llm."])
    return bridge


def test_the_table_counts_what_trains(bridge: Bridge) -> None:
    file = StringIO()
    print_table(bridge, "align", Console(file=file, width=200))
    rows = {line.split()[0]: line for line in file.getvalue().splitlines()[2:]}
    mlp = 3 * 32 * 48
    llm = sum(each.numel() for each in bridge.llm.parameters())
    assert rows["encoders.image"].split()[-2:] == ["frozen", "float32"]
    assert rows["connectors.image"].split()[-4:] == ["2,112", "2,112", "trainable", "float32"]
    assert rows["llm"].split()[-5:] == [f"{llm:,}", f"{mlp:,}", "partly", "trainable", "float32"]
    total = sum(each.numel() for each in bridge.parameters())
    assert rows["all"].split()[1:] == [f"{total:,}", f"{mlp + 2112:,}", f"{(mlp + 2112) / total:.2%}", "trainable"]


def test_the_first_sample_is_shown_once_with_its_labels(bridge: Bridge) -> None:
    image = Medium("image", Image.new("RGB", (32, 32)))
    turns = conversation(("user", (image, image, "which?")), ("assistant", ("both [bold]",)), ("user", ("sure?",)))
    samples = [Sample("empty", ()), Sample("first", (*turns, *conversation(("assistant", ("yes",)))))]
    collate = bridge.collate()
    batches = [[collate(samples[:1])], [collate(samples[1:]), collate(samples[1:])]]
    file = StringIO()
    assert list(with_first_shown(batches, bridge, Console(file=file, width=200))) == batches
    shown = file.getvalue()
    assert shown.count("sample first") == 1
    assert shown.count("<image × 16>") == 2
    spoken = [part.partition("⟧")[0].strip() for part in shown.split("⟦")[1:]]
    assert spoken == ["both [bold]<|im_end|>", "yes<|im_end|>"]
