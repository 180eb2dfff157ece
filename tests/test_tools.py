"""The tools on generated JPEGs: training, resuming, fine-tuning, evaluation, wrong arguments."""

import json
import pickle
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch

from .conftest import (
    FINETUNE,
    LINEAR,
    PRETRAIN,
    ROOT,
    SMALL,
    SMALL_FINETUNE,
    SMALL_PRETRAIN,
    SMALL_TEST,
    run,
    scalars,
    write_jpegs,
)


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory) -> Path:
    """The work dir of two epochs of pre-training on 16 JPEGs in nested folders of any name."""
    root = tmp_path_factory.mktemp('pretrain')
    write_jpegs(root / 'images' / 'train' / 'holidays' / 'beach', 10)
    write_jpegs(root / 'images' / 'train' / 'work', 6, seed=1)
    options = [*SMALL_PRETRAIN, 'train_cfg.max_epochs=2']
    run(
        'tools/train.py',
        PRETRAIN,
        '--work-dir',
        root / 'run',
        '--data-root',
        root / 'images',
        '--cfg-options',
        *options,
    )
    return root


def test_pretraining(pretrained):
    records = scalars(pretrained / 'run')
    assert [record['step'] for record in records] == list(range(1, 9))
    # 4 images per step, so 1.5e-4 * 4 / 256; step t of 40 epochs of warm-up at 4 steps per epoch.
    for t, record in enumerate(records):
        assert record['lr'] == pytest.approx(1.5e-4 * 4 / 256 * t / 160, rel=1e-6)
        assert 0.1 < record['loss'] < 3
    checkpoint = torch.load(pretrained / 'run' / 'epoch_2.pth', weights_only=True)
    assert checkpoint['meta']['iter'] == 8
    assert checkpoint['state_dict']['backbone.pos_embed'].shape == (1, 17, 192)
    assert 'Training in float32' in next((pretrained / 'run').glob('*/*.log')).read_text()


def test_resume(pretrained, tmp_path):
    """Continues at the third epoch with weights, optimizer, schedule and history of the second."""
    work_dir = tmp_path / 'run'
    shutil.copytree(pretrained / 'run', work_dir)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_2.pth'))
    options = [*SMALL_PRETRAIN, 'train_cfg.max_epochs=3']
    arguments = [
        '--work-dir',
        work_dir,
        '--data-root',
        pretrained / 'images',
        '--resume',
        '--auto-scale-lr',
        '--amp',
    ]
    arguments += ['--no-validate', '--no-pin-memory', '--no-persistent-workers']
    run('tools/train.py', PRETRAIN, *arguments, '--cfg-options', *options)
    records = scalars(work_dir)
    assert [record['step'] for record in records] == list(range(1, 13))
    assert records[8]['lr'] == pytest.approx(1.5e-4 * 4 / 256 * 8 / 160, rel=1e-6)
    old, new = (torch.load(work_dir / f'epoch_{i}.pth', weights_only=True) for i in (2, 3))
    assert new['optimizer']['state'][0]['step'] == old['optimizer']['state'][0]['step'] + 4
    assert len(new['message_hub']['log_scalars']['train/loss']['log_history']) == 12
    assert not torch.equal(
        old['state_dict']['backbone.cls_token'], new['state_dict']['backbone.cls_token']
    )
    assert torch.equal(
        old['state_dict']['backbone.pos_embed'], new['state_dict']['backbone.pos_embed']
    )


@pytest.fixture(scope='module')
def finetuned(pretrained, imagenet) -> Path:
    """The work dir of one epoch of fine-tuning from the pre-trained checkpoint."""
    work_dir = pretrained / 'finetune'
    checkpoint = pretrained / 'run' / 'epoch_2.pth'
    options = [
        *SMALL_FINETUNE,
        *SMALL_TEST,
        'train_cfg.max_epochs=1',
    ]
    arguments = ['--work-dir', work_dir, '--data-root', imagenet, '--pretrained', checkpoint]
    run('tools/train.py', FINETUNE, *arguments, '--cfg-options', *options)
    return work_dir


def test_finetuning(pretrained, finetuned):
    """Starts from the pre-trained encoder, whose weights hardly change in two steps."""
    before = torch.load(pretrained / 'run' / 'epoch_2.pth', weights_only=True)['state_dict']
    after = torch.load(finetuned / 'epoch_1.pth', weights_only=True)['state_dict']
    for name in ('layers.0.attn.qkv.weight', 'patch_embed.projection.weight', 'pos_embed'):
        torch.testing.assert_close(
            after[f'backbone.{name}'], before[f'backbone.{name}'], rtol=0, atol=1e-5
        )
    assert [record['step'] for record in scalars(finetuned)] == [1, 2]
    logged = json.loads(
        (next(finetuned.glob('*/vis_data/scalars.json'))).read_text().splitlines()[-1]
    )
    assert 0 <= logged['accuracy/top1'] <= logged['accuracy/top5'] <= 100


def test_evaluation(finetuned, imagenet, tmp_path):
    out = tmp_path / 'metrics.json'
    arguments = [
        '--work-dir',
        tmp_path,
        '--data-root',
        imagenet,
        '--out',
        out,
        '--out-item',
        'metrics',
    ]
    run(
        'tools/test.py',
        FINETUNE,
        finetuned / 'epoch_1.pth',
        *arguments,
        '--tta',
        '--cfg-options',
        *SMALL_TEST,
    )
    assert set(json.loads(out.read_text())) == {'accuracy/top1', 'accuracy/top5'}


def test_evaluation_of_a_pretraining_checkpoint(pretrained, imagenet, tmp_path):
    """An untrained head was evaluated without an error."""
    arguments = [
        FINETUNE,
        pretrained / 'run' / 'epoch_2.pth',
        '--work-dir',
        tmp_path,
        '--data-root',
        imagenet,
    ]
    done = run('tools/test.py', *arguments, '--cfg-options', *SMALL_TEST, fails=True)
    sentence = done.stderr.splitlines()[-1]
    assert (
        sentence.startswith('test.py: error: ')
        and 'epoch_2.pth lacks ' in sentence
        and 'head.fc.weight, head.fc.bias, so' in sentence
    )


def test_evaluation_without_a_checkpoint(imagenet, tmp_path):
    """``None`` as checkpoint: the initial weights of fine-tuning are not downloaded."""
    out = tmp_path / 'predictions.pkl'
    arguments = [
        '--work-dir',
        tmp_path,
        '--data-root',
        imagenet,
        '--out',
        out,
        '--amp',
        '--no-pin-memory',
    ]
    arguments += ['--show-dir', tmp_path / 'drawn', '--interval', 10]
    run('tools/test.py', FINETUNE, 'None', *arguments, '--cfg-options', *SMALL_TEST)
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == 20
    assert predictions[0]['pred_score'].shape == (1000,)
    assert len(list((tmp_path / 'drawn').rglob('*.png'))) == 2


def test_linear_probe(pretrained, imagenet, tmp_path):
    """An epoch of LARS on the frozen encoder changes the classifier and not the encoder."""
    checkpoint = pretrained / 'run' / 'epoch_2.pth'
    options = [
        *SMALL_FINETUNE,
        *SMALL_TEST,
        'model.neck.input_features=192',
        'train_cfg.max_epochs=1',
    ]
    arguments = ['--work-dir', tmp_path, '--data-root', imagenet, '--pretrained', checkpoint]
    run('tools/train.py', LINEAR, *arguments, '--cfg-options', *options)
    records = scalars(tmp_path)
    # 0.1 * 8 / 256 at the second step of 10 epochs of warm-up at 2 steps per epoch.
    assert records[1]['lr'] == pytest.approx(0.1 * 8 / 256 / 20, rel=1e-6)
    before = torch.load(checkpoint, weights_only=True)['state_dict']
    after = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['state_dict']
    encoder = [name for name in after if name.startswith('backbone.')]
    assert len(encoder) == 12 * 12 + 6
    assert all(torch.equal(after[name], before[name]) for name in encoder)
    assert after['head.layers.head.bias'].any()


def test_commands_as_published(pretrained, imagenet, tmp_path):
    """With data/imagenet in the working directory; meta/val.txt lists val/, train/ has folders."""
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    data = tmp_path / 'data' / 'imagenet'
    write_jpegs(data / 'val', 8, size=(80, 72))
    (data / 'meta').mkdir()
    (data / 'meta' / 'val.txt').write_text(''.join(f'{i:03d}.jpg {i * 100}\n' for i in range(8)))
    (data / 'train').symlink_to(imagenet / 'train')
    printed = run('tools/test.py', FINETUNE, 'None', cwd=tmp_path).stdout
    assert 'accuracy/top1' in printed
    indices = 'train_dataloader.dataset.indices=8'
    options = [*SMALL_PRETRAIN, indices, 'train_cfg.max_epochs=1', 'train_dataloader.num_workers=2']
    run('tools/train.py', PRETRAIN, '--cfg-options', *options, cwd=tmp_path)
    assert len(scalars(tmp_path / 'work_dirs' / Path(PRETRAIN).stem)) == 2


@pytest.mark.openmmlab_only
@pytest.mark.parametrize('recipe', ['pretrain', 'finetune', 'linear'])
def test_base_models_take_a_step(imagenet, tmp_path, recipe):
    """ViT-B at full size: one step of each recipe on two images, and an evaluation of two."""
    config = dict(pretrain=PRETRAIN, finetune=FINETUNE, linear=LINEAR)[recipe]
    options = [
        'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0',
        'train_dataloader.dataset.indices=2',
    ]
    options += [
        'train_cfg.max_epochs=1',
        'default_hooks.checkpoint.save_last=False',
        'default_hooks.checkpoint.interval=9',
    ]
    if recipe != 'pretrain':
        options += [
            'model.backbone.init_cfg=None',
            'val_dataloader.num_workers=0',
            'val_dataloader.dataset.indices=2',
        ]
    run(
        'tools/train.py',
        config,
        '--work-dir',
        tmp_path,
        '--data-root',
        imagenet,
        '--cfg-options',
        *options,
    )
    (record,) = scalars(tmp_path)
    # Normalized targets have unit variance, so the loss of an untrained decoder is slightly above
    # 1. The loss of an untrained classifier is the logarithm of the number of classes.
    expected = dict(pretrain=(1, 3), finetune=(6.8, 7.1), linear=(5, 9))[recipe]
    assert expected[0] < record['loss'] < expected[1]
    if recipe != 'pretrain':
        (lines,) = (file.read_text() for file in tmp_path.glob('*/vis_data/scalars.json'))
        assert 'accuracy/top1' in lines


def error_of(capfd, *arguments: object) -> str:
    """Runs a tool in this process; returns the last line of its error."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, 'argv', [str(ROOT / arguments[0]), *map(str, arguments[1:])])
        patch.chdir(ROOT)
        runpy.run_path(sys.argv[0], run_name='__main__')
    assert ended.value.code not in (0, None)
    message = ended.value.code if isinstance(ended.value.code, str) else capfd.readouterr().err
    return message.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['tools/train.py', 'configs/no.py'], 'there is no config configs/no.py'),
        (
            ['tools/train.py', PRETRAIN],
            'the dataset folder data/imagenet/train of train_dataloader does not exist',
        ),
        (
            ['tools/train.py', PRETRAIN, '--data-root', '/nowhere'],
            'the dataset folder /nowhere/train',
        ),
        (['tools/train.py', PRETRAIN, '--wrok-dir', 'x'], 'unrecognized arguments: --wrok-dir'),
        (
            ['tools/train.py', PRETRAIN, '--cfg-options', 'optim_wraper.optimizer.lr=1'],
            'did you mean optim_wrapper?',
        ),
        (['tools/train.py', PRETRAIN, '--cfg-options', 'seed'], "form key=value, but got 'seed'"),
        (
            ['tools/train.py', PRETRAIN, '--data-root', '{images}', '--resume', 'no.pth'],
            "there is no checkpoint 'no.pth'",
        ),
        (
            [
                'tools/train.py',
                FINETUNE,
                '--data-root',
                '{imagenet}',
            ],
            "no checkpoint '' to start from; name yours with --pretrained PATH",
        ),
        (
            [
                'tools/train.py',
                FINETUNE,
                '--data-root',
                '{imagenet}',
                '--pretrained',
                'http://127.0.0.1:9/weights.pth',
            ],
            'the weights could not be fetched',
        ),
        (
            ['tools/train.py', PRETRAIN, '--data-root', '{images}', '--pretrained', '{images}'],
            'starts from no pre-trained weights',
        ),
        (
            [
                'tools/train.py',
                PRETRAIN,
                '--data-root',
                '{images}',
                '--cfg-options',
                'model.backbone.mask_ratio=1.5',
            ],
            'mask_ratio=1.5',
        ),
        (
            [
                'tools/train.py',
                PRETRAIN,
                '--data-root',
                '{images}',
                '--cfg-options',
                'model.backbone.mask_ration=0.5',
            ],
            'did you mean mask_ratio?',
        ),
        (
            ['tools/test.py', FINETUNE, 'no.pth', '--data-root', '{imagenet}'],
            "there is no checkpoint 'no.pth' to evaluate",
        ),
        (
            ['tools/test.py', FINETUNE, 'None'],
            'the dataset folder data/imagenet of test_dataloader does not exist',
        ),
        (['tools/test.py', PRETRAIN, 'None'], 'has no test_dataloader and test_evaluator'),
        (['tools/test.py', FINETUNE, 'None', '--out', 'x.json'], 'must end in .pkl'),
        (['tools/test.py', FINETUNE, 'None', '--tta', '--show'], 'leave out --show'),
        (['tools/test.py', FINETUNE], 'the following arguments are required: checkpoint'),
        (['tools/demo.py', '--data', '/nowhere'], 'there is no folder /nowhere'),
        (['tools/demo.py', '--data', '{images}'], 'holds 16 images'),
        (['tools/demo.py', '--minutes', '0'], '--minutes 0 leaves no time'),
    ],
)
def test_errors_are_one_sentence(capfd, pretrained, imagenet, tmp_path, arguments, message):
    folders = dict(images=str(pretrained / 'images'), imagenet=str(imagenet))
    tool, *arguments = [argument.format(**folders) for argument in arguments]
    assert message in error_of(
        capfd, tool, '--out' if 'demo' in tool else '--work-dir', tmp_path, *arguments
    )


def test_errors_end_a_process_without_a_traceback():
    done = run('tools/train.py', PRETRAIN, '--data-root', '/nowhere', fails=True)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        'train.py: error: the dataset folder /nowhere/train'
    )


def test_fewer_images_than_a_batch(pretrained, tmp_path, capfd):
    arguments = [
        '--work-dir',
        tmp_path,
        '--data-root',
        pretrained / 'images',
        '--cfg-options',
        *SMALL,
    ]
    assert 'fewer training images than one batch' in error_of(
        capfd, 'tools/train.py', PRETRAIN, *arguments
    )


def test_a_folder_without_images(tmp_path, capfd):
    (tmp_path / 'train').mkdir()
    message = error_of(
        capfd, 'tools/train.py', PRETRAIN, '--data-root', tmp_path, '--work-dir', tmp_path / 'run'
    )
    assert f'there is no image in {tmp_path}/train' in message


@pytest.mark.openmmlab_only
def test_demo(tmp_path):
    """The whole demo in a few seconds of training on generated images."""
    write_jpegs(tmp_path / 'images' / 'deep' / 'inside', 40, size=(90, 120))
    (tmp_path / 'images' / 'broken.jpg').write_bytes(b'not an image')
    done = run(
        'tools/demo.py', '--data', tmp_path / 'images', '--minutes', 0.5, '--out', tmp_path / 'out'
    )
    (results,) = (tmp_path / 'out').iterdir()
    numbers = json.loads((results / 'results.json').read_text())
    assert numbers['train'] + numbers['held_out'] == 40
    assert numbers['psnr_db']['trained model'] > numbers['psnr_db']['untrained model']
    panel = max(results.glob('*/vis_data/vis_image/*.png'), key=lambda path: path.stat().st_mtime)
    for path in (panel, results / 'reconstruction.png', results / 'loss.png'):
        assert path.stat().st_size > 10_000
        assert str(path) in done.stdout
    assert 'broken.jpg' in done.stdout
    assert sorted(path.name for path in (tmp_path / 'images').iterdir()) == ['broken.jpg', 'deep']


@pytest.mark.slow
@pytest.mark.openmmlab_only
def test_demo_on_photographs(tmp_path):
    """The unchanged demo: the trained model is better than both fills, by decibels."""
    run('tools/demo.py', '--out', tmp_path)
    (results,) = tmp_path.iterdir()
    scores = json.loads((results / 'results.json').read_text())['psnr_db']
    assert scores['trained model'] > 2 + max(
        score for name, score in scores.items() if name != 'trained model'
    )
