"""Tests training with a time limit, with a fake clock."""

from types import SimpleNamespace

import pytest
from mae_plugin.engine import TimeLimitHook


def test_learning_rate_and_end_follow_the_clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr('mae_plugin.engine.hooks.time_limit.time.monotonic', lambda: now[0])
    hook = TimeLimitHook(minutes=1, warmup=0.1)
    groups = [dict(lr=2.0), dict(lr=0.2)]
    runner = SimpleNamespace(
        optim_wrapper=SimpleNamespace(param_groups=groups),
        train_loop=SimpleNamespace(_max_iters=10**6),
        iter=41,
        epoch=3,
    )
    hook.before_train(runner)
    for elapsed, factor in ((0, 0), (3, 0.5), (6, 1), (33, 0.5), (60, 0), (61, 0)):
        now[0] = 100.0 + elapsed
        hook.before_train_iter(runner, 0)
        assert [group['lr'] for group in groups] == pytest.approx(
            [2 * factor, 0.2 * factor], abs=1e-12
        )
        hook.after_train_iter(runner, 0)
        assert runner.train_loop._max_iters == (42 if elapsed >= 60 else 10**6)


@pytest.mark.parametrize('minutes', [0, -1])
def test_no_time(minutes):
    with pytest.raises(ValueError, match=f'minutes={minutes}'):
        TimeLimitHook(minutes)
