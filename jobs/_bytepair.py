"""Byte-pair tokens trained from scratch, and the text they are trained on."""

from __future__ import annotations

import heapq
import random
import re
import sysconfig
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

Pair = tuple[int, int]

# Every character falls in exactly one word, and no word is longer than 32 characters.
WORD = re.compile(r" ?\w{1,24}| ?[^\s\w]{1,16}|\s{1,32}(?!\S)|\s")
SAMPLE = 8_000_000  # characters the pairs are counted on


def library_texts(limit: int, seed: int) -> Iterator[str]:
    """Read the Python standard library's source files in a seeded order.

    Parameters
    ----------
    limit : int
        Characters to stop after; the last text is cut there.
    seed : int
        Shuffles the sorted files, so that a short text is still drawn from the whole library.

    Yields
    ------
    str
        One file's text.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    outside = {"site-packages", "dist-packages"}
    files = sorted(path for path in root.rglob("*.py") if outside.isdisjoint(path.relative_to(root).parts))
    random.Random(seed).shuffle(files)
    for path in files:
        if limit <= 0:
            return
        text = path.read_text(encoding="utf-8", errors="replace")[:limit]
        limit -= len(text)
        yield text


class BytePairs:
    """A byte-pair tokenizer: tokens 0 to 255 are the bytes, each later one joins two earlier ones.

    Parameters
    ----------
    merges : list of (int, int)
        The joined pairs in the order they were learned.
    """

    def __init__(self, merges: list[Pair]) -> None:
        self.merges = merges
        self.ranks = {pair: 256 + i for i, pair in enumerate(merges)}
        self.pieces = [bytes([b]) for b in range(256)]
        for a, b in merges:
            self.pieces.append(self.pieces[a] + self.pieces[b])
        self._seen: dict[str, list[int]] = {}

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int) -> BytePairs:
        """Learn the most frequent pairs of a text.

        Parameters
        ----------
        texts : iterable of str
            The text; the first `SAMPLE` characters of it (to the end of a text) are counted.
        vocabulary : int
            Number of tokens to stop at; a short text may give fewer.

        Returns
        -------
        BytePairs
            The tokenizer. The same texts give the same one.
        """
        counts: Counter[str] = Counter()
        read = 0
        for text in texts:
            counts.update(WORD.findall(text))
            read += len(text)
            if read >= SAMPLE:
                break
        return cls(_learn(counts, vocabulary - 256))

    def encode(self, text: str) -> array[int]:
        """Turn a text into tokens.

        Parameters
        ----------
        text : str
            Any text.

        Returns
        -------
        array of int
            Its tokens (typecode ``i``).
        """
        tokens = array("i")
        for word in WORD.findall(text):
            known = self._seen.get(word)
            if known is None:
                known = self._seen[word] = self._encode_word(word)
            tokens.extend(known)
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Turn the tokens of a text back into it.

        Parameters
        ----------
        tokens : iterable of int
            What `encode` returned.

        Returns
        -------
        str
            The text.
        """
        return b"".join(self.pieces[t] for t in tokens).decode("utf-8", errors="surrogatepass")

    def _encode_word(self, word: str) -> list[int]:
        tokens = _bytes(word)
        while len(tokens) > 1:
            best = min(pairwise(tokens), key=lambda pair: self.ranks.get(pair, len(self.pieces)))
            if best not in self.ranks:
                break
            tokens = _join(tokens, best, self.ranks[best])
        return tokens


def _bytes(word: str) -> list[int]:
    return list(word.encode("utf-8", errors="surrogatepass"))


def _join(tokens: list[int], pair: Pair, new: int) -> list[int]:
    """Replace each `pair` in `tokens`, from the left, by the token `new`."""
    joined, i = [], 0
    while i < len(tokens):
        if i + 1 < len(tokens) and (tokens[i], tokens[i + 1]) == pair:
            joined.append(new)
            i += 2
        else:
            joined.append(tokens[i])
            i += 1
    return joined


def _learn(counts: Counter[str], wanted: int) -> list[Pair]:
    """Join the most frequent pair (the lowest of equals) until `wanted` are joined or none is left."""
    words = [_bytes(word) for word in counts]
    times = list(counts.values())
    total: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for i, word in enumerate(words):
        for pair in pairwise(word):
            total[pair] += times[i]
            where[pair].add(i)
    heap = [(-count, pair) for pair, count in total.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < wanted:
        count, best = heapq.heappop(heap)
        if total.get(best, 0) != -count or not count:
            continue  # an older count of a pair that has changed since; the newer one is in the heap too
        changed: set[Pair] = set()
        for i in where.pop(best):
            changed |= _rejoin(words, i, best, 256 + len(merges), times[i], total, where)
        merges.append(best)
        del total[best]
        for pair in changed - {best}:
            heapq.heappush(heap, (-total[pair], pair))
    return merges


def _rejoin(
    words: list[list[int]],
    i: int,
    pair: Pair,
    new: int,
    times: int,
    total: Counter[Pair],
    where: defaultdict[Pair, set[int]],
) -> set[Pair]:
    """Join `pair` in word `i`, move the counts along and return the pairs whose count changed."""
    before, after = words[i], _join(words[i], pair, new)
    words[i] = after
    old, now = Counter(pairwise(before)), Counter(pairwise(after))
    changed = {p for p in old.keys() | now.keys() if old[p] != now[p]}
    for p in changed:
        total[p] += times * (now[p] - old[p])
        if p in now:
            where[p].add(i)
    return changed
