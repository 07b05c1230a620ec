"""Dynamic subset tuning inside T5X, through T5X's own extension points.

| hook                                    | here                            |
|-----------------------------------------|---------------------------------|
| `OptimizerDef`                          | `optimizer.Selective`           |
| `train_state_initializer_cls`, training | `restore.TrainInitializer`      |
| the same, evaluation and inference      | `restore.InferenceInitializer`  |
| `partitioner`                           | `partitioning.Partitioner`      |
| `get_dataset_fn`                        | `datasets.get_dataset`          |
| `SaveCheckpointConfig.checkpointer_cls` | `best.checkpointer`             |
| `Trainer.weight_metrics_computer`       | `subset_metrics.SubsetMetrics`  |

gin/runs/finetune_t5x.gin, eval_t5x.gin and infer_t5x.gin bind them; on top of
your own T5X config, gin/hosts/on_top_t5x.gin does. Nothing of T5X is patched,
and its mains (`t5x.train`, `t5x.eval`, `t5x.infer`) run as they are.

`before_run` and `dst_t5x.checkpoint.resume_checks` check what a run begins
with, `save_checks` what it saves; `model_info` is what T5X says of the model.
"""
