"""What the documentation's site is made with, beside Sphinx: its generated parts, and its pictures."""
