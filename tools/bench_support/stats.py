"""What is said of samples: percentiles, and ratios of medians that are told only as far as the samples carry."""
import dataclasses
import math
import random
import statistics

RESAMPLES = 2000
CONFIDENCE = 0.95
LEAST_SAMPLES = 5   # fewer allow no verdict
SEED = 1            # the same samples give the same interval
LESS, MORE, UNDECIDED = "less", "more", "undecided"


def percentile(values, percent):
    """By nearest rank, so it is always a value that was seen."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def summarise(values):
    return {"count": len(values), "median": statistics.median(values), "least": min(values), "most": max(values),
            **{f"p{p}": percentile(values, p) for p in (10, 90, 99)}}


def drift(values):
    """How far the medians of the first and the second half of a run are apart, as a factor of at least 1. The halves
    measured the same thing, so it is noise."""
    if len(values) < 4:
        return 1.0
    first = statistics.median(values[:len(values) // 2])
    second = statistics.median(values[len(values) // 2:])
    if min(first, second) <= 0:
        return 1.0 if first == second else math.inf
    return max(first, second) / min(first, second)


def bootstrap(ours, theirs, resamples=RESAMPLES):
    """The percentile bootstrap's interval for the ratio of the medians, each side resampled by itself."""
    source = random.Random(SEED)
    ratios = []
    for _ in range(resamples):
        below = statistics.median(source.choices(theirs, k=len(theirs)))
        above = statistics.median(source.choices(ours, k=len(ours)))
        ratios.append(above / below if below else math.inf)
    ratios.sort()
    tail = (1 - CONFIDENCE) / 2
    return ratios[int(tail * resamples)], ratios[min(resamples - 1, math.ceil((1 - tail) * resamples) - 1)]


@dataclasses.dataclass(frozen=True)
class Comparison:
    ratio: float    # of the medians
    low: float
    high: float     # ends of the interval
    noise: float    # the larger drift of the two, as a factor
    verdict: str    # LESS or MORE than the other; UNDECIDED where the noise hides which
    why: str        # of an undecided one

    def reaches(self, most=None, least=None):
        """True or False where the whole interval is on one side of the bound, else None."""
        if self.why.startswith("only "):
            return None
        if most is not None:
            return True if self.high <= most else False if self.low > most else None
        return True if self.low >= least else False if self.high < least else None


def compare(ours, theirs):
    """The ratio of two peers' medians, or None where there is none."""
    if not ours or not theirs or statistics.median(theirs) <= 0 or statistics.median(ours) < 0:
        return None
    ratio = statistics.median(ours) / statistics.median(theirs)
    low, high = bootstrap(ours, theirs)
    noise = max(drift(ours), drift(theirs))
    fewest = min(len(ours), len(theirs))
    if fewest < LEAST_SAMPLES:
        why = f"only {fewest} samples"
    elif low <= 1 <= high:
        why = "the interval holds 1"
    elif 1 / noise <= ratio <= noise:
        why = f"the same peer drifted by a factor of {noise:.2f}"
    else:
        return Comparison(ratio, low, high, noise, LESS if ratio < 1 else MORE, "")
    return Comparison(ratio, low, high, noise, UNDECIDED, why)
