"""Graph -> Program, one pass per file; the compiler applies decisions and never makes numbers of its own."""
