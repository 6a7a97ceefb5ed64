"""How scaling laws, models of equal quality and pass@k are shown: plain data and tables."""
