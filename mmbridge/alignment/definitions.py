"""What every score is, in words and symbols, as reports print it.

Notation: x is a state after block l (l = 0: the LLM's input), x̂ = x / |x|; P_i are the perceptual tokens and T_i the
text of sample i, P̄_i and T̄_i the means of their states; N samples, D width, V words. The mean over depths is over all
depths at which a score has a value, of l = 0 to the last block.
"""

from collections.abc import Iterator, Mapping
from itertools import product

from mmbridge.alignment.report import Better, Definition

IMA = "Shukor and Cord 2024, arXiv 2405.16700"
COSINE = "cosine, −1 to 1"
ISOTROPIC = "0: what random directions reach"
DIFFERENT = "pairs i, j that show different media"
OTHERS = f"the same of {DIFFERENT}"
SHUFFLED = "every text beside another medium"


def definitions(strides: tuple[int, ...]) -> dict[str, Definition]:
    """Of all scores, by name.

    Args:
        strides: over how many blocks states are compared with what they were.
    """
    changes = {f"consecutive_{stride}": _consecutive(stride) for stride in strides}
    return {**dict(_ima()), **_OTHERS, **changes}


_READINGS: Mapping[str, tuple[str, str]] = {
    "": ("pooled states", "cos({P}̄_i, T̄_j)"),
    "_tokens": ("mean over tokens", "mean over p ∈ {P}_i, t ∈ T_j of cos(p, t)"),
    "_median": ("median over tokens", "median over p ∈ {P}_i, t ∈ T_j of cos(p, t)"),
    "_max": ("largest of tokens", "max over p ∈ {P}_i, t ∈ T_j of cos(p, t)"),
    "_min": ("smallest of tokens", "min over p ∈ {P}_i, t ∈ T_j of cos(p, t)"),
    "_max_mean": ("best text token of each", "mean over p ∈ {P}_i of max over t ∈ T_j of cos(p, t)"),
}
"""How a medium and a text are compared: what that is called, and its formula."""


def _ima() -> Iterator[tuple[str, Definition]]:
    """In all readings: tokens of the same depth or of the input, all pairs or matched ones."""
    for (name, (title, formula)), at, pairs in product(_READINGS.items(), ("", "_input"), ("", "_matched")):
        where = "perceptual tokens at the LLM's input" if at else "same depth"
        which = "matched pairs" if pairs else "all pairs"
        compared = formula.format(P="P⁰" if at else "P")
        over = f"1/N Σ_i {compared.replace('_j', '_i')}" if pairs else f"1/N² Σ_ij {compared}"
        chance = ISOTROPIC if name in ("", "_tokens") else "the same of random directions, as many as there are tokens"
        yield (
            f"ima{name}{at}{pairs}",
            Definition(f"IMA, {title}, {where}, {which}", over, COSINE, "higher", chance, OTHERS, IMA),
        )


def _consecutive(stride: int) -> Definition:
    blocks = "the block" if stride == 1 else f"{stride} blocks"
    formula = f"1/N Σ_i mean over tokens of cos(x at l, x at l − {stride})"
    better: Better = "neither"
    return Definition(f"change over {blocks} before", formula, COSINE, better, ISOTROPIC, "", f"{IMA}, figure 3")


_OTHERS: Mapping[str, Definition] = {
    "ima_depths": Definition(
        "IMA, pooled states, depth by depth, all pairs", "1/N² Σ_ij cos(P̄_i at the row's depth, T̄_j at the column's)",
        COSINE, "higher", ISOTROPIC, "", IMA,
    ),
    "cone": Definition(
        "narrow cone, pooled states", f"mean of cos(X̄_i, X̄_j) over {DIFFERENT}", COSINE, "neither", ISOTROPIC, "",
        f"{IMA} (there between two halves of the samples)",
    ),
    "cone_tokens": Definition(
        "narrow cone, mean over tokens", f"mean over x ∈ X_i, y ∈ X_j of cos(x, y), over {DIFFERENT}", COSINE,
        "neither", ISOTROPIC, "", f"{IMA} (there between two halves of the samples)",
    ),
    "across": Definition(
        "two media, or the texts beside them", f"mean of cos(X̄_i, Ȳ_j) over {DIFFERENT}", COSINE, "neither", ISOTROPIC,
        "", IMA,
    ),
    "gap": Definition(
        "modality gap", "| mean_i P̄_i/|P̄_i| − mean_j T̄_j/|T̄_j| |", "distance, 0 to 2", "lower",
        "√((1 − cone) 2/N): two samples of N from one cloud", "", "Liang et al. 2022, arXiv 2203.02053",
    ),
    "norm": Definition(
        "norm", "1/N Σ_i median over tokens of |x|", "L2 norm", "neither", "", "", f"{IMA}, figure 3"
    ),
    "ima_centred_matched": Definition(
        "IMA, centred pooled states, matched pairs", "1/N Σ_i cos(P̄_i − mean_j P̄_j, T̄_i − mean_j T̄_j)", COSINE,
        "higher", ISOTROPIC, OTHERS, "IMA without the direction that all samples of a side share",
    ),
    "ima_centred_input_matched": Definition(
        "IMA, centred pooled states, perceptual tokens at the LLM's input, matched pairs",
        "1/N Σ_i cos(P̄⁰_i − mean_j P̄⁰_j, T̄_i − mean_j T̄_j)", COSINE, "higher", ISOTROPIC, OTHERS,
        "IMA without the direction that all samples of a side share",
    ),
    "mutual_knn": Definition(
        "mutual nearest neighbours",
        "1/N Σ_i |near(P̄_i) ∩ near(T̄_i)| / k, k = 10 or N/2; near by cosine, values clamped at the mean of the "
        "samples' 0.95 quantiles of |value|",
        "share, 0 to 1", "higher", "k / (N − 1)", SHUFFLED, "Huh et al. 2024, arXiv 2405.07987",
    ),
    "mutual_knn_best": Definition(
        "mutual nearest neighbours, best pair of depths", "the largest of mutual_knn over all pairs of depths",
        "share, 0 to 1", "higher", "k / (N − 1) at any one pair; the best of many is above it", "",
        "Huh et al. 2024, arXiv 2405.07987",
    ),
    "cka": Definition(
        "CKA, linear, unbiased", "HSIC(P̄, T̄) / √(HSIC(P̄, P̄) HSIC(T̄, T̄))", "about 0 to 1", "higher", "0", SHUFFLED,
        "Kornblith et al. 2019, arXiv 1905.00414; Song et al. 2012",
    ),
    "cknna": Definition(
        "CKA of mutual nearest neighbours",
        "h(P̄, T̄) / √(h(P̄, P̄) h(T̄, T̄)), h the unbiased HSIC of both kernels of cosines (clamped as in mutual_knn) where "
        "j is among the k nearest of i in both, 0 elsewhere; k = 10 or N/4",
        "about 0 to 1", "higher", "not known, nor near 0 where samples are few: read the control",
        SHUFFLED, "Huh et al. 2024, arXiv 2405.07987",
    ),
    "mir_term": Definition(
        "MIR's term",
        "Fréchet distance of all perceptual and all text tokens, in units of text's mean norm; states whose norm is "
        "more than 3 standard deviations off the median are replaced by the median state",
        "squared distance, ≥ 0", "lower", "",
        "what sampling alone makes of one cloud: two halves of the texts, scaled to as many tokens as there are",
        "Huang et al. 2024, arXiv 2410.07167",
    ),
    "mir": Definition(
        "modality integration rate", "log₁₀ Σ_{l≥1} mir_term(l)", "decades", "lower", "", "that of mir_term, alike",
        "Huang et al. 2024, arXiv 2410.07167 (there of pictures and texts that do not belong together, and of the last "
        "state normed)",
    ),
    "entropy": Definition(
        "entropy of the words it would say", "1/N Σ_i mean over tokens of −Σ_v p log p, p = softmax(head(norm(x)))",
        "nats, 0 to log V", "neither", "log V: every word alike", "", IMA,
    ),
    "kl": Definition(
        "from the words of perceptual tokens to those of text", "1/N Σ_i Σ_v p_i log(p_i/q_i), means over P_i and T_i",
        "nats, ≥ 0", "lower", "", "of each medium and the text of the one before", IMA,
    ),
    "words": Definition(
        "words it would say", "the v of largest 1/N Σ_i mean over tokens of p(v), p = softmax(head(norm(x)))",
        "share of probability, 0 to 1", "neither", "1/V: every word alike", "", IMA,
    ),
}  # fmt: skip
