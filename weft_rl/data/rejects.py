"""What becomes of records that cannot be used, or that occur twice."""

from collections.abc import Callable
from typing import Literal

from weft_rl.errors import UserError

Reject = Callable[[UserError], None]
Policy = Literal["error", "skip", "strict"]

# Reasons that a summary shows; a broken file has as many as it has lines.
_SHOWN = 3


def fail(error: UserError) -> None:
    """Raise the error: what becomes of a bad record unless its reader is told otherwise."""
    raise error


class Rejects:
    """Records that are left out: `reasons` of those that cannot be used, `repeated` of the others.

    policy: "error" raises for a record that cannot be used and skips repeated ones, "skip" skips
    both, "strict" raises for both. option: the key of the policy, named in the errors; None: the
    caller has none."""

    def __init__(self, policy: Policy, option: str | None = "cold_start.data.bad_records") -> None:
        self.policy, self.option = policy, option
        self.reasons, self.repeated = list[str](), list[str]()

    def __call__(self, error: UserError) -> None:
        """Raise the error, with the other way out added, or keep its text."""
        if self.policy != "skip":
            if self.option is None:
                raise error
            cure = f"or leave such records out by {self.option}=skip"
            raise UserError(f"{error}, {cure}") from error
        self.reasons.append(str(error))

    def repeat(self, where: str, first: str) -> None:
        """Count the record at `where`, which has the content of the one at `first`.

        Raises UserError under the policy "strict"."""
        text = f"{where}: has the content of the record at {first}"
        if self.policy == "strict":
            raise UserError(f"{text}; remove one, or skip it by {self.option}=error")
        self.repeated.append(text)

    def summary(self) -> list[str]:
        """What was left out, as lines to print: none if nothing was."""
        lines = []
        if self.repeated:
            lines.append(f"  repeated: {len(self.repeated)} left out ({self.repeated[0]})")
        if self.reasons:
            lines.append(f"  cannot be used: {len(self.reasons)} left out")
            lines += [f"    {reason}" for reason in self.reasons[:_SHOWN]]
        return lines
