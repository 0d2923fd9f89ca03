"""What a network computes: one small typed SSA graph for every stage of the compiler."""
