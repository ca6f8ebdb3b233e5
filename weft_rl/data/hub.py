"""Records of a data set on the hub, through `datasets`."""

from weft_rl.checkpoints.hub import announce_download
from weft_rl.data.records import COLUMNS, Record, make_records
from weft_rl.data.rejects import Rejects
from weft_rl.data.trace_sources import table_rows
from weft_rl.errors import UserError


def hub_records(
    task: str, name: str, split: str = "test", rejects: Rejects | None = None
) -> list[Record]:
    """The records of a data set's split; columns as load_records has them.

    name: "owner/name", or "owner/name:configuration". Raises UserError when it cannot be loaded or
    has other columns, and as make_records does."""
    from datasets import load_dataset

    place, _, configuration = name.partition(":")
    announce_download(place)
    try:
        rows = load_dataset(place, configuration or None, split=split)
    # whatever a broken network, a missing data set or a missing split makes the library raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"data={name}: split {split} cannot be loaded ({reason}); name a file"
        ) from error
    return make_records(task, table_rows(name, rows, COLUMNS.get(task)), name, name, rejects)
