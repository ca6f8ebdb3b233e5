"""The file behind the report's entropy picture."""

import torch

from weft_rl.runs.folder import read_json
from weft_rl.trainers.infra.token_entropy_log import write_heatmap


def test_rates_over_the_answers_mean(tmp_path):
    x0 = torch.tensor([[9, 1, 2, 3]])
    answer = torch.tensor([[False, True, True, True]])
    entropy = torch.tensor([[0.0, 1.0, 4.0, 9.0]])
    write_heatmap(tmp_path / "a.json", x0, answer, entropy, entropy.sqrt(), "t{}".format)
    (found,) = read_json(tmp_path / "a.json", {})["examples"]
    assert found["tokens"] == ["t1", "t2", "t3"]
    assert found["entropy"] == [1.0, 4.0, 9.0]
    # rates 1, 2, 3 of mean 2
    assert (found["beta"], found["ratio"]) == ([1.0, 2.0, 3.0], [0.5, 1.0, 1.5])
