"""T5X on Cloud TPU, by way of gcloud."""
