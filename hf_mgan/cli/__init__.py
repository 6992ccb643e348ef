"""The command `hf-mgan`: one module a subcommand, and `main`, which chooses among them."""
