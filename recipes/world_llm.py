"""Pretrains the embedded world's language model on text alone: ``python -m mmbridge.recipes.world_llm OUT``.

A Llama-shaped decoder with its own tokenizer and chat template, trained on ``data/world/corpus.py``. It never sees a
picture. ``--noise`` adds noise to the input embeddings (NEFTune, Jain et al. 2023, arXiv 2310.05914); it is off by
default. At the end it reports the held-out perplexity and the accuracy on held-out text-only questions, which
bounds what any bridge onto it can reach.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mmbridge.data.world.corpus import LESSONS, Turns, question_about_text, talk
from mmbridge.recipes.world_pretraining import best_device, optimise, save_bfloat16

PAD, BOS, END, USER, ASSISTANT, SYSTEM = "<pad>", "<s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY = 1280
ROW = 320
"""Positions of a training row, which holds several conversations."""

MASTERED = 0.12
"""The next lesson begins when the loss, averaged over about the last fifty steps, falls below this (nats)."""


def train_tokenizer(talks: int = 60_000) -> PreTrainedTokenizerFast:
    """Lower-casing byte-level BPE over the corpus."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, END, USER, ASSISTANT, SYSTEM],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (text for index in range(talks) for _, text in talk(0, index))
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, pad_token=PAD, bos_token=BOS, eos_token=END, model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def rendered(turns: Turns) -> str:
    """A conversation as the chat template writes it."""
    return BOS + "".join(f"<|{role}|>{text}{END}" for role, text in turns)


def _texts(lesson: int, held_out: bool, indices: range) -> list[str]:
    return [rendered(talk(0, i, lesson=lesson, held_out=held_out)) for i in indices]


def corpus(
    tokenizer: PreTrainedTokenizerFast, count: int, *, lesson: int = -1, held_out: bool, workers: int
) -> list[np.ndarray]:
    """Token ids of ``count`` conversations."""
    spans = [range(start, min(start + 5000, count)) for start in range(0, count, 5000)]
    ids: list[np.ndarray] = []
    with ProcessPoolExecutor(workers) as pool:
        for texts in pool.map(partial(_texts, lesson, held_out), spans):
            encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
            ids += [np.array(row, np.int16) for row in encoded]
    return ids


def batches(ids: list[np.ndarray], tokens: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids, positions), each (B, ROW), of about ``tokens`` places: whole conversations, then padding.

    Positions start anew with every conversation, which tells transformers not to let one attend to another.
    """
    random = np.random.default_rng(0)
    shape = max(1, tokens // ROW), ROW
    batch, positions, row, at = np.zeros(shape, np.int64), np.zeros(shape, np.int64), 0, 0
    while True:
        for index in random.permutation(len(ids)):
            talk_ids = ids[index][:ROW]
            if at + len(talk_ids) > ROW:
                row, at = row + 1, 0
            if row == shape[0]:
                yield torch.from_numpy(batch).to(device), torch.from_numpy(positions).to(device)
                batch, positions, row = np.zeros(shape, np.int64), np.zeros(shape, np.int64), 0
            batch[row, at : at + len(talk_ids)] = talk_ids
            positions[row, at : at + len(talk_ids)] = np.arange(len(talk_ids))
            at += len(talk_ids)


def taught(lessons: Sequence[Iterator[tuple[Tensor, Tensor]]], task: "Pretraining") -> Iterator[tuple[Tensor, Tensor]]:
    """The lessons one after the other: each until its answers are mastered, the last to the end."""
    for number, lesson in enumerate(lessons, start=1):
        task.recent = 1.0
        while number == len(lessons) or task.recent > MASTERED:
            yield next(lesson)
        print(f"lesson {number} is mastered", flush=True)


def answered(ids: Tensor, assistant: int, end: int) -> Tensor:
    """Which positions the assistant wrote: after its tag, up to and with its end mark. ``ids`` (B, T)."""
    opened = (ids == assistant).cumsum(1)
    ended = (ids == end).cumsum(1)
    ended_before = ended - (ids == end).long()
    return (opened * 2 - ended_before).eq(1) & opened.gt(0) & ids.ne(assistant)


class Pretraining:
    """The loss on what the assistant says, with NEFTune noise."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, noise: float) -> None:
        self.model, self.noise, self.recent = model, noise, 1.0
        vocabulary = tokenizer.get_vocab()
        self.pad, self.end, self.assistant = vocabulary[PAD], vocabulary[END], vocabulary[ASSISTANT]

    def __call__(self, packed: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The loss of token ids and positions, each (B, T)."""
        batch, positions = packed
        embeds = self.model.get_input_embeddings()(batch)
        scale = self.noise / (embeds.shape[1] * embeds.shape[2]) ** 0.5
        embeds = embeds + torch.empty_like(embeds).uniform_(-scale, scale)
        logits = self.model(inputs_embeds=embeds, position_ids=positions, use_cache=False).logits[:, :-1]
        targets = batch[:, 1:]
        each = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none").view_as(targets)
        written = answered(batch, self.assistant, self.end)[:, 1:]
        loss = each[written].mean()
        self.recent += (loss.item() - self.recent) / 50
        return {"loss": loss}


@torch.no_grad()
def perplexity(
    model: LlamaForCausalLM, task: Pretraining, ids: list[np.ndarray], device: torch.device
) -> dict[str, float]:
    """Held-out perplexity: of all tokens, and of the assistant's."""
    total, kept = {"all": 0.0, "answers": 0.0}, {"all": 0, "answers": 0}
    stream = batches(ids, 16_384, device)
    for _ in range(40):
        batch, positions = next(stream)
        logits, targets = model(batch, position_ids=positions, use_cache=False).logits[:, :-1], batch[:, 1:]
        each = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none").view_as(targets)
        real = targets.ne(task.pad)
        for name, mask in (("all", real), ("answers", real & answered(batch, task.assistant, task.end)[:, 1:])):
            total[name] += float(each[mask].sum())
            kept[name] += int(mask.sum())
    return {name: float(np.exp(total[name] / kept[name])) for name in total}


@torch.no_grad()
def text_accuracy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int, device: torch.device
) -> dict[str, float]:
    """Exact answers to held-out questions about described scenes: over all, and by kind of question."""
    asked = [question_about_text(0, i) for i in range(count)]
    tokenizer.padding_side = "left"
    right: dict[str, list[bool]] = {}
    for start in range(0, count, 250):
        part = asked[start : start + 250]
        prompts = [f"{BOS}{USER}{told}\n{question}{END}{ASSISTANT}" for told, question, _, _ in part]
        encoded = tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt").to(device)
        encoded.pop("token_type_ids", None)
        written = model.generate(  # type: ignore[misc]
            **encoded, max_new_tokens=8, do_sample=False
        )
        texts = tokenizer.batch_decode(written[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        for text, (_, _, answers, kind) in zip(texts, part, strict=True):
            right.setdefault(kind, []).append(text.strip() in answers)
    tokenizer.padding_side = "right"
    by_kind = {kind: float(np.mean(found)) for kind, found in sorted(right.items())}
    return {"text_vqa": float(np.mean([hit for found in right.values() for hit in found])), **by_kind}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60, help="training time")
    parser.add_argument("--talks", type=int, default=150_000, help="conversations a lesson")
    parser.add_argument("--tokens", type=int, default=4096, help="positions a batch")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--noise", type=float, default=0.0, help="NEFTune's alpha")
    parser.add_argument("--go-on", action="store_true", help="start from the weights already in OUT")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()

    torch.manual_seed(0)
    device = best_device()
    given.out.mkdir(parents=True, exist_ok=True)
    if (given.out / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(given.out)
    else:
        tokenizer = train_tokenizer()
        tokenizer.save_pretrained(given.out)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=1024, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = (
        LlamaForCausalLM.from_pretrained(given.out, dtype=torch.float32) if given.go_on else LlamaForCausalLM(config)
    )
    model.config.dtype = "bfloat16"  # what the saved weights are in
    model.to(device)  # type: ignore[arg-type]
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    task = Pretraining(model, tokenizer, given.noise)
    lessons = [
        batches(corpus(tokenizer, given.talks, lesson=n, held_out=False, workers=given.workers), given.tokens, device)
        for n in range(len(LESSONS))
    ]
    print(f"{len(lessons)} lessons of {given.talks} conversations", flush=True)

    def save() -> None:
        state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
        save_bfloat16(state, given.out / "model.safetensors")

    model.config.save_pretrained(given.out)
    model.generation_config.save_pretrained(given.out)
    stream = taught(lessons, task)
    steps = optimise(model, stream, task, minutes=given.minutes, lr=given.lr, save=save)

    model = LlamaForCausalLM.from_pretrained(given.out, dtype=torch.float32)
    model.to(device)  # type: ignore[arg-type]
    model.eval()  # type: ignore[no-untyped-call]
    held_out = corpus(tokenizer, 10_000, held_out=True, workers=given.workers)
    report = {
        "steps": steps,
        "perplexity": perplexity(model, task, held_out, device),
        "accuracy": text_accuracy(model, tokenizer, 4000, device),
    }
    (given.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
