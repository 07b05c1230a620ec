"""Seeds in Hugging Face's layout: config.json and safetensors files."""
