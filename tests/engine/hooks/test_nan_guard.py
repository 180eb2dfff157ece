"""Tests that non-finite updates are skipped, and that training rolls back if they persist."""

import copy

import pytest
import torch
from mae_plugin.engine import AutoAmpOptimWrapper, NaNGuardHook
from mae_plugin.engine.optim.skip_updates import is_finite
from mmengine.hooks import Hook
from torch.utils._python_dispatch import TorchDispatchMode

from ..loops.test_train import STEPS, assert_identical, train

OPTIMIZERS = {
    'fused': lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    'plain': lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
    'sgd': lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
}


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))


def step(wrapper, net, factor=1.0, seed=0):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    wrapper.update_params(net(x).square().mean() * factor)


@pytest.mark.parametrize('kind', OPTIMIZERS)
@pytest.mark.parametrize('scaled', [False, True])
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_a_bad_update_changes_nothing(kind, scaled, bad):
    """Keeps weights, momenta and step counts; a loss scaler halves its scale."""
    nets = model(), model()
    wrappers = []
    for net in nets:
        wrappers.append(AutoAmpOptimWrapper(optimizer=OPTIMIZERS[kind](net.parameters())))
        if scaled:
            wrappers[-1].loss_scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    for i in range(4):
        step(wrappers[0], nets[0], seed=i)
        step(wrappers[1], nets[1], seed=i)
        if i == 1:
            step(wrappers[1], nets[1], factor=bad)
            assert wrappers[1].is_skipping()
            assert not any(p.grad is not None for p in nets[1].parameters())
    assert wrappers[1].read_skipped() == (0, 1, 1)
    assert wrappers[1].read_skipped() == (0, 1, 0)
    assert wrappers[0].read_skipped() == (0, 0, 0)
    assert_identical(nets[0].state_dict(), nets[1].state_dict())
    one, other = (wrapper.optimizer.state_dict()['state'] for wrapper in wrappers)
    for mine, theirs in zip(one.values(), other.values(), strict=True):
        assert_identical(mine, theirs)
    if scaled:
        assert (
            wrappers[1].loss_scaler.get_scale() == 512
            and wrappers[0].loss_scaler.get_scale() == 1024
        )


def test_a_bad_gradient_of_a_finite_loss():
    net = model()
    wrapper = AutoAmpOptimWrapper(optimizer=OPTIMIZERS['fused'](net.parameters()))
    before = copy.deepcopy(net.state_dict())
    net[0].bias.register_hook(lambda grad: grad * float('nan'))
    step(wrapper, net)
    assert wrapper.read_skipped() == (1, 1, 0)
    assert_identical(net.state_dict(), before)


def test_a_loss_that_has_no_gradient_spoils_it_too():
    """Skips the update of an infinite constant, which leaves gradients finite."""
    net = model()
    wrapper = AutoAmpOptimWrapper(optimizer=OPTIMIZERS['fused'](net.parameters()))
    wrapper.update_params(net(torch.ones(1, 3)).sum() + float('inf'))
    assert wrapper.read_skipped() == (1, 1, 1)


def test_the_count_is_resumed():
    net = model()
    wrapper, other = (
        AutoAmpOptimWrapper(optimizer=OPTIMIZERS['fused'](net.parameters())) for _ in range(2)
    )
    for _ in range(3):
        step(wrapper, net, factor=float('nan'))
    other.load_state_dict(wrapper.state_dict())
    assert other.read_skipped()[0] == 3
    other.load_state_dict(
        {k: v for k, v in wrapper.state_dict().items() if k != 'skipped_in_a_row'}
    )
    assert other.read_skipped()[0] == 0


class Reads(TorchDispatchMode):
    """Counts reads of numbers from tensors, for which the host waits for the device."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('clip_grad', [None, dict(max_norm=0.01)])
def test_nothing_is_read(clip_grad):
    """Needs one number per update for optimizers that are not fused, and none for others."""
    for optimizer, expected in (
        (OPTIMIZERS['fused'], 0),
        (lambda p: torch.optim.SGD(p, lr=0.1), 1),
    ):
        net = model()
        wrapper = AutoAmpOptimWrapper(optimizer=optimizer(net.parameters()), clip_grad=clip_grad)
        with Reads() as reads:
            for i in range(3):
                step(wrapper, net, seed=i)
        assert reads.number == 3 * expected


@pytest.mark.parametrize(
    'settings', [dict(max_norm=0.01), dict(max_norm=0.02, norm_type=1.0), dict(max_norm=100.0)]
)
def test_clipping_is_torchs(settings):
    """Compares gradients and norm with torch.nn.utils.clip_grad_norm_."""
    nets = model(), model()
    wrapper = AutoAmpOptimWrapper(
        optimizer=torch.optim.SGD(nets[0].parameters(), lr=1.0), clip_grad=dict(settings)
    )
    step(wrapper, nets[0])
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    nets[1](x).square().mean().backward()
    norm = torch.nn.utils.clip_grad_norm_(nets[1].parameters(), **settings)
    torch.testing.assert_close(wrapper.grad_norm, norm)
    for mine, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(mine.data, theirs.data - theirs.grad)


def test_clipping_by_value():
    net = model()
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    step(
        AutoAmpOptimWrapper(optimizer=optimizer, clip_grad=dict(type='value', clip_value=1e-3)), net
    )
    assert max(
        float((net.state_dict()[key] - before[key]).abs().max()) for key in before
    ) == pytest.approx(1e-3, rel=1e-3)


def test_is_finite_looks_at_buffers_too():
    net = torch.nn.BatchNorm1d(3)
    assert is_finite(net)
    net.running_var[1] = float('inf')
    assert not is_finite(net)


class Spoils(Hook):
    """Makes the losses of a range of steps NaN, several times; or a weight in one step."""

    def __init__(self, begin: int, end: int, times: int = 1, weight: int | None = None) -> None:
        self.begin, self.end, self.times, self.weight = begin, end, times, weight
        self.visits, self.seen = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.visits.append(runner.iter)
        self.seen.append(float(data_batch['inputs'].double().mean()))
        if runner.iter == self.begin:
            self.times -= 1
        if self.begin <= runner.iter < self.end and self.times >= 0:
            data_batch['inputs'] = data_batch['inputs'].float() * float('nan')
        if runner.iter == self.weight:
            self.weight = None
            runner.model.neck.mask_token.data[0, 0, 0] = float('inf')


def spoilt(images, work_dir, spoils, patience=2, **arguments):
    import tests.engine.loops.test_train as resumable

    class Losses(resumable.Losses):
        def before_run(self, runner):
            runner.register_hook(spoils)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable, 'Losses', Losses)
        return train(images, work_dir, **{'default_hooks.guard.patience': patience}, **arguments)


@pytest.mark.parametrize(('by_epoch', 'workers'), [(True, 2), (False, 0)])
def test_goes_back_and_on_with_other_data(images, tmp_path, by_epoch, workers):
    """Rolls back from steps 4 to 7 to the checkpoint of step 3, and uses other images."""
    spoils = Spoils(4, 8)
    losses, weights = spoilt(images, tmp_path, spoils, by_epoch=by_epoch, workers=workers)
    assert spoils.visits == [*range(6), *range(3, STEPS)]
    assert spoils.seen[3:6] != spoils.seen[6:9]
    assert len(set(spoils.seen)) == len(spoils.seen)
    assert all(value.isfinite().all() for value in weights.values())
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert '2 updates up to step 6 were not finite, and skipped' in log
    assert (
        f'Rolling back to {tmp_path}/iter_3.pth, to continue with other data: at iteration 6 the '
        'last 2 updates' in log
    )
    # What is resumed from then on is that run: the same data again, bit for bit.
    stopped = tmp_path / 'stopped'
    spoilt(images, stopped, Spoils(4, 8), by_epoch=by_epoch, stop_after=8)
    rest, resumed = spoilt(images, stopped, Spoils(99, 99), by_epoch=by_epoch, resume=True)
    assert rest == {step: losses[step] for step in range(6, STEPS)}
    assert_identical(resumed, weights)


def test_nothing_good_is_lost_meanwhile(images, tmp_path):
    """Keeps the last good checkpoint while updates are skipped, with one to keep."""
    spoils = Spoils(4, 9)
    changes = {'default_hooks.checkpoint.max_keep_ckpts': 1}
    spoilt(images, tmp_path, spoils, patience=3, interval=1, **changes)
    assert spoils.visits[:12] == [*range(9), 4, 5, 6]
    assert [path.name for path in tmp_path.glob('*.pth')] == [f'iter_{STEPS}.pth']


def test_ends_when_it_does_not_help(images, tmp_path):
    spoils = Spoils(4, 8, times=2)
    with pytest.raises(SystemExit) as ended:
        spoilt(images, tmp_path, spoils)
    assert ended.value.code == 1
    assert spoils.visits == [*range(6), *range(3, 6)]
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert (
        'Training ends, as at iteration 6 the last 2 updates were not finite, by the loss of rank '
        '0 (lr' in log
    )
    assert (
        f'rolling back to {tmp_path}/iter_3.pth did not help; lower optim_wrapper.optimizer.lr'
        in log
    )


def test_ends_when_there_is_nothing_to_go_back_to(images, tmp_path):
    with pytest.raises(SystemExit):
        spoilt(images, tmp_path, Spoils(0, 8))
    assert 'there is no earlier checkpoint' in next(tmp_path.glob('*/*.log')).read_text()


def test_weights_that_are_not_finite_are_not_written(images, tmp_path):
    """Does not write the checkpoint of step 6 after a weight is infinite, and rolls back."""
    spoils = Spoils(99, 99, weight=4)
    _, weights = spoilt(images, tmp_path, spoils, patience=7)
    assert all(value.isfinite().all() for value in weights.values())
    assert spoils.visits == [*range(7), *range(3, STEPS)]
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'NO CHECKPOINT: some weights are not finite, so they were not saved' in log


def test_a_few_bad_steps_are_no_reason(images, tmp_path):
    spoils = Spoils(4, 5)
    spoilt(images, tmp_path, spoils)
    assert spoils.visits == list(range(STEPS))


def test_patience():
    with pytest.raises(ValueError, match='patience=0 would stop every run; use a positive number'):
        NaNGuardHook(patience=0)
