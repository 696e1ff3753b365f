"""One file or folder per benchmark, named as its entry point."""
