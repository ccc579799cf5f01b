"""The engine: ordinary functions, compiled. `docs/design/capture.md` explains it."""
