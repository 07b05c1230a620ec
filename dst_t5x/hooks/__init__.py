"""Dynamic subset tuning inside T5X, through T5X's own extension points.

| hook                                | here                            |
|-------------------------------------|---------------------------------|
| `OptimizerDef`                      | `optimizer.Selective`           |
| `train_state_initializer_cls`       | `restore.SeedInitializer`       |
| `partitioner`                       | `partitioning.Partitioner`      |
| `Trainer.weight_metrics_computer`   | `metrics.SubsetMetrics`         |

`gin/hosts/t5x.gin` binds all of them. Nothing of T5X is patched, and its mains
(`t5x.train`, `t5x.eval`, `t5x.infer`) run as they are.
"""
