"""Files to pages to an index: `Ingest` drives an encoder it is given over what `find` finds and a `Renderer` draws."""
