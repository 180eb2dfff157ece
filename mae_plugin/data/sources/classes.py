"""Matches the classes of two datasets by name."""

from __future__ import annotations

from collections.abc import Sequence


def renumber(own: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Finds the number of each class of one dataset in another dataset, by class name.

    If no name matches and both have the same number of classes (for example folder names and
    readable names), the classes are assumed to be in the same order.

    Returns:
        Numbers in ``others`` by numbers in ``own``, without the classes that are not in ``others``.
    """
    if len(own) == len(others) and set(own).isdisjoint(others):
        return {number: number for number in range(len(own))}
    numbers = {name: number for number, name in enumerate(others)}
    return {number: numbers[name] for number, name in enumerate(own) if name in numbers}
