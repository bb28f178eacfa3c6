"""The product at work: one runnable file per use, and the laboratory that measures, proves and trains. Not in the wheel."""
