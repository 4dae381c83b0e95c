"""Whole numbers in English words, without `and`."""

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
ONES = _ONES.split()
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
LARGE = [(10**9, "billion"), (10**6, "million"), (10**3, "thousand"), (100, "hundred")]


def words(number: int) -> str:
    """The words of a number from 0 to 999,999,999,999: `321` is `three hundred twenty-one`."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f"-{ONES[number % 10]}" if number % 10 else "")
    size, name = next((size, name) for size, name in LARGE if number >= size)
    rest = number % size
    return f"{words(number // size)} {name}" + (f" {words(rest)}" if rest else "")


def longest(digits: int) -> int:
    """How long the words of a number of up to so many digits can be."""
    below_thousand = [max(len(words(n)) for n in range(10**k)) for k in range(1, 4)]
    groups, first = divmod(digits, 3)
    names = ["", " thousand", " million", " billion"]
    total = sum(below_thousand[2] + len(names[k]) for k in range(groups)) + max(groups - 1, 0)
    return total + (below_thousand[first - 1] + len(names[groups]) + (groups > 0) if first else 0)
