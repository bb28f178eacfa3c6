"""Generation methods. `METHODS` maps a manifest's `method.name` to the class that runs it."""

from stylebatch.methods.styleid import StyleID

METHODS: dict[str, type[StyleID]] = {"styleid": StyleID}
