"""Settings shared by all recipes. Everything else keeps the defaults of mmengine."""

custom_imports = dict(imports=['mae_plugin'])
default_scope = 'mmpretrain'

default_hooks = dict(
    lock=dict(type='RunLockHook'),
    runtime_info=dict(type='LeanRuntimeInfoHook'),
    compile=dict(type='CompileHook'),
    logger=dict(type='LenientLoggerHook', interval=100),
    checkpoint=dict(type='SafeCheckpointHook', interval=1, max_keep_ckpts=3),
    fit=dict(type='WeightsFitHook'),
    data=dict(type='DataFitHook'),
    guard=dict(type='NaNGuardHook', patience=50),
    preemption=dict(type='PreemptionHook'),
    # These two and the log level are defaults, which mmpretrain's own tools read from the config.
    param_scheduler=dict(type='ParamSchedulerHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)
log_level = 'INFO'
train_cfg = dict(type='ResumableEpochLoop')
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
# Masks and crops differ between ranks.
randomness = dict(seed=0, diff_rank_seed=True)
