"""Entropy and divergences against torch.distributions and scipy, and in closed form."""

from math import inf, log

import pytest
import scipy.special
import scipy.stats
import torch
from torch.distributions import Categorical, kl_divergence
from torch.testing import assert_close

from mmbridge.alignment.distributions import entropy, jensen_shannon, kl
from tests.alignment.clouds import points


@pytest.mark.proof("entropy", against="torch.distributions and scipy.stats.entropy; log V of uniform words")
def test_entropy() -> None:
    logits = 5 * points(7, 50)
    log_p = logits.log_softmax(-1)
    assert_close(entropy(log_p), Categorical(logits=logits).entropy())  # type: ignore[no-untyped-call]
    assert_close(entropy(log_p).numpy(), scipy.stats.entropy(log_p.exp().numpy(), axis=-1))
    assert_close(entropy(torch.zeros(50).log_softmax(-1)), torch.tensor(log(50)))
    assert entropy(torch.tensor([0.0, -inf, -inf])) == 0


@pytest.mark.proof("kl", against="torch.distributions and scipy.special.rel_entr; closed form for two words")
def test_kl() -> None:
    first, second = 3 * points(7, 50, 1), 3 * points(7, 50, 2)
    log_p, log_q = first.log_softmax(-1), second.log_softmax(-1)
    assert_close(kl(log_p, log_q), kl_divergence(Categorical(logits=first), Categorical(logits=second)))
    assert_close(kl(log_p, log_q).numpy(), scipy.special.rel_entr(log_p.exp().numpy(), log_q.exp().numpy()).sum(-1))
    assert_close(kl(log_p, log_p), torch.zeros(7, dtype=torch.float64))
    p, q = torch.tensor([0.3, 0.7]), torch.tensor([0.6, 0.4])
    assert float(kl(p.log(), q.log())) == pytest.approx(0.3 * log(0.5) + 0.7 * log(1.75))


def test_words_that_one_side_never_says() -> None:
    some, all_words = torch.tensor([0.5, 0.5, 0]).log(), torch.tensor([0.25, 0.25, 0.5]).log()
    assert float(kl(some, all_words)) == pytest.approx(log(2))
    assert float(kl(all_words, some)) == inf
    assert float(kl(some, some)) == 0


def test_jensen_shannon() -> None:
    log_p, log_q = ((3 * points(7, 50, seed)).log_softmax(-1) for seed in (1, 2))
    p, q = log_p.exp().numpy(), log_q.exp().numpy()
    middle = (p + q) / 2
    truth = (scipy.special.rel_entr(p, middle) + scipy.special.rel_entr(q, middle)).sum(-1) / 2
    assert_close(jensen_shannon(log_p, log_q).numpy(), truth)
    assert_close(jensen_shannon(log_p, log_q), jensen_shannon(log_q, log_p))
    apart = torch.eye(2).log()
    assert float(jensen_shannon(apart[0], apart[1])) == pytest.approx(log(2))
    assert float(jensen_shannon(apart[0], apart[0])) == 0
