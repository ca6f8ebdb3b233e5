"""d1's published scoring rules in short form: regular expressions and eval, without timeouts."""

import re


def number(generation):
    for box in re.findall(r"\\boxed\{(.*?)\}", generation):
        content = box.strip()
        if content == "" or set(content) == {"."}:
            continue
        read = _float(content)
        if read is None:
            inner = re.findall(r"-?\d+\.?\d*", content)
            read = float(inner[0]) if inner else None
        if read is not None:
            return read
    tag = re.search(r"<answer>(.*?)</answer>", generation, re.DOTALL)
    if tag and tag[1].strip():
        read = _float(tag[1].strip())
        inner = re.findall(r"-?\d+\.?\d*", tag[1])
        return float(inner[-1]) if read is None and inner else read
    return None


def gsm8k(generation, truth):
    read = number(generation)
    return read is not None and read == truth


def _float(text):
    try:
        return float(text)
    except ValueError:
        return None


def boxed(text):
    """Content of the last box; raises TypeError for an unclosed one."""
    if "\\boxed " in text:
        return text.split("\\boxed ")[-1].split("$")[0]
    start = text.rfind("\\boxed") if "\\boxed" in text else text.rfind("\\fbox")
    if start < 0:
        return text
    for end in range(start, len(text)):
        part = text[start : end + 1]
        if part.endswith("}") and part.count("{") == part.count("}"):
            inside = re.fullmatch(r"\\boxed\{(.*)\}", part, re.DOTALL)
            return inside[1] if inside else part
    raise TypeError("no closing brace")


def in_tag(text):
    tag = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return tag[1].strip() if tag else None


def math500(generation, truth):
    try:
        answer = boxed(generation)
    except TypeError:
        answer = None
    if not answer and in_tag(generation) is not None:
        answer = in_tag(generation)
    if answer is None:
        return False
    try:
        return level(answer) == level(truth)
    except (ValueError, IndexError, AssertionError):
        return answer == truth


def level(s):
    for gone in ("\n", "\\!"):
        s = s.replace(gone, "")
    s = s.replace("\\\\", "\\").replace("tfrac", "frac").replace("dfrac", "frac")
    for gone in ("\\left", "\\right", "^{\\circ}", "^\\circ", "\\$"):
        s = s.replace(gone, "")
    pieces = s.split("\\text{ ")
    assert len(pieces) <= 2
    s = pieces[0].replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if s == "":
        return s
    if s.startswith("."):
        s = "0" + s
    sides = s.split("=")
    if len(sides) == 2 and len(sides[0]) < 3:
        s = sides[1]
    head, *rest = s.split("\\sqrt")
    s = head + "".join("\\sqrt" + (r if r[0] == "{" else "{" + r[0] + "}" + r[1:]) for r in rest)
    s = fractions(s.replace(" ", ""))
    if s == "0.5":
        s = "\\frac{1}{2}"
    sides = s.split("/")
    if len(sides) == 2:
        a, b = int(sides[0]), int(sides[1])
        if s == f"{a}/{b}":
            s = f"\\frac{{{a}}}{{{b}}}"
    return s


def fractions(s):
    head, *rest = s.split("\\frac")
    for r in rest:
        if r[0] == "{":
            head += "\\frac" + r
        elif len(r) < 2:
            return s
        elif r[1] == "{":
            head += "\\frac{" + r[0] + "}" + r[1:]
        else:
            head += "\\frac{" + r[0] + "}{" + r[1] + "}" + r[2:]
    return head


def countdown(generation, numbers, target):
    try:
        expression = boxed(generation)
    except TypeError:
        inside = in_tag(generation)
        expression = generation if inside is None else inside
    for latex, plain in (("\\div", "/"), ("\\times", "*"), ("\\cdot", "*")):
        expression = expression.replace(latex, plain)
    equation = re.search(r"([0-9+\-*/() ]+)=[0-9. ]+", expression)
    if equation:
        expression = equation[1].strip()
    if sorted(int(n) for n in re.findall(r"\d+", expression)) != sorted(numbers):
        return False
    if not re.match(r"^[\d+\-*/().\s]+$", expression):
        return False
    try:
        return abs(eval(expression.strip(), {"__builtins__": None}, {}) - target) < 1e-5  # noqa: S307
    except Exception:  # noqa: BLE001 - as in the published scorer
        return False


def sudoku_answer(generation):
    for pattern in (
        r"<answer>.*?```\s*([\d\s]+)```",
        r"<answer>(.*?)(?:<\|eot_id\|>|<\|endoftext\|>|</answer>)",
        r"</answer>\s*(.*?)(?:<\|eot_id\|>|<\|endoftext\|>|$)",
        r".*?(\d{16})\s*</answer>",
        r"\b(\d{16})\b",
    ):
        found = re.search(pattern, generation, re.DOTALL)
        if found and found[1].strip():
            return re.sub(r"\s", "", found[1])
    return ""


def sudoku(generation, puzzle, solution):
    answer = sudoku_answer(generation).ljust(16, "0")
    return sum(answer[i] == solution[i] for i in range(16) if puzzle[i] == "0")
