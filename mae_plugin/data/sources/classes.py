"""Class names that two datasets have in common, and the numbers that go with them."""

from __future__ import annotations

from collections.abc import Sequence


def renumber(own: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Finds the number that each class of one dataset has in another, by its name.

    If no name is the same and there are as many, such as folder names here and readable names
    there, the classes are taken to be in the same order.

    Returns:
        Numbers in ``others`` by numbers in ``own``, without the classes that ``others`` does not
        have.
    """
    if len(own) == len(others) and set(own).isdisjoint(others):
        return {number: number for number in range(len(own))}
    numbers = {name: number for number, name in enumerate(others)}
    return {number: numbers[name] for number, name in enumerate(own) if name in numbers}
