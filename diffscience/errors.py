"""The one error class of the package.

    ArgumentError(argument, rule, value)   reads   "ARGUMENT must RULE; got VALUE"

Every function checks its arguments at the door and raises nothing else for a bad one; the command
line prints the sentence alone and exits with status 2.
"""

from __future__ import annotations


class ArgumentError(ValueError):
    """A bad argument, said in one sentence: which argument, which rule, which value.

    Parameters
    ----------
    argument : name of the argument as the caller wrote it.
    rule : what it must do or be, completing the words "ARGUMENT must".
    value : what was given; shortened to 80 characters.

    Examples
    --------
    >>> raise ArgumentError("beta", "lie in (0, 1)", 1.5)
    Traceback (most recent call last):
    ...
    diffscience.errors.ArgumentError: beta must lie in (0, 1); got 1.5
    """

    def __init__(self, argument: str, rule: str, value: object) -> None:
        self.argument, self.rule, self.value = argument, rule, value
        shown = value if isinstance(value, str) else repr(value)
        shown = " ".join(shown.split())
        super().__init__(f"{argument} must {rule}; got {shown[:77] + '...' * (len(shown) > 80)}")

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str, object]]:
        # The three parts, not the sentence: what multiprocessing sends between processes.
        return type(self), (self.argument, self.rule, self.value)
