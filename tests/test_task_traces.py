"""Cold-start traces of the built-in tasks, and the prompts of style chat."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from gguf_files import chat_tokenizer

from weft_rl.config.load import load_run_config
from weft_rl.data.countdown import is_held_out as is_held_out_problem
from weft_rl.data.countdown import reachable
from weft_rl.data.prompts import PromptFormat, trace_prompt
from weft_rl.data.records import Record
from weft_rl.data.rejects import fail
from weft_rl.data.sft_examples import encode_traces
from weft_rl.data.sudoku import is_held_out
from weft_rl.data.task_traces import solve_countdown, solve_sudoku, task_traces
from weft_rl.data.tasks import held_out_records, task_prompt
from weft_rl.data.text import task_prompt_ids
from weft_rl.rewards import countdown, format, sudoku
from weft_rl.rewards.arithmetic import evaluate
from weft_rl.stages.cold_start import load_traces

PUZZLE = {"puzzle": "0130401000201043", "solution": "2134431234211243"}
FORM = "\nReply as\n<reasoning>steps</reasoning>\n<answer>%s</answer>"


def draws(seed=0):
    return np.random.default_rng(seed)


def test_prompts_for_small_chat_models():
    assert task_prompt("chat", "sudoku", PUZZLE) == (
        "Fill each 0 of this 4x4 Sudoku. Every row, column and 2x2 box has the digits 1 to 4.\n"
        "0130\n4010\n0020\n1043" + FORM % "four rows"
    )
    assert task_prompt("chat", "countdown", {"numbers": [3, 4, 8], "target": 36}) == (
        "Make 36 from the numbers 3, 4, 8 with + - * /. Use each number once." + FORM % "expression"
    )
    gsm8k = {"question": "How {many} are 100%?", "answer": "#### 3"}
    assert task_prompt("chat", "gsm8k", gsm8k) == "How {many} are 100%?" + FORM % "number"
    assert task_prompt("chat", "math500", {"problem": "2^2"}) == "2^2" + FORM % "result"
    assert trace_prompt("chat", "2^2") == "2^2" + FORM % "result"  # of s1K


def test_a_sudoku_by_hand():
    """r2c1 and r2c2 may be 1 or 2. r2c3 sees 4, 2, 1: it is 3. r3c1 sees 4, 1, 3: 2. r2c1 is 1."""
    rows = "4321\n1234\n2413\n3142"
    fields = {"puzzle": "4321000404130000", "solution": rows.replace("\n", "")}
    assert solve_sudoku(fields, "chat", draws()) == (" r2c3=3 r3c1=2 r2c1=1", rows)
    assert solve_sudoku(fields, "d1", draws())[1] == fields["solution"]


def test_countdowns_by_hand():
    fields = {"numbers": [3, 4, 8], "target": 36}
    drawn = {solve_countdown(fields, "chat", draws(i)) for i in range(60)}
    answers = {"3*(4+8)", "3*(8+4)", "(4+8)*3", "(8+4)*3"}
    assert {answer for _, answer in drawn} == answers
    assert (" 4+8=12 3*12=36", "3*(4+8)") in drawn
    # 2 * 3 * 1, but not 2 / (1 / 3)
    fields = {"numbers": [1, 2, 3], "target": 6}
    steps = {solve_countdown(fields, "chat", draws(i))[0] for i in range(60)}
    assert not any("1/3" in step or "2/3" in step for step in steps)


@pytest.mark.parametrize("task", ["sudoku", "countdown"])
@pytest.mark.parametrize("style", ["chat", "d1", "tiny"])
def test_traces_are_right(task, style):
    score = {"sudoku": sudoku.exact, "countdown": countdown.exact}[task]
    traces = task_traces(task, style, 150, 3)
    for trace, fields in zip(traces, problems(task, 150, 3), strict=True):
        assert trace.question == task_prompt(style, task, fields)
        assert score(trace.answer, **fields) == 1
        assert format.soft(trace.answer) == 1
    assert len({trace.source for trace in traces}) == 150
    # the i-th depends on the seed only
    assert task_traces(task, style, 5, 3) == traces[:5]
    assert task_traces(task, style, 5, 4) != traces[:5]


def problems(task, count, seed):
    """The fields that a chat trace's text has, whatever generated them."""
    found = []
    for trace in task_traces(task, "chat", count, seed):
        lines = trace.question.splitlines()
        if task == "sudoku":
            answer = sudoku.answer_digits(trace.answer)
            found.append({"puzzle": "".join(lines[1:5]), "solution": answer})
        else:
            words = lines[0].replace(",", "").split()
            numbers = [int(word) for word in words[5:8]]
            found.append({"numbers": numbers, "target": int(words[1])})
    return found


def test_no_problem_is_held_out():
    assert not any(is_held_out(fields["solution"]) for fields in problems("sudoku", 300, 0))
    made = problems("countdown", 300, 0)
    assert not any(is_held_out_problem(each["numbers"], each["target"]) for each in made)
    for task in ("sudoku", "countdown"):
        tested = [record.fields for record in held_out_records(task, 100, None)]
        assert not any(fields in tested for fields in problems(task, 300, 0))


def test_steps_of_a_countdown_are_equations():
    for trace in task_traces("countdown", "chat", 200, 1):
        reasoning = trace.answer.split("</reasoning>")[0].removeprefix("<reasoning>")
        first, second = (step.rpartition("=") for step in reasoning.split())
        assert evaluate(first[0])[0] == evaluate(first[2])[0]
        assert evaluate(second[0])[0] == evaluate(second[2])[0]
        assert first[2] in second[0]


@pytest.mark.parametrize("task", ["sudoku", "countdown"])
def test_a_trace_has_the_prompt_of_rl(task):
    tokenizer = chat_tokenizer()
    traces = task_traces(task, "chat", 4, 0)
    examples = encode_traces(traces, tokenizer, "chat", 2, 1000, reject=fail).examples
    records = [Record(str(i), task, fields) for i, fields in enumerate(problems(task, 4, 0))]
    prompts = task_prompt_ids(tokenizer, PromptFormat("chat"), records)
    assert [each.ids[: each.prompt_length] for each in examples] == prompts
    assert {each.ids[-1] for each in examples} == {2}


def test_the_options_of_a_run():
    words = ["model=/some/folder", "data=sudoku", "prompt_style=chat", "cold_start.records=7"]
    config = load_run_config([*words, "seed=5"], command="it")
    assert load_traces(config, fail) == task_traces("sudoku", "chat", 7, 5)
    words = ["model=/some/folder", "data=countdown", "prompt_style=tiny", "cold_start.records=2"]
    config = load_run_config(words, command="it")
    assert load_traces(config, fail) == task_traces("countdown", "tiny", 2, config.seed)


def test_every_countdown_has_steps_without_fractions():
    for numbers in combinations_with_replacement(range(1, 10), 3):
        for target in reachable(*numbers):
            fields = {"numbers": [*numbers], "target": target}
            _, answer = solve_countdown(fields, "chat", draws())
            assert countdown.is_right(answer, numbers, target, lenient=False), (fields, answer)
