"""Parameters as flat arrays: paths, bits, hashes, and files that hold them."""
