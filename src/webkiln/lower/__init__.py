"""Model → computations: one definition a node, then fusion."""
