"""Models, arguments and data of tests of the public classes."""

from datasets import Dataset
from small_cold_start import examples, small_model

from weft_rl import (
    ColdStartConfig,
    DiffuGRPOConfig,
    SamplerConfig,
)
from weft_rl.models.toy import tiny_tokenizer
from weft_rl.trainers.collator import AnswerCollator

CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"{n} + 1"},
            {"role": "assistant", "content": f"{n}"},
        ]
    }
    for n in range(2, 10)
]


SILENT = {"report_to": "none", "disable_tqdm": True, "use_cpu": True}


def cold(folder, **options):
    given = {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-2} | SILENT
    return ColdStartConfig(str(folder), **given | options)


def rl(folder, **options):
    given = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "learning_rate": 1e-2,
        "sampler": SamplerConfig(8, 8, 4),
        "logging_steps": 1,
    }
    return DiffuGRPOConfig(str(folder), **given | SILENT | options)


def prompts(count=8, **columns):
    rows = [{"prompt": row["messages"][:1], "number": n} for n, row in enumerate(CHATS[:count])]
    return Dataset.from_list([row | columns for row in rows])


def saved(folder):
    small_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def batch(count=3):
    return AnswerCollator(small_model().config.pad_token_id)(examples()[:count])


def length_reward(completion):
    return (len(completion) * 7919 % 101) / 100
