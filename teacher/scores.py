"""From the files of the raters to mean opinion scores with confidence intervals.

Each score is taken as  u = ψ + Δ + υ·ε:  the quality ψ of the version, the bias Δ and the inconsistency υ of the rater
(ITU-T P.910 (2022), annex E; Li & Bampis, "Recover subjective quality scores from noisy measurements", DCC 2017).
The three are found by turns: a version's quality as the mean of its scores without bias, weighted by 1/υ²; then bias
and inconsistency of each rater from what is left. The plain mean stands beside it.
"""

import json
import math
import zlib
from collections import defaultdict, namedtuple
from datetime import datetime
from pathlib import Path

import numpy as np

from kit.console import Table
from kit.files import write_csv
from kit.handin.findings import sanitize
from kit.handin.texts import text_of
from teacher.rating import NEAREST, ORIGINAL

# What a rater's file says: `scores` token → 1…5, and `times` token → when, where it says that.
Ratings = namedtuple("Ratings", "file rater scores times", defaults=[{}])
# A version's result: `mos` with its 95 % confidence interval, `plain` mean and number of scores.
Score = namedtuple("Score", "picture version mos interval plain count")
# A rater's: bias (mean deviation), inconsistency (its standard deviation), and why they should be looked at, or "".
Rater = namedtuple("Rater", "rater bias inconsistency anchors doubt")

# The inconsistency of a rater is drawn towards that of all as if by so many scores: else, with few of them, one who
# happens to agree with the mean would be taken for exact, and outweigh everybody.
SHARED = 5
FASTEST = 1  # seconds; in less nobody has compared anything


# --------------------------------------------------------------------------------------------- files


def read_ratings(files, key):
    """The files of raters that can be used, and what is wrong with the others: (list of Ratings, list of (file, why)).

    Named are files that are cut off or no ratings, of another page, edited by hand (their checksum), twice the same,
    and two of one rater that contradict each other; of two where one only goes on, the longer is taken.
    """
    good, wrong, contrary = {}, [], set()
    for file in map(Path, files):
        try:
            content = json.loads(text_of(file))
            rater, scores, page, check = (content[name] for name in ("rater", "scores", "page", "check"))
            scores = {str(token): int(score) for token, score in scores.items()}
            times = {str(token): datetime.fromisoformat(str(when).removesuffix("Z")).replace(tzinfo=None)
                     for token, when in content.get("times", {}).items()}
            expected, rater = checksum(rater, scores), sanitize(rater)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
            wrong.append((file, "is cut off, or no file of ratings"))
            continue
        if page != key["page"]:
            wrong.append((file, "is of another page"))
        elif check != expected:
            wrong.append((file, "was changed by hand"))
        elif unknown := [t for t, value in scores.items() if t not in key["versions"] or value not in range(1, 6)]:
            wrong.append((file, f"has a score that the page cannot give ({sanitize(unknown[0])[:40]})"))
        elif rater not in good:
            good[rater] = Ratings(file, rater, scores, times)
        else:
            other = good[rater]
            both = scores.keys() & other.scores.keys()
            if any(scores[token] != other.scores[token] for token in both):
                wrong.append((file, f"contradicts {other.file.name}, of the same rater {rater!r}; neither is used"))
                contrary.add(rater)
            elif len(both) == len(scores):
                wrong.append((file, f"is an earlier state of {other.file.name}, or the same"))
            else:
                if len(both) == len(other.scores):
                    wrong.append((other.file, f"is an earlier state of {file.name}"))
                good[rater] = Ratings(file, rater, {**other.scores, **scores}, {**other.times, **times})  # two halves
    return [ratings for rater, ratings in good.items() if ratings.scores and rater not in contrary], wrong


def checksum(rater, scores):
    """What the page writes as `check`: a CRC-32 of the rater and the scores in the order of their tokens."""
    text = rater + "|" + ",".join(f"{token}={scores[token]}" for token in sorted(scores))
    return f"{zlib.crc32(text.encode()):08x}"


# -------------------------------------------------------------------------------------------- scores


def recover(scores, rounds=100):
    """Quality of each version, and bias and inconsistency of each rater.

    Parameters
    ----------
    scores : numpy.ndarray
        Raters × versions; NaN where a rater has not seen a version.

    Returns
    -------
    (quality, interval, bias, inconsistency)
        Of length versions, versions, raters, raters. `interval` is half the width of the 95 % confidence interval of
        a quality. Biases have the mean 0.
    """
    seen = ~np.isnan(scores)
    values = np.where(seen, scores, 0)
    bias, inconsistency = np.zeros(len(scores)), np.ones(len(scores))
    for _ in range(rounds):
        weights = seen / inconsistency[:, None] ** 2
        quality = (weights * (values - bias[:, None])).sum(axis=0) / weights.sum(axis=0)
        rest = np.where(seen, values - quality, 0)
        bias = rest.sum(axis=1) / seen.sum(axis=1)
        bias -= bias.mean()
        # One degree of freedom goes to the bias, and a share to the qualities that this rater helped to set.
        freedom = np.maximum((seen * (1 - weights / weights.sum(axis=0))).sum(axis=1) - 1, 1)
        squares = (np.where(seen, rest - bias[:, None], 0) ** 2).sum(axis=1)
        shared = squares.sum() / freedom.sum()
        inconsistency = np.sqrt(np.maximum((squares + SHARED * shared) / (freedom + SHARED), 1e-6))
    weights = seen / inconsistency[:, None] ** 2
    return quality, 1.96 / np.sqrt(weights.sum(axis=0)), bias, inconsistency


def score(ratings, key):
    """(list of Score for every version, list of Rater) from the Ratings of a page and its key."""
    if not ratings:
        raise ValueError("there is no file of ratings that can be used")
    tokens = [token for token in key["versions"] if any(token in one.scores for one in ratings)]
    table = np.array([[one.scores.get(token, math.nan) for token in tokens] for one in ratings], float)
    quality, interval, bias, inconsistency = recover(table)
    results = []
    for i, token in enumerate(tokens):
        given = table[~np.isnan(table[:, i]), i]
        version = key["versions"][token]
        results.append(Score(version["picture"], version["version"], quality[i], interval[i], given.mean(), len(given)))
    return sorted(results), [_judged(one, b, v, inconsistency, key)
                             for one, b, v in zip(ratings, bias, inconsistency)]


def _judged(ratings, bias, inconsistency, all_inconsistencies, key):
    """A rater, with a doubt where the anchors were missed or the scores look thrown."""
    anchors = defaultdict(list)
    for token, value in ratings.scores.items():
        anchors[key["versions"][token]["version"]].append(value)
    low, high = anchors.get(NEAREST, []), anchors.get(ORIGINAL, [])
    missed = sum(value >= 4 for value in low) + sum(value <= 2 for value in high)
    doubts = []
    if low and high and (missed > (len(low) + len(high)) / 4 or np.mean(low) >= np.mean(high)):
        doubts.append(f"missed {missed} of {len(low) + len(high)} anchors")
    if inconsistency > 2 * np.median(all_inconsistencies):
        doubts.append("scores as if at random")
    if len(ratings.scores) > 5 and len(set(ratings.scores.values())) == 1:
        doubts.append("gave the same score to all")
    times = sorted(ratings.times.values())
    gaps = [(later - earlier).total_seconds() for earlier, later in zip(times, times[1:])]
    if len(gaps) >= 5 and np.median(gaps) < FASTEST:
        doubts.append(f"looked {np.median(gaps):.1f} s at each")
    means = " / ".join(f"{np.mean(values):.1f}" if values else "–" for values in (low, high))
    return Rater(ratings.rater, bias, inconsistency, means, ", ".join(doubts))


# -------------------------------------------------------------------------------------------- tables


def totals(results):
    """Each hand-in's mean over its pictures: a list of Score with the picture "all", the best first."""
    groups = defaultdict(list)
    for one in results:
        groups[one.version].append(one)
    mean = [Score("all", version, np.mean([one.mos for one in group]),
                  np.sqrt(np.sum([one.interval**2 for one in group])) / len(group),
                  np.mean([one.plain for one in group]), sum(one.count for one in group))
            for version, group in groups.items()]
    return sorted(mean, key=lambda one: -one.mos)


def score_table(results):
    """Mean opinion scores of the hand-ins, the best first, and of each of their pictures, as a table."""
    pictures = sorted({one.picture for one in results})
    by_picture = {(one.version, one.picture): one for one in results}
    rows = [[one.version, f"{one.mos:.2f} ± {one.interval:.2f}", f"{one.plain:.2f}", str(one.count),
             *(f"{by_picture[one.version, name].mos:.2f}" if (one.version, name) in by_picture else ""
               for name in pictures)] for one in totals(results)]
    return Table(rows, ["hand-in", "MOS", "plain mean", "scores", *pictures])


def rater_table(raters):
    """The raters with bias, inconsistency, their mean scores of the anchors, and doubts, as a table."""
    rows = [[one.rater, f"{one.bias:+.2f}", f"{one.inconsistency:.2f}", one.anchors, one.doubt] for one in raters]
    return Table(rows, ["rater", "bias", "inconsistency", "nearest / original", "doubt"])


def save(results, folder):
    """Write `mos.csv` (hand-ins, for the grade book), `mos_pictures.csv` and `mos.png` to a folder."""
    from kit.plots.pictures import save_figure

    rows = [{"handin": one.version, "picture": one.picture, "mos": round(one.mos, 3), "plain": round(one.plain, 3),
             "interval": round(one.interval, 3), "scores": one.count} for one in [*totals(results), *results]]
    fields = ["handin", "picture", "mos", "interval", "plain", "scores"]
    write_csv(Path(folder, "mos.csv"), [row for row in rows if row["picture"] == "all"], fields,
              for_spreadsheets=True)
    write_csv(Path(folder, "mos_pictures.csv"), [row for row in rows if row["picture"] != "all"], fields,
              for_spreadsheets=True)
    save_figure(plot(results), Path(folder, "mos.png"))


def plot(results):
    """Mean opinion scores of the hand-ins with their confidence intervals, the anchors in grey."""
    import matplotlib.pyplot as plt

    means = totals(results)[::-1]
    figure, axis = plt.subplots(figsize=(8, 1.2 + 0.3 * len(means)), layout="constrained")
    for i, one in enumerate(means):
        colour = "grey" if one.version in (ORIGINAL, NEAREST) else "tab:blue"
        axis.errorbar(one.mos, i, xerr=one.interval, fmt="o", color=colour, capsize=3)
        axis.plot(one.plain, i, "|", color="black", markersize=9)
    axis.set_yticks(range(len(means)), [one.version for one in means], parse_math=False)  # (names may have a "$")
    axis.set(xlim=(0.8, 5.2), xlabel="mean opinion score with 95 % confidence interval; |: plain mean")
    axis.grid(alpha=0.3)
    plt.close(figure)
    return figure
