"""The command `hf-mgan`: each subcommand has its module, and `main` chooses among them."""
