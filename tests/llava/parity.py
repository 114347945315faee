"""A bridge held against transformers' LLaVA class: what both make of the same conversations."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmbridge.bridge import Bridge
from mmbridge.connectors.connector import Connector
from tests.llava.checkpoints import SIZES, Reference, conversations, pictures, turns


def largest_gap(bridge: Bridge, reference: Reference, sizes: Sequence[tuple[int, int]] = SIZES) -> float:
    """Between logits at every real position of a mixed batch; rows of the vocabulary that one side lacks are left out.

    Also sees to it that both read the same token ids, and that supervised logits are those of the whole.
    """
    samples = conversations(sizes)
    batch = bridge.collate()(samples)
    with torch.no_grad():
        output = bridge(batch)
        context = output.context
        ours = bridge.llm.model(inputs_embeds=context.embeds, attention_mask=context.mask).logits
        inputs = reference.inputs([sample.messages for sample in samples], side="right", opening=False)
        theirs = reference.model(**inputs).logits
    real, placeholder = inputs["attention_mask"].bool(), reference.model.config.image_token_id
    assert torch.equal(real, context.mask)
    assert torch.equal(inputs["input_ids"] == placeholder, context.perceptual)
    words = real & ~context.perceptual
    assert torch.equal(inputs["input_ids"][words], context.ids[words])
    assert torch.allclose(output.logits, ours[:, :-1][context.supervised[:, 1:]], atol=1e-4)
    rows = min(ours.shape[-1], theirs.shape[-1])
    assert ours.std() > 0.1, "logits that hardly differ prove nothing"
    return float((ours[real][:, :rows] - theirs[real][:, :rows]).abs().max())


def same_ids(bridge: Bridge, reference: Reference) -> None:
    """What ``AutoProcessor.apply_chat_template`` makes of a conversation is what the bridge makes of it."""
    for sample in conversations():
        talk = sample.messages[:-1]
        ours = list(bridge.prompter.generation(talk).ids)
        for placeholder in reversed(bridge.prompter.generation(talk).placeholders):
            count = bridge.lengths("image", [None])
            ours[placeholder.position : placeholder.position + 1] = [reference.model.config.image_token_id] * count
        theirs = reference.processor.apply_chat_template(
            turns(talk, pictures(talk)), tokenize=True, add_generation_prompt=True, return_dict=True
        )
        assert theirs["input_ids"][0] == ours


def gradients(bridge: Bridge, reference: Reference) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of the mean loss over supervised tokens, by the names of LLaVA's projector parameters."""
    samples = conversations()
    output = bridge(bridge.collate()(samples))
    cross_entropy(output.logits, output.targets).backward()  # type: ignore[no-untyped-call]
    inputs = reference.inputs([sample.messages for sample in samples], side="right", opening=False)
    labels = inputs["input_ids"].masked_fill(~output.context.supervised, -100)
    reference.model.zero_grad()
    reference.model(**inputs, labels=labels).loss.backward()
    connector = bridge.connectors["image"]
    assert isinstance(connector, Connector)
    theirs = dict(reference.model.model.multi_modal_projector.named_parameters())
    names = {
        f"linear_{index + 1}.{part}": f"projector.linears.{index}.{part}"
        for index in (0, 1)
        for part in ("weight", "bias")
    }
    mine = {name: connector.get_parameter(names[name]).grad for name in theirs}
    assert all(tensor is not None for tensor in mine.values())
    return {name: tensor for name, tensor in mine.items() if tensor is not None}, {
        name: tensor.grad for name, tensor in theirs.items()
    }


def same_texts(bridge: Bridge, folder: Path, count: int = 12, sizes: Sequence[tuple[int, int]] = SIZES) -> list[str]:
    """Greedy answers of both in one left-padded batch; returns them once they are known to be equal."""
    talks = [sample.messages[:1] for sample in conversations(sizes)]
    answers = [answer.text for answer in bridge.generate([list(talk) for talk in talks], max_new_tokens=count)]
    assert answers == Reference(folder).texts(talks, count)
    assert any(answers)
    return answers
