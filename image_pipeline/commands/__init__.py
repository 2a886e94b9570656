"""What the command line does, one module per command; imported only when it is called."""
