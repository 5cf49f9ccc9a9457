import pickle
from types import SimpleNamespace

import pytest
from trl.rewards import get_repetition_penalty_reward

from trl_onevision.rewards.accuracy import accuracy_reward
from trl_onevision.rewards.compose import Clip, First, Gate, Product, Scheduled, hard_format_accuracy_reward
from trl_onevision.rewards.format import format_reward

GOOD, WRONG = "<think>a</think><answer>4</answer>", "<think>a</think><answer>5</answer>"
UNFORMATTED = "<answer>4</answer>"
ROWS = {"completions": [GOOD, WRONG, UNFORMATTED, GOOD], "solution": ["4", "4", "4", None]}


def constant(*values):
    def reward(completions, **kwargs):
        return list(values)

    return reward


def test_gate_pays_only_where_the_condition_holds():
    gate = Gate(format_reward, accuracy_reward)
    assert gate(**ROWS) == [1, 0, 0, None]
    assert gate.__name__ == "accuracy_reward_if_format_reward"
    assert Gate(constant(0.4, 0.6, None), constant(1, 1, 1), threshold=0.5, otherwise=-1)(["a"] * 3) == [-1, 1, None]


def test_product():
    assert hard_format_accuracy_reward(**ROWS) == [1, 0, 0, None]
    assert Product(constant(0.5, 2, None), constant(0.5, 0, 1))(["a"] * 3) == [0.25, 0, None]
    assert Product(constant(-1, -0.5, 0), constant(-1, 0.5, -1))(["a"] * 3) == [-1, -0.25, 0], (
        "two faults are no merit"
    )
    assert Product(format_reward, accuracy_reward).__name__ == "format_reward_times_accuracy_reward"


def test_clip():
    assert Clip(constant(-1, 0.5, 3, None), low=0, high=1)(["a"] * 4) == [0, 0.5, 1, None]
    with pytest.raises(ValueError, match="low <= high"):
        Clip(format_reward, low=1, high=0)


def test_first_that_can_score():
    assert First(constant(None, 0.0, None), constant(1.0, 1.0, None))(["a"] * 3) == [1.0, 0.0, None]


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (20, 1.0), (40, 0.75), (60, 0.5), (80, 0.5), (100, 0.5)])
def test_scheduled(step, expected):
    reward = Scheduled(constant(1.0, None), [(0.2, 1.0), (0.6, 0.5)])
    state = SimpleNamespace(global_step=step, max_steps=100)
    assert reward(["a", "b"], trainer_state=state) == [pytest.approx(expected), None]


def test_scheduled_without_a_trainer_and_with_one_point():
    assert Scheduled(constant(1.0), [(0.0, 0.3), (1.0, 1.0)])(["a"]) == [0.3]
    assert Scheduled(constant(1.0), [(0.5, 0.3)])(["a"]) == [0.3]
    before_training = SimpleNamespace(global_step=0, max_steps=0)  # trainer.evaluate() on a fresh trainer
    assert Scheduled(constant(1.0), [(0.0, 0.3), (1.0, 1.0)])(["a"], trainer_state=before_training) == [0.3]
    for points in ([], [(0.5, 1), (0.5, 0)], [(0.6, 1), (0.5, 0)], [(0, 1), (1.5, 0)]):
        with pytest.raises(ValueError, match="shares that rise"):
            Scheduled(format_reward, points)


def test_parts_see_all_columns_and_rewards_of_trl_are_parts():
    penalty = get_repetition_penalty_reward(ngram_size=2)
    reward = Gate(accuracy_reward, penalty, name="repetition_of_the_right")
    assert reward(["Answer: 4"], solution=["4"], completion_ids=[[5, 5, 5, 5, 5]]) == [-0.75]
    assert reward.__name__ == "repetition_of_the_right"


def test_a_part_adds_no_column_to_the_table_of_completions():
    parts = (
        Gate(format_reward, accuracy_reward),
        Product(format_reward, accuracy_reward),
        Clip(accuracy_reward),
        First(accuracy_reward, format_reward),
        Scheduled(accuracy_reward, [(0.0, 1.0)]),
    )
    logged, metrics = [], []
    for reward in parts:
        reward(**ROWS, log_extra=lambda *column: logged.append(column), log_metric=lambda *one: metrics.append(one))
    assert not logged
    assert len(metrics) == len(parts)  # of metrics TRL takes the mean: they are passed on


def test_composed_rewards_compose_and_pickle():
    reward = Clip(Scheduled(Gate(format_reward, accuracy_reward), [(0.0, 2.0)]), high=1.5)
    assert pickle.loads(pickle.dumps(reward))(**ROWS) == [1.5, 0, 0, None]
    assert reward.__name__ == "clipped_scheduled_accuracy_reward_if_format_reward"


def test_what_is_no_reward_is_refused():
    async def judge(completions, **kwargs):
        return [1.0]

    class Judge:
        async def __call__(self, completions, **kwargs):
            return [1.0]

    for wrong in (judge, Judge()):
        with pytest.raises(TypeError, match="coroutine"):
            Product(format_reward, wrong)
    with pytest.raises(TypeError, match="expected a callable"):
        Clip("format_reward")
    with pytest.raises(TypeError, match="at least one"):
        First()
