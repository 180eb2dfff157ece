"""Tests the official schedule step by step against numbers from its formula."""

import math

import pytest
import torch
from mae_plugin.engine import WarmupCosineLR
from mae_plugin.engine.optim import schedule as module
from mae_plugin.engine.optim.schedule import end_schedules, warmup_cosine


def test_by_hand():
    # Four steps up, then half a cosine over eight.
    expected = [
        0,
        0.25,
        0.5,
        0.75,
        1,
        0.961940,
        0.853553,
        0.691342,
        0.5,
        0.308658,
        0.146447,
        0.038060,
        0,
    ]
    assert [warmup_cosine(t, 4, 12) for t in range(13)] == pytest.approx(expected, abs=1e-6)
    assert warmup_cosine(12, 4, 12, floor=0.1) == pytest.approx(0.1)
    assert warmup_cosine(8, 4, 12, floor=0.1) == pytest.approx(0.55)
    assert warmup_cosine(99, 4, 12, floor=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize('warmup', [0, 3, 50])
def test_shorter_than_the_warm_up(warmup):
    assert all(0 <= warmup_cosine(t, warmup, 2) <= 1 for t in range(5))


def test_groups_keep_their_own_scale_down_to_the_floor():
    """Scales the floor by layer decay; mmpretrain's eta_min makes rates of low layers rise."""
    groups = [dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=lr) for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scheduler = WarmupCosineLR(optimizer, warmup=2, end=10, eta_min_ratio=0.01, by_epoch=False)
    seen = []
    for _ in range(10):
        seen.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    for step, (high, low) in enumerate(seen):
        official = (
            step / 2 if step < 2 else 0.01 + 0.99 * (1 + math.cos(math.pi * (step - 2) / 8)) / 2
        )
        assert (high, low) == pytest.approx((official, official / 10), rel=1e-12)


def build(epochs: int) -> tuple[torch.optim.Optimizer, WarmupCosineLR]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    return optimizer, WarmupCosineLR.build_iter_from_epoch(
        optimizer, warmup=1, end=epochs, epoch_length=5
    )


def test_epochs_become_iterations():
    _, scheduler = build(epochs=3)
    assert (scheduler.warmup, scheduler.end, scheduler.by_epoch) == (5, 15, False)


def test_a_warm_up_that_is_too_long(monkeypatch):
    """`train_cfg.max_epochs=100` kept 40 epochs of warm-up without a warning."""
    messages = []
    monkeypatch.setattr(module, 'print_log', lambda sentence, **_: messages.append(sentence))
    for warmup, end in ((40, 300), (10, 90), (3, 18), (0, 1)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        WarmupCosineLR.build_iter_from_epoch(optimizer, warmup=warmup, end=end, epoch_length=7)
        assert messages == []
    WarmupCosineLR(optimizer, warmup=40, end=100)
    assert messages == [
        'The warm-up takes 40 of 100 epochs, 40 % of the training; set param_scheduler.warmup to '
        '5 to 10 % of train_cfg.max_epochs (or max_iters) if you have shortened the training.'
    ]
    WarmupCosineLR(optimizer, warmup=40, end=20)
    assert messages[1:] == [
        'The warm-up takes 40 epochs and training 20, so the learning rate does not reach its '
        'peak; set param_scheduler.warmup to 5 to 10 % of train_cfg.max_epochs (or max_iters), '
        'unless this is a trial run.'
    ]


def test_epochs_of_a_training_in_iterations():
    """The cosine ended with the first pass through the data."""
    ours = dict(type='WarmupCosineLR', warmup=1, convert_to_iter_based=True)
    other = dict(type='CosineAnnealingLR')
    assert end_schedules([ours, other], 7, 3) == [{'end': 7 / 3, **ours}, other]
    assert end_schedules(dict(ours, end=2), 7, 3)['end'] == 2
    assert end_schedules(None, 7, 3) is None
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = WarmupCosineLR.build_iter_from_epoch(optimizer, end=7 / 3, epoch_length=3)
    assert scheduler.end == 7 and type(scheduler.end) is int


@pytest.mark.parametrize('epochs', [2, 3, 6])
@pytest.mark.parametrize('done', [0, 3, 10])
def test_resume_goes_on_where_it_was_with_the_length_of_the_config(done, epochs):
    """Resumes a run of two epochs with its own length and with more epochs."""
    optimizer, scheduler = build(epochs=2)
    for _ in range(done):
        optimizer.step()
        scheduler.step()
    resumed_optimizer, resumed = build(epochs=epochs)
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    for step in range(done, 5 * epochs):
        assert resumed_optimizer.param_groups[0]['lr'] == pytest.approx(
            2 * warmup_cosine(step, 5, 5 * epochs), rel=1e-12
        )
        resumed_optimizer.step()
        resumed.step()
