"""What a user is told: one line."""

import pytest

from weft_rl.errors import UserError


def refusal(function, *arguments, **options):
    """The one line that a call is refused with."""
    with pytest.raises(UserError) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
