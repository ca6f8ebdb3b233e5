"""What happens to records that cannot be used or that occur twice."""

from collections.abc import Callable
from typing import Literal

from weft_rl.errors import UserError

Reject = Callable[[UserError], None]
Policy = Literal["error", "skip", "strict"]

_SHOWN = 3  # reasons in a summary: a broken file has as many as it has lines


def fail(error: UserError) -> None:
    """Raise the error."""
    raise error


class Rejects:
    """Records that are left out: `reasons` of those that cannot be used, `repeated` of duplicates.

    policy: "error" raises for a record that cannot be used and skips duplicates, "skip" skips both,
    "strict" raises for both. option: the key of the policy, named in errors; None if it has none.
    """

    def __init__(self, policy: Policy, option: str | None = "cold_start.data.bad_records") -> None:
        self.policy, self.option = policy, option
        self.reasons, self.repeated = list[str](), list[str]()

    def __call__(self, error: UserError) -> None:
        """Keep the error's text; under another policy than "skip" raise it, naming the option."""
        if self.policy == "skip":
            self.reasons.append(str(error))
        elif self.option is None:
            raise error
        else:
            raise UserError(f"{error}, or skip such records with {self.option}=skip") from error

    def repeat(self, where: str, first: str) -> None:
        """Count the record at `where`, which has the content of the one at `first`.

        Raises UserError under the policy "strict"."""
        text = f"{where}: has the content of the record at {first}"
        if self.policy == "strict":
            raise UserError(f"{text}; remove one, or skip it with {self.option}=error")
        self.repeated.append(text)

    def first(self) -> str:
        """The number of unusable records and the first reason, to end a clause; may be empty."""
        reasons = self.reasons
        return f"; {len(reasons)} left out, as {reasons[0]}" if reasons else ""

    def summary(self) -> list[str]:
        """Lines that say what was left out; none if nothing was."""
        lines = []
        if self.repeated:
            lines.append(f"  repeated: {len(self.repeated)} left out ({self.repeated[0]})")
        if self.reasons:
            lines.append(f"  cannot be used: {len(self.reasons)} left out")
            lines += [f"    {reason}" for reason in self.reasons[:_SHOWN]]
        return lines
