"""How the embedded model is made and measured: its data, its untrained folder, its figures."""
