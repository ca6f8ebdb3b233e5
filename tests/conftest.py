"""What tests of several files begin with."""

import pytest


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A folder with a small model to start from."""
    from rl_trainer import small_model  # most test files do without torch

    from weft_rl.models.toy import tiny_tokenizer

    folder = tmp_path_factory.mktemp("start")
    small_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
