"""Single tokens in tables, heat maps and replays: parts of characters, blanks, invisible ones."""

import csv
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bpe import SMOLLM2, small_network, smollm2_bpe, smollm2_tokenizer
from report_folders import run_folder

from weft_rl.config.sampler import SamplerConfig
from weft_rl.data.text import TextEncoder, decode_completion, token_text
from weft_rl.evaluation.generate import denoising_replay
from weft_rl.io.terminal import Console, visible
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.report.run_report import write_report
from weft_rl.runs.atomic_io import write_json
from weft_rl.sampler import generate
from weft_rl.sampler.progress import live_completion
from weft_rl.trainers.infra.token_entropy_log import TokenTable, write_heatmap

TEXTS = [
    "Add 🙂 and 👨‍👩‍👧, é e\u0301 — ❤️ 数学",
    "a\tb\r\n\nc  d\0 \u202eabc\u202c\ufeff",
    "<b>&amp;</b> \",' </script>",
    "שלום हिन्दी \u2028\x85 \ud7ff \U000e0001",
]


@pytest.fixture(scope="module", params=SMOLLM2)
def tokenizer(request):
    return smollm2_tokenizer(request.param)


def as_bytes(text):
    """The bytes of a text in which \\xf0 stands for a byte."""
    parts = re.split(r"\\x([0-9a-f]{2})", text)
    return b"".join(bytes.fromhex(part) if i % 2 else part.encode() for i, part in enumerate(parts))


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_have_all_bytes_of_a_text(tokenizer, text):
    (ids,) = TextEncoder(tokenizer).texts([text])
    parts = [token_text(tokenizer, token) for token in ids]
    assert as_bytes("".join(parts)).decode() == text
    assert "\ufffd" not in "".join(parts)


def test_every_token_has_a_text_of_its_own(tokenizer):
    texts = [token_text(tokenizer, token) for token in range(len(tokenizer))]
    assert all(texts)
    assert len({*texts}) == len(texts)
    assert texts[tokenizer.mask_token_id] == "<|mask|>"
    assert token_text(tokenizer, len(tokenizer) + 3) == f"<{len(tokenizer) + 3}>"
    for text in texts:
        assert visible(text).isprintable()
        assert len(f"{visible(text)}.".splitlines()) == 1


def test_by_hand():
    tokenizer = tiny_tokenizer()
    for token in range(len(tokenizer)):  # one symbol each
        assert token_text(tokenizer, token) == decode_completion(tokenizer, [token])
    (ids,) = TextEncoder(smollm2_bpe()).texts(["🙃"])  # not in the training text
    parts = [token_text(smollm2_bpe(), token) for token in ids]
    assert len(parts) > 1
    assert "".join(parts) == r"\xf0\x9f\x99\x83"
    shown = {"\n": r"\n", "a\u200d": r"a\u200d", "\u0301": "\u25cc\u0301", "e\u0301": "e\u0301"}
    shown |= {" a": " a", "\0": r"\x00", "\u2028": r"\u2028", "": "", "\\n": "\\n", "🙂": "🙂"}
    assert {text: visible(text) for text in shown} == shown


def test_a_table_has_a_line_per_token(tokenizer, tmp_path):
    ids = torch.tensor(TextEncoder(tokenizer).texts(["".join(TEXTS) + tokenizer.eos_token])[0])
    table = TokenTable(len(tokenizer))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    table.add(ids[None], everywhere[None], torch.ones(1, len(ids)))
    table.write(tmp_path / "t.csv", lambda token: token_text(tokenizer, token))
    content = (tmp_path / "t.csv").read_text()
    rows = [*csv.DictReader(io.StringIO(content))]
    assert len(rows) + 1 == len(content.splitlines()) == len(ids.unique()) + 1
    for row in rows:
        assert row["token"] == visible(token_text(tokenizer, int(row["id"])))


def test_the_report_shows_every_token(tokenizer, tmp_path):
    """Escaped, with a shape for line breaks; nothing of a text is left out."""
    folder = run_folder(tmp_path / "run")
    text = "".join(TEXTS)
    ids = torch.tensor(TextEncoder(tokenizer).texts([text]))
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    path = folder / "entropy_heatmap-weft.json"
    spelling = [token_text(tokenizer, token) for token in range(len(tokenizer))]
    write_heatmap(path, ids, everywhere, ids.float(), ids.float(), spelling.__getitem__)
    trace = [
        {"position": i, "step": i, "token": token, "confidence": 0.5}
        for i, token in enumerate(ids[0].tolist())
    ]
    replay = denoising_replay(tokenizer, "q", ids[0].tolist(), trace)
    write_json(folder / "completions" / "trace-rl.json", {"examples": [replay]})
    page = write_report(folder).read_text()
    spans = re.findall(r'<span class="token"[^>]*>(.*?)</span>', page, re.DOTALL)
    assert len(spans) == 2 * ids.shape[1]  # the heat map and the replay
    assert all(span.strip(" ") or span for span in spans)
    assert sum("↵\n" in span for span in spans) >= 2
    assert "<b>&amp;</b>" not in page
    names = re.findall(r'data-name="(.*?)"', page, re.DOTALL)
    assert len(names) == ids.shape[1]
    assert not any("\n" in name for name in names)
    (script,) = re.findall(
        r'denoising_replay">\s*<script type="application/json">(.*?)</script>', page, re.DOTALL
    )
    shown = "".join(json.loads(script)["tokens"])
    assert "\u202e" not in shown
    assert r"\u202e" in shown or r"\xe2\x80\xae" in shown.replace("\\\\", "\\")


def test_the_live_completion_joins_the_parts_of_a_character(tokenizer):
    console = Console(
        file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False, _environ={}
    )
    (ids,) = TextEncoder(tokenizer).texts(["a 🙃"])
    length = len(ids) + 1
    with live_completion(length, lambda row: decode_completion(tokenizer, row), console) as on_step:
        for i, token in enumerate(ids):
            one = {"rows": np.array([0]), "positions": np.array([i]), "tokens": np.array([token])}
            on_step(SimpleNamespace(**one))
    assert "🙃·" in console.file.getvalue()


def test_the_mask_token_is_never_sampled(tokenizer):
    """Its row comes after all others; every completion decodes without it."""
    network = small_network(tokenizer)
    assert network.config.vocab_size == len(tokenizer) == tokenizer.mask_token_id + 1
    config = SamplerConfig(16, 16, 4, temperature=5.0, early_stop=False)
    prompts = torch.tensor([[5, 6]] * 16)
    out = generate(network, prompts, config)
    assert tokenizer.mask_token_id not in out.completions
    assert out.completions.max() > len(tokenizer) // 2
