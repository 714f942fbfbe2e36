"""The subcommands, a file each: options and help here, the work in the files above."""
