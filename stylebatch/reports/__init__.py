"""What a person looks at after a run, made from the records alone: totals, contact sheet, gallery."""
