"""Records of a data set on the hub, through `datasets`."""

from collections.abc import Iterator
from typing import Any

from weft_rl.data.records import Record, make_records
from weft_rl.errors import UserError
from weft_rl.places import tell_of_hub


def hub_records(task: str, name: str, split: str = "test") -> list[Record]:
    """The records of a data set's split; columns as load_records has them.

    name: "owner/name", or "owner/name:configuration". Raises UserError when it cannot be loaded or
    has other columns, and as make_records does."""
    from datasets import load_dataset

    place, _, configuration = name.partition(":")
    tell_of_hub(place)
    try:
        rows = load_dataset(place, configuration or None, split=split)
    # whatever a broken network, a missing data set or a missing split makes the library raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"data={name}: split {split} cannot be loaded ({reason}); name a file"
        ) from error
    return make_records(task, _numbered(rows), name, name)


def _numbered(rows: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    yield from enumerate(rows, 1)
