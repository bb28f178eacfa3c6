"""Makes datasets of datasets: outputs in another form, in part, balanced, joined, on the hub. Nothing is rendered."""
