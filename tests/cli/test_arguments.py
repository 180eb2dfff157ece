"""Errors for options of other training scripts name the option to use here."""

import pytest
from mae_plugin.cli.arguments import Parser, add_common_arguments, add_model_arguments


@pytest.mark.parametrize(
    ('typed', 'hint'),
    [
        ('--epochs', '--cfg-options train_cfg.max_epochs=N'),
        ('--max_epochs', '--cfg-options train_cfg.max_epochs=N'),
        ('--lr=1', '--cfg-options optim_wrapper.optimizer.lr=RATE'),
        ('--data_root', 'did you mean --data-root?'),
        ('--work_dir', 'did you mean --work-dir?'),
        ('--data-path', '--data-root FOLDER'),
        ('--output_dir', '--work-dir FOLDER'),
        ('--workers', '--cfg-options train_dataloader.num_workers=N'),
        ('--wrok-dir', 'did you mean --work-dir?'),
        ('--cfg-option', 'did you mean --cfg-options?'),
    ],
)
def test_unknown_options(capsys, typed, hint):
    parser = Parser(allow_abbrev=False)
    parser.add_argument('config')
    add_common_arguments(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(['config.py', typed, '5'])
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert 'unrecognized arguments' in error
    assert hint in error


def test_tools_that_take_no_settings_offer_none(capsys):
    parser = Parser()
    add_model_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(['model', 'images', '--epochs', '5'])
    assert 'cfg-options' not in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--device', 'gpu'], 'device gpu is unknown'),
        (['--device', 'cuda:99'], 'device cuda:99 is a GPU, but this machine has'),
        (['--batch-size', '0'], '0 is no whole number of at least 1'),
        (['--batch-size', 'many'], 'many is no whole number'),
    ],
)
def test_values(capsys, options, message):
    """The error of ``--device cuda`` without a GPU was about forked subprocesses."""
    parser = Parser()
    add_model_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(['model', 'images', *options])
    assert message in capsys.readouterr().err.splitlines()[-1]
