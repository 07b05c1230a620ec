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

gin/hosts/t5x.gin and gin/runs/ bind all of them. Nothing of T5X is patched, and
its mains (`t5x.train`, `t5x.eval`, `t5x.infer`) run as they are.
"""
