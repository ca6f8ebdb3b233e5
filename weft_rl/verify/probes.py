"""Built-in texts of a check: English, or the tiny model's puzzles."""

from typing import TYPE_CHECKING, NamedTuple

from weft_rl.data.text import TextEncoder
from weft_rl.data.toy import pretraining_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Digits, accents, an emoji, code and white space.
MIXED = 'Café no. 3: "naïve" costs 1,234.50 € 🙂\n\ndef f(x):\n    return x ** 2  # 2^10\n'
PROMPTS = (
    "What is 12 + 30?",
    "Name three animals that live in the sea.",
    "Write a Python function that returns the larger of two numbers.",
)
ENGLISH = """\
The old mill stands at the bend of the river, a short walk from the village. For two hundred \
years its wheel turned day and night, and farmers from the whole valley brought their wheat \
to be ground. When the railway came, flour from the city was cheaper, and one autumn the wheel \
stopped. The roof began to leak, and birds built their nests under the beams. Ten years ago a \
young couple bought the building. They repaired the roof, cleaned the stones and painted the \
door green. In the first winter the water froze and broke two of the wooden blades, so they had \
to wait until spring. Now the mill works again on weekends. Visitors can watch how the grain runs \
between the stones, and in the small shop they can buy bread that was baked in the morning. Most \
of them take a second loaf home.
"""
# Not the seed of the tiny model's pretraining.
_HELD_OUT_SEED, _NUM_PUZZLES = 1, 16


class Probes(NamedTuple):
    """Texts for the NELBO, as prompt and answer, and prompts to complete."""

    name: str
    pairs: list[tuple[str, str]]  # an empty prompt: the answer is a plain text
    prompts: list[str]


def probes(tokenizer: "PreTrainedTokenizerBase") -> Probes:
    """Return English texts, or the tiny model's puzzles if the vocabulary has no English."""
    if unknown_tokens(tokenizer, ENGLISH) == 0:
        return Probes("built-in English text", [("", ENGLISH)], [*PROMPTS])
    pairs = pretraining_texts(_NUM_PUZZLES, _HELD_OUT_SEED)
    return Probes("the tiny model's puzzles", pairs, [prompt for prompt, _ in pairs[:3]])


def unknown_tokens(tokenizer: "PreTrainedTokenizerBase", text: str) -> int:
    """Count the unknown tokens of a text."""
    (ids,) = TextEncoder(tokenizer).texts([text])
    return 0 if tokenizer.unk_token_id is None else ids.count(tokenizer.unk_token_id)
