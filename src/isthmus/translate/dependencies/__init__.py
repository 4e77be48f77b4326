"""Dependencies: what each proxy has to know, so that it need not know everything that federation makes known."""
