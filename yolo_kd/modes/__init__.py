"""One file per mode of the command line; each has `main(settings) -> int`."""
