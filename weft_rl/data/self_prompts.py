"""Prompts that an autoregressive model answers, to adapt it on its own text: short, distinct."""

from itertools import product

import numpy as np

from weft_rl.seeding import seed_for

_SUBJECTS = (
    *("the water cycle", "photosynthesis", "gravity", "a rainbow", "an earthquake", "a volcano"),
    *("the moon", "a magnet", "electricity", "a battery", "a vaccine", "an ecosystem"),
    *("a food chain", "a fossil", "a glacier", "a hurricane", "the ocean tide", "a compass"),
    *("a telescope", "a microscope", "a steam engine", "the printing press", "a bicycle"),
    *("a bridge", "recycling", "compost", "inflation", "a budget", "a loan", "an election"),
    *("a library", "a museum", "chess", "a symphony", "a poem", "a metaphor", "a map"),
    *("a calendar", "the alphabet", "a prime number", "a fraction", "an average", "a triangle"),
    *("an algorithm", "a computer program", "the internet", "a password", "a robot"),
    *("a shadow", "an echo", "a mirror", "a seed", "a desert"),
)
_ACTIONS = (
    *("boil an egg", "bake bread", "cook rice", "make a salad", "brew tea", "plant a tomato"),
    *("water a houseplant", "clean a window", "fold a shirt", "sew on a button"),
    *("wrap a gift", "pack a suitcase", "write a letter", "plan a birthday party"),
    *("study for a test", "remember a new word", "learn a song", "read a long book"),
    *("save money", "fall asleep early", "start running", "fix a flat bicycle tire"),
    *("paint a wall", "build a paper boat", "take a good photo", "train a puppy"),
    *("welcome a new neighbor", "apologize to a friend", "prepare for a job interview"),
)
_SENTENCES = (
    *("I want the report now.", "The dog ran across the wet grass.", "We are late again."),
    *("She sings in the garden every morning.", "This soup is not very good."),
    *("The train leaves at nine.", "My brother repairs old radios.", "It rains a lot in April."),
    *("You forgot to close the door.", "The children build a castle of sand."),
    *("He walks to work because he likes it.", "The meeting was long and boring."),
    *("Nobody answered the phone.", "The old bridge needs new paint."),
    *("I cannot come to the party on Friday.", "The cat sleeps on the warm roof."),
)
_GROUPS = (
    *("fruits", "vegetables", "animals that can fly", "sea animals", "countries in Europe"),
    *("rivers", "colors", "kinds of weather", "musical instruments", "sports with a ball"),
    *("tools in a kitchen", "tools of a carpenter", "things in a schoolbag", "jobs in a hospital"),
    *("planets", "metals", "kinds of trees", "board games", "breakfast foods", "hobbies"),
)
# Templates over each kind of topic.
_TEMPLATES = {
    _SUBJECTS: (
        *("In one sentence, explain {}.", "Explain {} to a child in two short sentences."),
        *("Give one interesting fact about {}.", "List three words that belong to {}."),
        *("Why does {} matter? Answer in one sentence.", "Write a short title for a text on {}."),
    ),
    _ACTIONS: (
        *("In three short steps, how do I {}?", "Give me one tip to {}."),
        *("What do I need to {}? Answer with a short list.", "What goes wrong when people {}?"),
        "Encourage a friend who tries to {}. Use one sentence.",
    ),
    _SENTENCES: (
        *("Rewrite this sentence politely: {}", "Make this sentence shorter: {}"),
        *("Say this in other words: {}", "Turn this sentence into a question: {}"),
        "Which words in this sentence are nouns? {}",
    ),
    _GROUPS: (
        *("Name three {}.", "Name two {} and say how they differ, in one sentence."),
        "Sort any four {} by the alphabet.",
    ),
}
_NAMES = ("Ana", "Ben", "Chloe", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas")
_OBJECTS = ("apples", "books", "marbles", "stickers", "coins", "pencils", "cards", "shells")
# n > m; each has a whole answer.
_PROBLEMS = (
    "{name} has {n} {things} and gets {m} more. How many {things} are there now?",
    "{name} has {n} {things} and gives {m} away. How many are left?",
    "{name} fills {m} boxes with {n} {things} each. How many {things} is that?",
    "There are {n} {things} on a table. {name} adds {m}, and then takes 2. How many are there?",
    "{name} buys {m} {things} for {n} cents each. What do they cost?",
    "{name} reads {n} pages on Monday and {m} fewer on Tuesday. How many pages is that in all?",
)
# Every fourth prompt is an arithmetic problem.
_PERIOD = 4


def self_prompts(count: int, seed: int) -> list[str]:
    """Return distinct prompts: explanations, steps, lists, rewriting, and arithmetic problems.

    The first ones do not depend on count. Raises ValueError for more than 804."""
    texts = [
        template.format(topic)
        for topics, templates in _TEMPLATES.items()
        for template, topic in product(templates, topics)
    ]
    rng = np.random.default_rng(seed_for(seed, "self prompts"))
    order, prompts = iter(rng.permutation(len(texts)).tolist()), dict[str, None]()
    while len(prompts) < count:
        if len(prompts) % _PERIOD == _PERIOD - 1:
            prompts[_problem(rng)] = None  # drawn again if it is there already
        elif (place := next(order, None)) is not None:
            prompts[texts[place]] = None
        else:
            raise ValueError(f"count={count}: there are {len(prompts)} prompts")
    return [*prompts]


def _problem(rng: np.random.Generator) -> str:
    small = int(rng.integers(3, 10))
    problem = str(rng.choice(_PROBLEMS)).format(
        name=rng.choice(_NAMES), things=rng.choice(_OBJECTS), m=small, n=small + rng.integers(1, 30)
    )
    return f"{problem} Answer in one short sentence."
