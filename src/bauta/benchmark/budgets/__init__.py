"""Tables of budgets: what mechanisms of differential privacy leave of recognition, spend in all, and give back."""
