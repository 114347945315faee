"""The caption task's scores: fact-F1 and CHAIR where facts are known, exact match, CIDEr and BLEU."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmbridge.evaluation import bootstrap
from mmbridge.evaluation.bleu import bleu
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.evaluation.chair import chair
from mmbridge.evaluation.cider import cider
from mmbridge.evaluation.facts import Parser, as_facts, fact_counts, fact_scores, objects
from mmbridge.evaluation.report import Row
from mmbridge.evaluation.text import plain, words


def references(truth: Mapping[str, Any]) -> list[str]:
    """The captions that count as right: ``references``, else the one ``caption``; none when the truth has neither."""
    found = truth.get("references") or [truth.get("caption")]
    return [text for text in found if text]


def caption_scores(rows: Sequence[Row], parse_facts: Parser) -> dict[str, Estimate]:
    """Scores of captions against their references and facts.

    ``fact_f1`` with its precision and recall, ``chair_i`` and ``chair_s`` are over the rows whose truth has facts, and
    left out when there are none. ``exact`` is equality with any reference but for case and final punctuation; ``cider``
    is on the scale of 0 to 10, ``bleu_1`` … ``bleu_4`` are in [0, 1].
    """
    scores: dict[str, Estimate] = {}
    known = [row for row in rows if "facts" in row.truth]
    if known:
        predicted = [parse_facts(row.prediction) for row in known]
        true = [as_facts(row.truth["facts"]) for row in known]
        scores |= fact_scores(fact_counts(predicted, true))
        scores["chair_i"], scores["chair_s"] = chair([*map(objects, predicted)], [*map(objects, true)])
    right = [references(row.truth) for row in rows]
    scores["exact"] = bootstrap.mean(
        [plain(row.prediction) in map(plain, texts) for row, texts in zip(rows, right, strict=True)]
    )
    said = [words(row.prediction) for row in rows]
    split = [[words(text) for text in texts] for texts in right]
    scores["cider"] = bootstrap.mean(cider(said, split))
    return scores | bleu(said, split)
