import pytest
import yaml

from services.stack.evaluation import command
from services.stack.evaluation.sandbox import passes

TABLE = yaml.safe_load(command.PROBLEMS.read_text())
# What solves each fill-in-the-middle problem, so that none is impossible.
FILLED = {
    "average": "sum(values) / len(values)",
    "last-word": "words[-1]",
    "clamp": "min(value, high)",
    "even": "n % 2 == 0",
    "invert": "value: key",
    "leap": "year % 100 != 0",
    "factorial": "    for i in range(2, n + 1):\n        result *= i\n",
    "count": "    for word in text.split():\n        counts[word] = counts.get(word, 0) + 1\n",
    "flatten": "    for part in nested:\n        flat += part\n",
    "search": (
        "    while low <= high:\n        middle = (low + high) // 2\n        if items[middle] == wanted:\n"
        "            return middle\n        if items[middle] < wanted:\n            low = middle + 1\n"
        "        else:\n            high = middle - 1\n"
    ),
    "stack": "        self._items.append(item)\n\n",
}


@pytest.mark.parametrize("name", FILLED)
def test_a_right_answer_solves_the_problem_and_none_does_not(name: str) -> None:
    problem = next(p for group in TABLE["fim"].values() for p in group if p["name"] == name)
    for text, solved in ((FILLED[name], True), ("", False)):
        program = command.solution("fim", problem, lambda *_, text=text: {"text": text})
        assert passes(f"{program}\n{problem['check']}\n") == solved


def test_code_is_taken_out_of_its_fence() -> None:
    code = "def chunks(items, size):\n    return [items[i:i + size] for i in range(0, len(items), size)]\n"
    answer = {"message": {"content": f"Here:\n```python\n{code}```"}}
    problem = next(p for p in TABLE["code"]["function"] if p["name"] == "chunks")
    assert passes(f"{command.solution('code', problem, lambda *_: answer)}\n{problem['check']}\n")


@pytest.mark.parametrize(
    "program", ["1 / 0", "x = 'a' * 10**9", "open('f', 'w').write('a' * 10**7)", "import sys; sys.exit(3)"]
)
def test_what_fails_or_takes_too_much_does_not_pass(program: str) -> None:
    assert not passes(program)


def test_a_program_sees_nothing_of_its_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_MASTER_KEY", "secret")
    assert passes("import os; assert not os.environ.get('LITELLM_MASTER_KEY') and os.listdir('.') == []")


def test_every_problem_is_named_once() -> None:
    for suite in TABLE.values():
        names = [problem["name"] for group in suite.values() for problem in group]
        assert len(names) == len(set(names)) > 7
