"""Below all other rooms: paths, bits, hashes and files of arrays."""
