"""`verify`: tokenizers, chat templates, published settings and the printed lines."""

import pytest
from bpe import byte_level, llada_bpe
from verified import facts

from weft_rl.config.load import load_run_config
from weft_rl.evaluation.settings import evaluation_settings
from weft_rl.models.configuration import LLaDAConfig
from weft_rl.verify import tokenizer as checks
from weft_rl.verify.gsm8k import PUBLISHED, Published, differences
from weft_rl.verify.report import Report, quoted


def described(capsys, tokenizer, **ids):
    report = Report()
    config = LLaDAConfig(**({"vocab_size": len(tokenizer)} | ids))
    with report.checking("tokenizer"):
        checks.describe(report, tokenizer, config)
    return report, capsys.readouterr().out


def ids_of(tokenizer):
    names = ("mask_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(tokenizer, name) for name in names} | {"eot_token_id": None}


def test_a_mask_token_that_users_write(capsys):
    """One character counts as text, and would become a mask."""
    tokenizer = byte_level(["<|end|>", "_"], None, mask_token="_", eos_token="<|end|>")
    tokenizer.pad_token = "<|end|>"
    report, text = described(capsys, tokenizer, **ids_of(tokenizer))
    assert report.problems == []
    assert [section for section, _ in report.warnings] == ["tokenizer"]
    assert "becomes the mask token" in text


def test_a_mask_token_that_the_tokenizer_lacks(capsys):
    tokenizer = llada_bpe()
    ids = ids_of(tokenizer)
    report, _ = described(capsys, tokenizer, **ids)
    assert (report.problems, report.warnings) == ([], [])
    tokenizer.mask_token = None
    report, _ = described(capsys, tokenizer, **ids)
    assert [text[:14] for _, text in report.problems] == ["mask_token_id="]


TURNS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}"
OPENED = "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "problems", "warnings"),
    [
        (None, 0, 1),
        (TURNS, 0, 1),
        # the blank at the end of the prompt merges with the answer
        (TURNS + OPENED, 1, 0),
        (TURNS + OPENED.replace(": ", ":"), 0, 0),
        (TURNS + OPENED.replace(": ", " (with care): "), 1, 0),
        ("{{ raise_exception('never') }}", 1, 0),
    ],
)
def test_chat_templates(template, problems, warnings, capsys):
    tokenizer, report = llada_bpe(), Report()
    tokenizer.chat_template = template
    with report.checking("chat template"):
        checks.describe_template(report, tokenizer)
    assert (len(report.problems), len(report.warnings)) == (problems, warnings)


def test_an_error_of_several_lines_is_one(capsys):
    tokenizer, report = llada_bpe(), Report()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with report.checking("chat template"):
        checks.describe_template(report, tokenizer)
    capsys.readouterr()
    assert report.finish() == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["", "warning", "problem", "1 problem"]
    assert lines[-1] == "1 problem: chat template, 1 warning: chat template"


def test_a_message_that_the_template_adds(capsys):
    tokenizer = llada_bpe()
    tokenizer.chat_template = "system: be brief\n" + tokenizer.chat_template
    checks.describe_template(Report(), tokenizer)
    found = facts(f"\nchat template\n{capsys.readouterr().out}")["chat template"]
    assert "system: be brief" in found["system"]


def test_settings_that_differ_from_a_publication():
    words = ["preset=llada_8b", "task=gsm8k"]
    settings = evaluation_settings(load_run_config(words, command="it"))
    ours, theirs = PUBLISHED["GSAI-ML/LLaDA-8B-Instruct"]
    assert differences(ours, settings) == "the same settings"
    assert differences(theirs, settings) == "with block_length 8, steps 256, prompt LLaDA's"
    nothing = differences(Published(1.0, "it"), settings)
    assert nothing == "not stated: gen_length, block_length, steps, prompt"


def test_texts_of_others_stay_on_their_lines(capsys):
    assert quoted("a\n\x1b[2J") == r"'a\n\x1b[2J'"
    assert len(quoted("x" * 10_000)) < 300
    report = Report()
    report.text("prompt", "one two  " * 20)
    report.fact("folder", "/" + "x" * 90)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert "".join(line[16:] for line in lines[:-1]) == repr("one two  " * 20)
    assert lines[-1].endswith("/" + "x" * 90)
