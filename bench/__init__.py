"""Measures the budgets of the product on a real engine: `./dev bench`, or `python -m bench`."""
