"""The command line: `app` has the commands, `recipe` reads what they are told, `show` prints, `train` is `infuse train`."""
