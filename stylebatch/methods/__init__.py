"""Generation methods: a folder each, options without torch beside the algorithm."""
