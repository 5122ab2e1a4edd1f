"""How an unmodified module is read, and verified on its own gradient and pixels."""
