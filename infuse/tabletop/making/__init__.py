"""How the tabletop's models were made and measured: `make tabletop` runs it from nothing."""
