"""Tables of rows: CSV, TSV, JSONL and Parquet, read strictly into texts, by the columns that are used."""
