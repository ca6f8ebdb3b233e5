"""Policy for unusable and duplicate records."""

from collections.abc import Callable
from typing import Literal

from weft_rl.errors import UserError

Reject = Callable[[UserError], None]

_SHOWN = 3  # reasons in a summary


def fail(error: UserError) -> None:
    """Raise the error."""
    raise error


class Rejects:
    """Rejected records: `reasons` of unusable ones, `repeated` counts duplicates.

    policy: "skip" skips both kinds, "strict" raises for both, "error" skips duplicates only.
    option: config key of the policy for errors, or None."""

    def __init__(
        self,
        policy: Literal["error", "skip", "strict"],
        option: str | None = "cold_start.data.bad_records",
    ) -> None:
        self.policy, self.option = policy, option
        self.reasons, self.repeated = list[str](), list[str]()

    def __call__(self, error: UserError) -> None:
        """Store the error's text under the policy "skip", else raise it naming the option."""
        if self.policy != "skip":
            fix = self.option and f", or skip such records with {self.option}=skip"
            raise UserError(f"{error}{fix or ''}") from error
        self.reasons.append(str(error))

    def repeat(self, where: str, first: str) -> None:
        """Count the duplicate at `where` of `first`. Raises UserError under "strict"."""
        text = f"{where}: has the content of the record at {first}"
        if self.policy == "strict":
            raise UserError(f"{text}; remove one, or skip it with {self.option}=error")
        self.repeated.append(text)

    def first(self) -> str:
        """Return the count of unusable records and the first reason as a clause; may be empty."""
        reasons = self.reasons
        return f"; {len(reasons)} left out, as {reasons[0]}" if reasons else ""

    def summary(self) -> list[str]:
        """Return summary lines; none if nothing was rejected."""
        lines = []
        if self.repeated:
            lines.append(f"  repeated: {len(self.repeated)} left out ({self.repeated[0]})")
        if self.reasons:
            lines.append(f"  cannot be used: {len(self.reasons)} left out")
            lines += [f"    {reason}" for reason in self.reasons[:_SHOWN]]
        return lines
